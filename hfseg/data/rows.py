"""Rows of a data set of the Hub, made into `image`, `label` and `name`, at once or as they stream by."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from typing import Any, TypeAlias

import datasets
import fsspec
import numpy as np

from hfseg.data.files import check_depth, encode_label, open_image
from hfseg.data.masks import MaskReader
from hfseg.data.source import HELD_OUT_PERCENT, choose_held_out
from hfseg.errors import UserError

Rows: TypeAlias = datasets.Dataset | datasets.IterableDataset

BYTES = datasets.Image(decode=False)
LABEL = {"label": datasets.Image(), "name": datasets.Value("string")}
IMAGE = {"image": datasets.Image(mode="RGB")}
ENCODED = {"bytes", "path"}  # what an image column is in a file that does not say so
# Of a name's hash modulo 100: which names a stream holds out. Test and validation must not meet.
STREAM_BUCKETS = {"test": range(HELD_OUT_PERCENT), "validation": range(HELD_OUT_PERCENT, 2 * HELD_OUT_PERCENT)}


def is_image(feature: object) -> bool:
    """Whether a column holds encoded images, declared as such or not."""
    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == ENCODED)


@dataclass(frozen=True)
class RowConverter:
    """Makes a row's `label` and `name`; checks that the image can be decoded and has its mask's size."""

    reader: MaskReader
    image_column: str
    label_column: str
    where: str
    split: str
    version: int = 1  # `datasets` hashes these fields for its cache, but not this code

    def label(self, row: Mapping[str, Any], index: int) -> dict[str, Any]:
        """For `Dataset.map`: rows without a name are called by split and number."""
        data = read_bytes(row[self.image_column])
        return self._convert(row, data, f"{self.where}, row {index}", f"{self.split}-{index:06d}")

    def label_and_image(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """For `IterableDataset.map`: each worker counts for itself, so rows without a name are called by content."""
        data = read_bytes(row[self.image_column])
        name = f"{self.split}-{hashlib.sha256(data).hexdigest()[:16]}"
        converted = self._convert(row, data, f"{self.where}, sample {self._name(row, name)}", name)
        return converted | {"image": {"bytes": data, "path": None}}

    def _convert(self, row: Mapping[str, Any], data: bytes, where: str, name: str) -> dict[str, Any]:
        image = open_image(BytesIO(data), f"The image of {where}")
        check_depth(image, f"The image of {where}")
        mask = row[self.label_column]
        label = None
        if mask is not None:
            ids = self._ids(mask, f"The mask of {where}")
            if image.size != ids.shape[::-1]:
                size = f"{ids.shape[1]}x{ids.shape[0]}"
                raise UserError(f"{where}: the image is {image.width}x{image.height} pixels, but its mask is {size}.")
            label = {"bytes": encode_label(ids), "path": None}
        elif self.split.lower() not in ("test", "testing"):
            raise UserError(f"{where}: there is no mask. Remove the row, or add its mask.")
        return {"label": label, "name": self._name(row, name)}

    def _ids(self, mask: Any, where: str) -> Any:
        if isinstance(mask, Mapping):
            return self.reader.from_bytes(read_bytes(mask), where)
        return self.reader.check(np.asarray(mask), where)

    def _name(self, row: Mapping[str, Any], otherwise: str) -> str:
        name = row.get("name")
        return name if isinstance(name, str) else otherwise


def read_bytes(value: Mapping[str, Any]) -> bytes:
    """The file in a cell of an undecoded image column."""
    if value["bytes"] is not None:
        return value["bytes"]
    with fsspec.open(value["path"], "rb") as file:
        return file.read()


def standardise(rows: Rows, convert: RowConverter) -> Rows:
    """Exactly the columns `image`, `label` and `name`."""
    encoded = rows.cast_column(convert.image_column, BYTES)
    if is_image(rows.features[convert.label_column]):
        encoded = encoded.cast_column(convert.label_column, BYTES)
    columns = list(rows.features)
    if isinstance(rows, datasets.IterableDataset):
        # With features given to it, `map` of a stream leaves images undecoded
        return encoded.map(convert.label_and_image, remove_columns=columns).cast(datasets.Features(IMAGE | LABEL))
    converted = encoded.map(
        convert.label, with_indices=True, remove_columns=columns, features=datasets.Features(LABEL), desc="Masks"
    )
    images = rows.select_columns([convert.image_column])
    if convert.image_column != "image":
        images = images.rename_column(convert.image_column, "image")
    return datasets.concatenate_datasets([images.cast_column("image", IMAGE["image"]), converted], axis=1)


def hold_out_rows(rows: datasets.Dataset, split: str) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Splits off 10 %, at least one row; which ones depends on the names alone."""
    names: Sequence[str] = rows["name"][:]
    held_out = choose_held_out(names)
    if len(held_out) == len(names):
        raise UserError(f"There are {len(names)} training rows: none is left after the {split} split. Add rows.")
    rest = [index for index in range(len(names)) if index not in held_out]
    return rows.select(rest), rows.select(sorted(held_out))


def hold_out_of_stream(
    rows: datasets.IterableDataset, split: str
) -> tuple[datasets.IterableDataset, datasets.IterableDataset]:
    """Splits off about 10 %, row by row and by name."""
    inside = partial(_is_held_out, split=split, expected=True)
    outside = partial(_is_held_out, split=split, expected=False)
    return rows.filter(outside, input_columns=["name"]), rows.filter(inside, input_columns=["name"])


def _is_held_out(name: str, split: str, expected: bool) -> bool:
    bucket = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 100
    return (bucket in STREAM_BUCKETS[split]) == expected
