"""Any data set of the Hub with an image and a mask column, or a local folder of parquet or Arrow files.

    data: {name: hub, repo: owner/name, revision: main, label_column: annotation, classes: id2label.json}

Masks may be images in any coding that `MaskReader` knows, or arrays of ids. Without streaming, every mask is checked
once and the label maps are kept in the Arrow cache; images stay where `datasets` has put them. With streaming they are
checked as they pass by.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import datasets
from huggingface_hub import errors, hf_hub_download

from hfseg.config import DataConfig
from hfseg.data.allowed_files import AllowedFiles, check_declared_files
from hfseg.data.classes import find_class_file, named_classes, read_class_table
from hfseg.data.hub_rows import (
    STANDARD,
    RowConverter,
    has_names,
    hold_out_of_stream,
    hold_out_rows,
    is_image_column,
    standardise,
    stored,
)
from hfseg.data.masks import MaskReader
from hfseg.data.rows import Split
from hfseg.data.source import digest, without_bars
from hfseg.data.splits import check_likely_splits, complete_splits, find_splits, warn_unread
from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet

logger = logging.getLogger(__name__)

DATA_SUFFIXES = (".parquet", ".arrow")
Splits: TypeAlias = datasets.DatasetDict | datasets.IterableDatasetDict


def load_hub(config: DataConfig, cache_dir: Path) -> tuple[Splits, LabelSet]:
    """The splits with columns `image`, `label` and `name`, lazily under `data.streaming`, and the classes.

    Raises UserError that names what is not there (data set, revision, column, class file), or the wrong mask.
    """
    where = check_place(config)
    if isinstance(config.classes, tuple):
        table = named_classes(config.classes, config.ignore_index)
    else:
        table = read_class_table(fetch_class_file(config, config.classes), config.ignore_index)
    found = fetch(config, cache_dir)
    names = find_splits(list(found), where)
    warn_unread(list(found), names, where)
    rows: dict[str, Split] = {}
    for split, name in names.items():
        encoded = stored(found[name], config.image_column, config.label_column)
        convert = converter(config, MaskReader.of(table, config.reduce_labels), split, name, encoded)
        rows[split if convert.is_labelled else "predict"] = standardise(encoded, convert)
    predict = {"predict": rows.pop("predict")} if "predict" in rows else {}
    hold_out = hold_out_of_stream if config.streaming else hold_out_rows
    splits = complete_splits(rows, hold_out, where) | predict
    return (typed_streams(splits, where) if config.streaming else datasets.DatasetDict(splits)), table.labels


def check_place(config: DataConfig) -> str:
    """What errors call the data set; raises UserError where it cannot be one."""
    if (config.repo is None) == (config.root is None):
        raise UserError("data.name=hub needs either data.repo=owner/name or data.root, a folder of parquet files.")
    if config.root is not None and not config.root.is_dir():
        raise UserError(f"data.root={config.root} is not a folder. It must hold parquet or Arrow files.")
    if config.root is not None and "[" in str(config.root.resolve()):
        raise UserError(f"data.root={config.root}: `datasets` takes [ in a path for a pattern. Rename the folder.")
    return config.repo or str(config.root)


def converter(config: DataConfig, reader: MaskReader, split: str, name: str, rows: Split) -> RowConverter:
    """For the rows of the `split` that the data set calls `name`; UserError where there are none."""
    where = f"{config.repo or config.root}, split {name}"
    first = next(iter(rows), None)
    if first is None:
        raise UserError(f"{where} is empty. Add rows to it, or remove its files.")
    return RowConverter(
        reader=reader,
        image_column=config.image_column,
        label_column=config.label_column,
        where=where,
        split=name,
        files=AllowedFiles.of_folder(config.root) if config.root else AllowedFiles.of_repo(str(config.repo)),
        # A test on the Hub often has no labels: it is there to be predicted
        is_labelled=split != "test" or first[config.label_column] is not None,
        is_named=has_names(rows, where),
        is_counted=not config.streaming or rows.num_shards == 1,
    )


def typed_streams(splits: Mapping[str, datasets.IterableDataset], where: str) -> datasets.IterableDatasetDict:
    """The streams with the types of their columns; raises UserError for one that no row has come into."""
    for split, rows in splits.items():
        if next(iter(rows), None) is None:
            raise UserError(
                f"{where}: no row is left for the {split} split, which a stream chooses by the rows' names, about one "
                "in ten. Set data.streaming=false, which always finds some, or add rows."
            )
    return datasets.IterableDatasetDict({split: rows.cast(STANDARD) for split, rows in splits.items()})


def fetch(config: DataConfig, cache_dir: Path) -> Splits:
    """The data set as it is; raises UserError where it cannot be had or lacks a column."""
    source, cache, files = str(config.repo or config.root), None, []
    if config.root is not None:
        files = sorted(path for path in config.root.rglob("*") if path.is_file())
        # Another state of the files never meets an old cache, whatever `datasets` looks at
        cache = str(cache_dir / "hub" / digest(None, files))
    check_declared_files(config.root or source, config.revision)
    try:
        builder = datasets.load_dataset_builder(source, config.subset, revision=config.revision, cache_dir=cache)
        if config.streaming:
            found = builder.as_streaming_dataset()
        else:
            with without_bars():
                builder.download_and_prepare()
            found = builder.as_dataset()
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(_explain(config, error)) from error
    if config.root is not None:
        check_files(config.root, files, builder.config.data_files or {})
    for split, rows in found.items():
        check_columns(rows, config, f"{source}, split {split}")
    return found


def check_files(root: Path, files: Sequence[Path], data_files: Mapping[str, Sequence[str]]) -> None:
    """A line that names those of the `files` in `root` that `datasets` takes for no split, if there are any.

    Raises UserError where it takes all for one split, though they are named as several, such as `Train` and `Test`.
    """
    read = {os.path.realpath(path) for paths in data_files.values() for path in paths}
    if len(data_files) == 1:
        home = os.path.realpath(root)
        check_likely_splits(sorted(os.path.relpath(path, home) for path in read), str(root))
    unread = [path for path in files if path.suffix in DATA_SUFFIXES and os.path.realpath(path) not in read]
    if unread:
        names = shown([path.relative_to(root).as_posix() for path in unread])
        logger.warning("%s: not read are %s, whose names are those of no split.", root, names)


def fetch_class_file(config: DataConfig, chosen: Path | None) -> Path:
    """The class file: a local one, or one of the repository's; raises UserError where none is named or there."""
    if config.root is not None:
        return find_class_file(config.root, chosen)
    if chosen is None:
        raise UserError(
            f"data.repo={config.repo} needs data.classes: a file in the repository, such as id2label.json, or a path."
        )
    if chosen.is_file():
        return chosen
    try:
        return Path(hf_hub_download(config.repo, chosen.as_posix(), repo_type="dataset", revision=config.revision))
    except (OSError, ValueError) as error:
        raise UserError(_explain(config, error)) from error


def check_columns(rows: Split, config: DataConfig, where: str) -> None:
    """Raises UserError for a column that is missing or holds something else."""
    if rows.features is None:
        raise UserError(f"{where} does not say what its columns are. Set data.streaming=false.")
    for key, column in (("image_column", config.image_column), ("label_column", config.label_column)):
        if column not in rows.features:
            raise UserError(f"{where} has no column {column!r}. Set data.{key} to one of {', '.join(rows.features)}.")
        feature = rows.features[column]
        is_array = key == "label_column" and isinstance(feature, datasets.Array2D | datasets.List | datasets.LargeList)
        if not is_array and not is_image_column(feature):
            raise UserError(
                f"{where}: the column {column!r} holds {feature}, not images. Set data.{key} to another of "
                f"{', '.join(rows.features)}."
            )


def _explain(config: DataConfig, error: Exception) -> str:
    where = f"data.repo={config.repo}" if config.repo else f"data.root={config.root}"
    if isinstance(error, ConnectionError | errors.LocalEntryNotFoundError):
        return (
            f"{where}: the Hub cannot be reached ({error}). Check the network and HF_HUB_OFFLINE, or set data.root to "
            "a folder with the data set's parquet files."
        )
    if isinstance(error, errors.EntryNotFoundError):
        return f"data.classes={config.classes} is neither a local file nor in {config.repo}."
    if isinstance(error, errors.RevisionNotFoundError) or str(error).startswith("Revision "):  # of `datasets`
        return f"{where} has no data.revision={config.revision}; give a branch, a tag or a commit."
    if isinstance(error, errors.RepositoryNotFoundError | datasets.exceptions.DatasetNotFoundError):
        return (
            f"{where} is not on the Hub, or private or gated. Check the name; if it is right, ask for access on its "
            "page and log in with `hf auth login`."
        )
    if "corresponds to no data" in str(error):
        return f"{where}: a split is empty ({error}). Add rows to it, or remove its files."
    if "BuilderConfig" in str(error):
        return f"{where}, data.subset={config.subset}: {error} Set data.subset to one that is available."
    return f"{where} cannot be read: {error.__cause__ or error}. Are all its files there and whole?"
