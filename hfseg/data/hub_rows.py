"""Rows of a data set of the Hub, made into `image`, `label` and `name`, at once or as they stream by."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any

import datasets
import numpy as np

from hfseg.data.allowed_files import AllowedFiles
from hfseg.data.images import check_depth, encode_label, open_image
from hfseg.data.masks import MaskReader
from hfseg.data.rows import BYTES, Split, read_cell
from hfseg.data.splits import HELD_OUT_PERCENT, choose_held_out
from hfseg.errors import UserError, shown

logger = logging.getLogger(__name__)

LABEL = {"label": datasets.Image(), "name": datasets.Value("string")}
STANDARD = datasets.Features({"image": datasets.Image(mode="RGB")} | LABEL)
# What an image column is in a file that does not say so; a part that is empty in all rows is null
ENCODED = {"bytes": ("binary", "large_binary", "null"), "path": ("string", "large_string", "null")}
# Of a name's hash modulo 100: which names a stream holds out. Test and validation must not meet.
STREAM_BUCKETS = {"test": range(HELD_OUT_PERCENT), "validation": range(HELD_OUT_PERCENT, 2 * HELD_OUT_PERCENT)}


def is_image_column(feature: object) -> bool:
    """Whether a column holds encoded images, declared as such or not."""
    if isinstance(feature, datasets.Image):
        return True
    if not isinstance(feature, dict) or feature.keys() != ENCODED.keys():
        return False
    return all(isinstance(part, datasets.Value) and part.dtype in ENCODED[key] for key, part in feature.items())


@dataclass(frozen=True)
class RowConverter:
    """Makes a row's `label` and `name`; checks that the image can be decoded and has its mask's size.

    Attributes:
        where: what errors call the split.
        files: which files a row may name.
        is_labelled: whether every row has a mask, or none.
        is_named: whether the column `name` names the rows.
        is_counted: whether a row's index in a stream is its number, as in one of a single file.
    """

    reader: MaskReader
    image_column: str
    label_column: str
    where: str
    split: str
    files: AllowedFiles
    is_labelled: bool
    is_named: bool
    is_counted: bool
    version: int = 2  # `datasets` hashes these fields for its cache, but not this code

    def label(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """For `Dataset.map`: rows without a name are called by split and number."""
        where = f"{self.where}, row {index}"
        data = self._read(row[self.image_column], f"The image of {where}")
        name = row["name"] if self.is_named else f"{self.split}-{index:06d}"
        return {"label": self._label(row, data, where), "name": name}

    def label_and_image(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """For `IterableDataset.map`: each worker counts for itself, so rows without a name are called by content."""
        name = row["name"] if self.is_named else None
        where = f"{self.where}, {self._place(name, index)}"
        data = self._read(row[self.image_column], f"The image of {where}")
        if name is None:
            name = f"{self.split}-{hashlib.sha256(data).hexdigest()[:16]}"
            where = f"{self.where}, {self._place(name, index)}"
        return {"image": {"bytes": data, "path": None}, "label": self._label(row, data, where), "name": name}

    def find_image(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """For `Dataset.map`: the image's cell with the absolute path of its file, wherever it is read from."""
        return {"image": self._allowed(row[self.image_column], f"The image of {self.where}, row {index}")}

    def _place(self, name: str | None, index: int) -> str:
        if self.is_counted:
            return f"row {index}"
        return f"sample {name}" if name else "a row without a name (data.streaming=false tells its number)"

    def _label(self, row: Mapping[str, Any], data: bytes, where: str) -> dict[str, Any] | None:
        """The cell of the label map; None in a split that is there to be predicted."""
        image = open_image(BytesIO(data), f"The image of {where}")
        check_depth(image, f"The image of {where}")
        mask = row[self.label_column]
        if mask is None and self.is_labelled:
            raise UserError(f"{where}: there is no mask. Remove the row, or add its mask.")
        if mask is not None and not self.is_labelled:
            raise UserError(
                f"{where}: there is a mask, but the first row has none, so the split would be predicted and not "
                "scored. Add its mask, or remove the row."
            )
        if mask is None:
            return None
        ids = self._ids(mask, f"The mask of {where}")
        if image.size != ids.shape[::-1]:
            size = f"{ids.shape[1]}x{ids.shape[0]}"
            raise UserError(
                f"{where}: the image is {image.width}x{image.height} pixels, but its mask is {size}. Restore both "
                "from the same source, or remove the row."
            )
        return {"bytes": encode_label(ids), "path": None}

    def _ids(self, mask: Any, where: str) -> Any:
        if isinstance(mask, Mapping):
            return self.reader.from_bytes(self._read(mask, where), where)
        try:
            values = np.asarray(mask)
        except ValueError as error:  # lists of different lengths
            raise UserError(f"{where} is no array of (height, width): {shown(error)}. Mend it.") from error
        return self.reader.check(values, where)

    def _allowed(self, cell: Mapping[str, Any] | None, where: str) -> Mapping[str, Any] | None:
        """A cell of an undecoded image column; of a file that it names, with the absolute path."""
        if cell is None or cell["bytes"] is not None or cell["path"] is None:
            return cell
        return {"bytes": None, "path": self.files.find(cell["path"], where)}

    def _read(self, cell: Mapping[str, Any] | None, where: str) -> bytes:
        """The file in a cell, if it may be opened."""
        cell = self._allowed(cell, where)
        try:
            return read_cell(cell)
        except (OSError, ValueError) as error:
            raise UserError(f"{where} cannot be read: {shown(error)}.") from error


def stored(rows: Split, image_column: str, label_column: str) -> Split:
    """The columns that are needed, with images as they are stored: decoding opens whatever a row names."""
    columns = [name for name in (image_column, label_column, "name") if name in rows.features]
    rows = rows.select_columns(list(dict.fromkeys(columns)))
    for column in (image_column, label_column):
        if is_image_column(rows.features[column]):
            rows = rows.cast_column(column, BYTES)
    return rows


def has_names(rows: Split, where: str) -> bool:
    """Whether the column `name` names every row, and says so where there is one that does not.

    Of a stream only the column's type is known: what is repeated there is held out together.
    """
    if rows.features.get("name") not in (datasets.Value("string"), datasets.Value("large_string")):
        return False
    if isinstance(rows, datasets.IterableDataset):
        return True
    names = rows["name"][:]
    if None not in names and len(set(names)) == len(names):
        return True
    what = "is empty in some rows" if None in names else "has the same text in several rows"
    logger.warning("%s: the column `name` %s, so rows are called by their numbers.", where, what)
    return False


def standardise(rows: Split, convert: RowConverter) -> Split:
    """The columns `image`, `label` and `name` of what `stored` gives.

    Those of a stream have no types: `datasets` would decode each image to filter it, and encode it as another file.
    """
    columns = list(rows.features)
    if isinstance(rows, datasets.IterableDataset):
        return rows.map(convert.label_and_image, with_indices=True, remove_columns=columns)
    converted = rows.map(
        convert.label, with_indices=True, remove_columns=columns, features=datasets.Features(LABEL), desc="Masks"
    )
    images = rows.select_columns([convert.image_column])
    if any(chunk.field("bytes").null_count for chunk in images.data.column(convert.image_column).chunks):
        images = images.map(
            convert.find_image,
            with_indices=True,
            remove_columns=[convert.image_column],
            features=datasets.Features({"image": BYTES}),
            desc="Image files",
        )
    elif convert.image_column != "image":
        images = images.rename_column(convert.image_column, "image")
    return datasets.concatenate_datasets([images.cast_column("image", STANDARD["image"]), converted], axis=1)


def hold_out_rows(rows: datasets.Dataset, split: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Splits off 10 %, at least one row; which ones depends on the names alone."""
    names = rows["name"][:]
    held_out = choose_held_out(names)
    if len(held_out) == len(names):
        raise UserError(f"There are {len(names)} training rows: none is left after the {split} split. Add rows.")
    rest = [index for index in range(len(names)) if index not in held_out]
    return rows.select(rest), rows.select(sorted(held_out))


def hold_out_of_stream(
    rows: datasets.IterableDataset, split: str
) -> tuple[datasets.IterableDataset, datasets.IterableDataset]:
    """Splits off about 10 %, row by row and by name."""
    outside, inside = (
        rows.filter(partial(_is_held_out, split=split, expected=expected), input_columns=["name"])
        for expected in (False, True)
    )
    return outside, inside


def _is_held_out(name: str, split: str, expected: bool) -> bool:
    bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return (bucket in STREAM_BUCKETS[split]) == expected
