"""A prepared data set to the Hub: parquet files that its viewer shows, the class names and a card, in one commit."""

import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData

from hfseg.config import DataConfig, RunConfig
from hfseg.data import cache_folder, encode_label, file_of_cell, load_dataset, read_row, reading, undecoded
from hfseg.errors import UserError, shown
from hfseg.files import writing
from hfseg.hub import PushResult, check_access, public_files, push_files
from hfseg.labels import LabelSet
from hfseg.publishing.plain_images import without_metadata
from hfseg.publishing.push import print_outcome
from hfseg.reporting import escape_markdown
from hfseg.runs import DATA_SETS

logger = logging.getLogger(__name__)

TEMPLATE = Path(__file__).with_name("data_card.md.jinja")
SPLITS = ("train", "validation", "test")
FOLDER = "data"  # of the parquet files in the repository
ROWS = 1000  # of a file
CLASS_FILE = "id2label.json"
SIZES = ("n<1K", "1K<n<10K", "10K<n<100K", "100K<n<1M", "1M<n<10M")


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
        UserError: the data cannot be read, or a row has a path of this machine as its name.
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
        files["README.md"] = str(data_card(config.data, labels, info, repo, licence))
        hub, public = config.hub, public_files(files, {str(Path.home()): "~"})
        result = push_files(
            public, repo, "Publish the data set", hub.revision, hub.private, hub.create_pr, None, "dataset", FOLDER
        )
    print_outcome(result)
    return result


def write_parquet(data: Mapping[str, datasets.Dataset], labels: LabelSet, folder: Path) -> datasets.DatasetInfo:
    """Writes the splits into files of at most 1000 rows, a few images at a time; returns what `datasets` says of them.

    Raises UserError for a row that is called by a path of this machine.
    """
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
    if row.name.startswith(("/", "~")):
        raise UserError(f"A row is called {shown(row.name)}, a path of this machine, which stays here. Rename it.")
    with reading(f"The image of {shown(row.name)}"):
        image = without_metadata(file.read_bytes() if isinstance(file, Path) else file or b"")
    ids, ignored = row.label, ignore_index(labels)
    if labels.ignore_index < 0:  # which PNG cannot hold
        ids = np.where(ids < 0, ignored, ids).astype(np.uint8 if ignored == 255 else np.uint16)
    present = np.unique(ids)
    return {
        "image": {"bytes": image, "path": None},
        "label": {"bytes": encode_label(ids), "path": None},
        "name": row.name,
        "classes": present[present < labels.num_labels].tolist(),
    }


def ignore_index(labels: LabelSet) -> int:
    """Of the published masks."""
    return labels.ignore_index if labels.ignore_index >= 0 else LabelSet(labels.names).ignore_index


def data_card(
    data: DataConfig, labels: LabelSet, info: datasets.DatasetInfo, repo: str, licence: str | None
) -> DatasetCard:
    """The card of a published data set, with what the Hub and `datasets` read in its metadata."""
    sizes = {split.name: split.num_examples for split in info.splits.values()}
    title = repo.rpartition("/")[2]
    card_data = DatasetCardData(
        license=licence or "unknown",
        pretty_name=title,
        task_categories=["image-segmentation"],
        task_ids=["semantic-segmentation"],
        size_categories=[SIZES[min(max(len(str(sum(sizes.values()))) - 3, 0), len(SIZES) - 1)]],
        tags=["hfseg"],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(card_data)
    files = [{"split": split, "path": f"{FOLDER}/{split}-*"} for split in SPLITS]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(card_data)
    card: DatasetCard = DatasetCard.from_template(
        card_data=card_data,
        template_path=str(TEMPLATE),
        title=title,
        repo=repo,
        source=data.repo,
        data_set=DATA_SETS[data.name],
        note=escape_markdown(data.note or ""),
        names=[escape_markdown(name) for name in labels.names],
        ignore_index=ignore_index(labels),
        sizes=sizes,
        licence=licence,
        class_file=CLASS_FILE,
    )
    return card
