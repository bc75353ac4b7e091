"""Rows of a split, with columns `image`, `label` and `name`, as they are stored: decoded when a sample needs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import datasets
import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data.images import check_regular, decode_image, decode_label, reading
from hfseg.errors import UserError, shown

BYTES = datasets.Image(decode=False)
STORED = datasets.Features({"image": BYTES, "label": BYTES, "name": datasets.Value("string")})
Split: TypeAlias = datasets.Dataset | datasets.IterableDataset
Data = TypeVar("Data", datasets.Dataset, datasets.IterableDataset)


@dataclass(frozen=True)
class EncodedRow:
    """One sample: `label` (H, W) class ids, and the image still in its file."""

    name: str
    label: NDArray[np.integer]
    image: Mapping[str, Any]  # `bytes` or `path`

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        """RGB (ceil(H / r), ceil(W / r), 3), where r is `reduction` or, if the file cannot be decoded so, 1.

        Raises UserError where the file is broken, or not as large as the label map.
        """
        where = f"The image of sample {shown(self.name)}"
        with reading(where):
            pixels = decode_image(read_cell(self.image), reduction, where)
        height, width = self.label.shape
        if pixels.shape[:2] not in ((height, width), (-(-height // reduction), -(-width // reduction))):
            raise UserError(
                f"{where} has {pixels.shape[1]}x{pixels.shape[0]} pixels, its label map {width}x{height}; they must "
                "agree. Restore both from the same source."
            )
        return pixels


class EncodedRows:
    """The rows of a split by their index; see `read_row` for what is raised."""

    def __init__(self, data: datasets.Dataset) -> None:
        self.data = undecoded(data)
        self.max_pixels = Image.MAX_IMAGE_PIXELS

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        Image.MAX_IMAGE_PIXELS = self.max_pixels  # in a worker that was not forked, Pillow has its own limit again

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> EncodedRow:
        return read_row(self.data[index])


def undecoded(data: Data) -> Data:
    """The split with its images and label maps as they are stored, whatever its format (`with_format("torch")`).

    Raises UserError where a column is missing, or there is a transform, which what is stored would bypass.
    """
    columns = data.column_names  # not known of some streams
    missing = [] if columns is None else [name for name in STORED if name not in columns]
    if missing:
        raise UserError(
            f"The data set has no column {missing[0]!r}, only {shown(columns)}: samples are made of `image`, `label` "
            "and `name`, a text for each row. Rename or add it (`rename_column`, `add_column`)."
        )
    if isinstance(data, datasets.IterableDataset):
        return data.with_format(None).select_columns(list(STORED)).cast(STORED)
    if data.format["type"] == "custom":
        raise UserError(
            "The data set has a transform (`set_transform`, `with_transform`), but hfseg reads the stored images, to "
            "augment them by itself. Apply it with `Dataset.map`, which stores what comes out, or remove it with "
            "`with_format(None)`."
        )
    return data.with_format(None).cast_column("image", BYTES).cast_column("label", BYTES)


def read_row(row: Mapping[str, Any]) -> EncodedRow:
    """Decodes the label map of an undecoded row; UserError where that cannot be, or the name is not a text."""
    name = row["name"]
    if not isinstance(name, str):
        raise UserError(
            f"A row has {shown(name)} as its name, which must be a text. Name the rows: "
            '`data.map(lambda _, index: {"name": str(index)}, with_indices=True)`.'
        )
    with reading(f"The label map of sample {shown(name)}"):
        return EncodedRow(name, decode_label(read_cell(row["label"])), row["image"])


def file_of_cell(cell: Mapping[str, Any] | None) -> bytes | Path | None:
    """The file in a cell of an undecoded image column: its bytes, those at the address in it, or its path."""
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        return None
    if cell["bytes"] is not None:
        return cell["bytes"]
    if "://" not in cell["path"]:
        return Path(cell["path"])
    with fsspec.open(cell["path"], "rb") as file:
        return file.read()


def read_cell(cell: Mapping[str, Any] | None) -> bytes:
    """The bytes of the file in a cell; ValueError if it is empty, OSError or UserError if there is no such file."""
    file = file_of_cell(cell)
    if file is None:
        raise ValueError("the cell is empty; fill it, or remove the row")
    return check_regular(file).read_bytes() if isinstance(file, Path) else file
