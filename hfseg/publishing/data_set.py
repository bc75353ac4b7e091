"""A prepared data set to the Hub: parquet files that its viewer shows, the class names and a card, in one commit."""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from hfseg.config import RunConfig
from hfseg.data import cache_folder, encode_label, file_of_cell, load_dataset, read_row, reading, undecoded
from hfseg.errors import UserError, shown
from hfseg.files import writing
from hfseg.hub import PushResult, check_access, public_files, push_files
from hfseg.labels import LabelSet
from hfseg.publishing.data_card import CLASS_FILE, FOLDER, SPLITS, build_data_card, published_ignore_index
from hfseg.publishing.plain_images import without_metadata
from hfseg.publishing.push import print_outcome
from hfseg.runs import DATA_SETS

logger = logging.getLogger(__name__)

ROWS = 1000  # of a file


def check_data_push(config: RunConfig, licence: str | None) -> str:
    """What can be said before the data is read; returns the repository's full name.

    Args:
        config: which data, and in `hub` where to.
        licence: of the data, as an id of the Hub's list.

    Raises:
        UserError: `hub.repo` is not set, the data may not be passed on or so, or the Hub refuses, see `check_access`.
    """
    hub, data_set = config.hub, DATA_SETS[config.data.name]
    if hub.repo is None:
        raise UserError("hub.repo is not set: say where to publish, such as hub.repo=me/name.")
    if not data_set.may_be_passed_on:
        raise UserError(f"{data_set.title}: its terms do not allow to pass the images on. Nothing was sent.")
    if licence and data_set.data_licence not in (None, licence):
        raise UserError(f"--license={licence}: {data_set.title} is under {data_set.data_licence}. Leave it out.")
    if not hub.private and not (licence or data_set.data_licence):
        raise UserError(
            "hub.private=false would show the data to everybody, but nothing says what they may do with it: add "
            "--license, an id of the Hub's list such as cc-by-4.0, cc0-1.0 or other. Nothing was sent."
        )
    return check_access(hub.repo, hub.private, hub.create_pr, revision=hub.revision, kind="dataset")


def push_data(config: RunConfig, repo: str, licence: str | None) -> PushResult:
    """Pushes the splits of a data set as hfseg prepares them, and prints where they are.

    Each row has the image as its file has it but without metadata such as EXIF, the class ids as a PNG (`label`), the
    classes in it and its name. `data: {name: hub, repo: ..., classes: id2label.json}` reads the same splits again.

    Args:
        config: see `check_data_push`.
        repo: what that returns.
        licence: see there.

    Raises:
        UserError: the data cannot be read.
        HubTransferError: the transfer failed; says what has reached the repository.
    """
    data, labels = load_dataset(config.data)
    if "predict" in data:
        logger.warning("The %d images without labels are not published.", len(data["predict"]))
    with tempfile.TemporaryDirectory(prefix="push-", dir=cache_folder()) as folder, writing(Path(folder)):
        info = write_parquet(data, labels, Path(folder))
        files: dict[str, str | Path] = {f"{FOLDER}/{path.name}": path for path in Path(folder).glob("*.parquet")}
        files[CLASS_FILE] = json.dumps(labels.id2label, indent=2, ensure_ascii=False) + "\n"
        licence = licence or DATA_SETS[config.data.name].data_licence
        files["README.md"] = str(build_data_card(config.data, labels, info, repo, licence))
        hub, public = config.hub, public_files(files, {str(Path.home()): "~"})
        result = push_files(
            public, repo, "Publish the data set", hub.revision, hub.private, hub.create_pr, None, "dataset", FOLDER
        )
    print_outcome(result)
    return result


def write_parquet(data: Mapping[str, datasets.Dataset], labels: LabelSet, folder: Path) -> datasets.DatasetInfo:
    """Writes the splits into files of at most 1000 rows, a few images at a time; returns what `datasets` says."""
    columns = {"image": datasets.Image(), "label": datasets.Image(), "name": datasets.Value("string")}
    columns["classes"] = datasets.List(datasets.ClassLabel(names=list(labels.names)))
    features = datasets.Features(columns)
    splits = datasets.SplitDict()
    for split in SPLITS:
        rows, size = undecoded(data[split]), 0
        starts = range(0, len(rows), ROWS)
        for number, start in enumerate(starts):
            path = folder / f"{split}-{number:05d}-of-{len(starts):05d}.parquet"
            prepared = rows.select(range(start, min(start + ROWS, len(rows)))).map(
                public_row,
                fn_kwargs={"labels": labels},
                features=features,
                cache_file_name=str(path.with_suffix(".arrow")),
                writer_batch_size=16,
                desc="Images and masks",
            )
            size += prepared.to_parquet(path)
            del prepared  # and with it the mapped file
            path.with_suffix(".arrow").unlink()
        splits.add(datasets.SplitInfo(split, num_bytes=size, num_examples=len(rows)))
    sizes = {
        "download_size": sum(path.stat().st_size for path in folder.glob("*.parquet")),
        "dataset_size": sum(split.num_bytes for split in splits.values()),
    }
    return datasets.DatasetInfo(features=features, splits=splits, **sizes)


def public_row(cells: Mapping[str, Any], labels: LabelSet) -> dict[str, Any]:
    """A row as it is published, from one with its files as they are stored."""
    row, file = read_row(cells), file_of_cell(cells["image"])
    with reading(f"The image of {shown(row.name)}"):
        image = without_metadata(file.read_bytes() if isinstance(file, Path) else file or b"")
    ids, ignored = row.label, published_ignore_index(labels)
    if labels.ignore_index < 0:  # which PNG cannot hold
        ids = np.where(ids < 0, ignored, ids).astype(np.uint8 if ignored == 255 else np.uint16)
    present = np.unique(ids)
    return {
        "image": {"bytes": image, "path": None},
        "label": {"bytes": encode_label(ids), "path": None},
        "name": Path(row.name).name if row.name.startswith(("/", "~")) else row.name,  # no path of a machine
        "classes": present[present < labels.num_labels].tolist(),
    }
