"""Any data set of the Hub with an image and a mask column, or a local folder of parquet or Arrow files.

    data: {name: hub, repo: owner/name, revision: main, label_column: annotation, classes: id2label.json}

Masks may be images in any coding that `MaskReader` knows, or arrays of ids. Without streaming, every mask is checked
once and the label maps are kept in the Arrow cache; images stay where `datasets` has put them. With streaming they are
checked as they pass by.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import datasets
from huggingface_hub import errors, hf_hub_download

from hfseg.config import DataConfig
from hfseg.data.classes import find_class_file, named_classes, read_class_table
from hfseg.data.declared_files import check_folder, check_repo
from hfseg.data.files import digest, file_state
from hfseg.data.home import Home
from hfseg.data.masks import MaskReader
from hfseg.data.rows import (
    RowConverter,
    Rows,
    has_names,
    hold_out_of_stream,
    hold_out_rows,
    is_image,
    standardise,
    stored,
    typed,
)
from hfseg.data.splits import check_likely_splits, complete_splits, find_splits, tell_unread
from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet

logger = logging.getLogger(__name__)

DATA_SUFFIXES = (".parquet", ".arrow")
Splits: TypeAlias = datasets.DatasetDict | datasets.IterableDatasetDict


def load_hub(config: DataConfig, cache_dir: Path) -> tuple[Splits, LabelSet]:
    """The splits with columns `image`, `label` and `name`, lazily under `data.streaming`, and the classes.

    Raises:
        UserError: the data set, its revision, a column or the class file is not there, or a mask is wrong; names it.
    """
    if (config.repo is None) == (config.root is None):
        raise UserError("data.name=hub needs either data.repo=owner/name or data.root, a folder of parquet files.")
    if config.root is not None and not config.root.is_dir():
        raise UserError(f"data.root={config.root} is not a folder. It must hold parquet or Arrow files.")
    if config.root is not None and "[" in str(config.root.resolve()):
        raise UserError(f"data.root={config.root}: `datasets` takes [ in a path for a pattern. Rename the folder.")
    where = config.repo or str(config.root)
    chosen, ignored = config.classes, config.ignore_index
    if isinstance(chosen, tuple):
        table = named_classes(chosen, ignored)
    else:
        table = read_class_table(fetch_class_file(config, chosen), ignored)
    reader = MaskReader.of(table, config.reduce_labels)
    found = fetch(config, cache_dir)
    names = find_splits(list(found), where)
    tell_unread(list(found), names, where)
    home = Home.of_folder(config.root) if config.root is not None else Home.of_repo(str(config.repo))
    rows: dict[str, Rows] = {}
    for split, name in names.items():
        encoded = stored(found[name], config.image_column, config.label_column)
        first = next(iter(encoded), None)
        if first is None:
            raise UserError(f"{where}, split {name} is empty. Add rows to it, or remove its files.")
        # A test on the Hub often has no labels: it is there to be predicted
        is_labelled = split != "test" or first[config.label_column] is not None
        convert = converter(config, reader, home, name, encoded, is_labelled)
        rows[split if is_labelled else "predict"] = standardise(encoded, convert)
    predict = {"predict": rows.pop("predict")} if "predict" in rows else {}
    hold_out = hold_out_of_stream if config.streaming else hold_out_rows
    splits = complete_splits(rows, hold_out, where) | predict
    if config.streaming:
        check_not_empty(splits, where)
    kind = datasets.IterableDatasetDict if config.streaming else datasets.DatasetDict
    return kind({split: typed(members) for split, members in splits.items()}), table.labels


def converter(
    config: DataConfig, reader: MaskReader, home: Home, name: str, rows: Rows, is_labelled: bool
) -> RowConverter:
    """For the rows of the split called `name`."""
    where = f"{config.repo or config.root}, split {name}"
    return RowConverter(
        reader=reader,
        image_column=config.image_column,
        label_column=config.label_column,
        where=where,
        split=name,
        home=home,
        is_labelled=is_labelled,
        is_named=has_names(rows, where),
        is_counted=not config.streaming or rows.num_shards == 1,
    )


def fetch(config: DataConfig, cache_dir: Path) -> Splits:
    """The data set as it is; raises UserError where it cannot be had."""
    source, cache = config.repo, None
    if config.root is not None:
        files = [path for path in sorted(config.root.rglob("*")) if path.is_file()]
        # Another state of the files never meets an old cache, whatever `datasets` looks at
        cache = str(cache_dir / "hub" / digest([(str(path), *file_state(path)) for path in files]))
        source = str(config.root)
        check_folder(config.root)
    else:
        check_repo(str(config.repo), config.revision)
    try:
        found = datasets.load_dataset(
            source, config.subset, revision=config.revision, streaming=config.streaming, cache_dir=cache
        )
        if config.root is not None:
            check_files(config.root, datasets.load_dataset_builder(source, config.subset, cache_dir=cache))
    except (datasets.exceptions.DatasetsError, OSError, ValueError) as error:
        raise UserError(_explain(config, error)) from error
    for split, rows in found.items():
        check_columns(rows, config, f"{source}, split {split}")
    return found


def check_files(root: Path, builder: datasets.DatasetBuilder) -> None:
    """A line that names the data files that `datasets` takes for no split, if there are any.

    Raises:
        UserError: it takes all for one split, though they are named as several, such as `Train` and `Test`.
    """
    files = builder.config.data_files or {}
    read = {os.path.realpath(path) for paths in files.values() for path in paths}
    if len(files) == 1:
        home = os.path.realpath(root)
        check_likely_splits(sorted(os.path.relpath(path, home) for path in read), str(root))
    unread = [path for path in sorted(root.rglob("*")) if path.suffix in DATA_SUFFIXES]
    unread = [path for path in unread if os.path.realpath(path) not in read]
    if unread:
        names = shown([path.relative_to(root).as_posix() for path in unread])
        logger.warning("%s: not read are %s, whose names are those of no split.", root, names)


def check_not_empty(splits: Mapping[str, Rows], where: str) -> None:
    """Raises UserError for a part of a stream that no row has come into."""
    for split, rows in splits.items():
        if next(iter(rows), None) is None:
            raise UserError(
                f"{where}: no row is left for the {split} split, which a stream chooses by the rows' names, about one "
                "in ten. Set data.streaming=false, which always finds some, or add rows."
            )


def fetch_class_file(config: DataConfig, chosen: Path | None) -> Path:
    """The class file: a local one, or one of the repository's.

    Raises:
        UserError: none is named, or it is not there.
    """
    if config.root is not None:
        return find_class_file(config.root, chosen)
    if chosen is None:
        raise UserError(
            f"data.repo={config.repo} needs data.classes: a file in the repository, such as id2label.json, or a path."
        )
    if chosen.is_file():
        return chosen
    try:
        path = hf_hub_download(config.repo, chosen.as_posix(), repo_type="dataset", revision=config.revision)
    except (OSError, ValueError) as error:
        raise UserError(_explain(config, error)) from error
    return Path(path)


def check_columns(rows: Rows, config: DataConfig, where: str) -> None:
    """Raises UserError for a column that is missing or holds something else."""
    if rows.features is None:
        raise UserError(f"{where} does not say what its columns are. Set data.streaming=false.")
    for key, column in (("image_column", config.image_column), ("label_column", config.label_column)):
        if column not in rows.features:
            raise UserError(f"{where} has no column {column!r}. Set data.{key} to one of {', '.join(rows.features)}.")
        feature = rows.features[column]
        is_array = key == "label_column" and isinstance(feature, datasets.Array2D | datasets.List | datasets.LargeList)
        if not is_array and not is_image(feature):
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
