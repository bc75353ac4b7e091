"""Rows of a data set, decoded no further than the sample needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeVar

import datasets
import fsspec
import numpy as np
from numpy.typing import NDArray

from hfseg.data.files import as_rgb, reading
from hfseg.data.images import allow_pixels, allowed_pixels, check_regular, open_header, orientation_of, upright
from hfseg.errors import UserError, shown

REDUCTIONS = (8, 4, 2)  # what the JPEG format can be decoded at, besides its full size
STORED = datasets.Features(
    {
        "image": datasets.Image(decode=False),
        "label": datasets.Image(decode=False),
        "name": datasets.Value("string"),
    }
)
Data = TypeVar("Data", datasets.Dataset, datasets.IterableDataset)


class Row(Protocol):
    """One sample: `label` (H, W) unsigned class ids, and the image on demand."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> NDArray[np.unsignedinteger]: ...
    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        """RGB (ceil(H / r), ceil(W / r), 3), where r is `reduction` or, if the file cannot be decoded so, 1."""


class Rows(Protocol):
    """The samples of one split."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Row: ...


@dataclass(frozen=True)
class EncodedRow:
    """A row with its image still in the file's bytes."""

    name: str
    label: NDArray[np.unsignedinteger]
    image: Mapping[str, Any]  # `bytes` or `path`

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        """As `Row`'s; raises UserError if the file is broken or not as large as the label map."""
        where = f"The image of sample {shown(self.name)}"
        with reading(where):
            pixels = decode_image(read_cell(self.image), reduction, where)
        height, width = self.label.shape
        if pixels.shape[:2] not in ((height, width), (-(-height // reduction), -(-width // reduction))):
            size = f"{pixels.shape[1]}x{pixels.shape[0]}"
            raise UserError(
                f"The image of sample {self.name!r} has {size} pixels, its label map {width}x{height}; they must "
                "agree. Restore both from the same source."
            )
        return pixels


class EncodedRows:
    """Reads a split with columns `image`, `label` and `name`, image by image; see `read_row` for what is raised."""

    def __init__(self, data: datasets.Dataset) -> None:
        self.data = undecoded(data)
        self.max_pixels = allowed_pixels()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        allow_pixels(self.max_pixels)  # in a worker that was not forked, Pillow has its own limit again

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> EncodedRow:
        return read_row(self.data[index])


def undecoded(data: Data) -> Data:
    """The split with its images and label maps as they are stored; of a stream, those columns and the names alone.

    A format (`with_format("torch")`) says what type cells come as, so it makes no difference to what is read here.

    Raises:
        UserError: a column is missing, or there is a transform, which what is stored would bypass.
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
    plain = data.with_format(None)
    return plain.cast_column("image", STORED["image"]).cast_column("label", STORED["label"])


def read_row(row: Mapping[str, Any]) -> EncodedRow:
    """Decodes the label map of an undecoded row; the image follows on demand.

    Raises:
        UserError: the label map cannot be decoded, or is none, or the name is not a text; names the sample.
    """
    name = row["name"]
    if not isinstance(name, str):
        raise UserError(
            f"A row has {shown(name)} as its name, which must be a text. Name the rows: "
            '`data.map(lambda _, index: {"name": str(index)}, with_indices=True)`.'
        )
    with reading(f"The label map of sample {shown(name)}"):
        label = decode_label(read_cell(row["label"]))
    return EncodedRow(name, label, row["image"])


def read_cell(cell: Mapping[str, Any] | None) -> bytes:
    """The file in a cell of an undecoded image column: its bytes, or those of the path or address in it.

    Raises:
        ValueError: the cell is empty.
        OSError: the file is not there.
        UserError: it is no regular file.
    """
    if cell is None or (cell["bytes"] is None and cell["path"] is None):
        raise ValueError("the cell is empty; fill it, or remove the row")
    if cell["bytes"] is not None:
        return cell["bytes"]
    if "://" not in cell["path"]:
        return check_regular(Path(cell["path"])).read_bytes()
    with fsspec.open(cell["path"], "rb") as file:
        return file.read()


def decode_image(data: bytes, reduction: int = 1, where: str = "The image") -> NDArray[np.uint8]:
    """Decodes an image as `datasets.Image(mode="RGB")` does: the right way up, RGB whatever it was.

    Args:
        data: the file.
        reduction: 2, 4 or 8 decode a JPEG at a fraction of its size, in a fraction of the time; other formats, and
            turned JPEGs whose sides it does not divide, come at full size.
        where: what errors call it.

    Returns:
        (ceil(H / r), ceil(W / r), 3), where r is the reduction or 1.

    Raises:
        UserError: its values are not those of 8 bits. Of a damaged file, what is in `images.UNREADABLE`.
    """
    image = open_header(BytesIO(data))
    if image.format == "JPEG" and image.mode == "RGB":
        is_upright = orientation_of(image) == 1
        width, height = image.size
        # Pixels of a reduced image cover blocks from the top left; turned, the blocks would start elsewhere.
        if reduction > 1 and (is_upright or width % reduction == height % reduction == 0):
            image.draft("RGB", (width // reduction, height // reduction))
    return np.asarray(as_rgb(upright(image), where))


def decode_label(data: bytes) -> NDArray[np.unsignedinteger]:
    """Decodes a label map: palette indices, 1, 8, 16 or 32-bit ids (H, W); int32 of a negative ignore index.

    Raises:
        ValueError: it is no map of class ids.
    """
    label = np.asarray(upright(open_header(BytesIO(data))))
    if label.ndim != 2 or label.dtype.kind not in "biu":
        raise ValueError(f"{label.dtype} of shape {label.shape} is no map of class ids (height, width)")
    return label.astype(np.uint8) if label.dtype == bool else label
