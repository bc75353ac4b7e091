"""Class ids from the masks that people have: 1, 2, 4, 8 or 16-bit ids, palette images, and colours."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data.classes import ClassTable
from hfseg.data.files import open_image
from hfseg.errors import UserError
from hfseg.labels import Colour

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_BYTES = 26  # of a PNG, up to its bit depth and colour type
# Pillow stretches 2 and 4-bit greys to 0..255; divided by these they are the file's own numbers again.
STRETCH = {2: 85, 4: 17}


@dataclass(frozen=True)
class MaskReader:
    """Reads masks as class ids (H, W), uint8, or uint16 for more than 255 classes.

    * One channel: the values are the ids. A palette's indices are the ids, whatever its colours.
    * 1-bit: 0 and 1.
    * RGB, and grey if all colours of the table are grey: looked up in the colour table, exactly.

    An alpha channel must be opaque. `reduce_labels` makes 0 the ignore index and every other id one less.

    Example:
        >>> reader = MaskReader.of(read_class_table(Path("classes.txt")))  # doctest: +SKIP
        >>> reader(Path("masks/train/0001.png")).dtype                     # doctest: +SKIP
        dtype('uint8')
    """

    num_labels: int
    ignore_index: int
    colours: tuple[tuple[Colour, int], ...] = ()
    names_void: bool = False
    reduce_labels: bool = False

    @classmethod
    def of(cls, table: ClassTable, reduce_labels: bool = False) -> "MaskReader":
        """The reader for masks in the coding of a class file."""
        labels = table.labels
        return cls(labels.num_labels, labels.ignore_index, table.colours, table.names_void, reduce_labels)

    def __call__(self, path: Path) -> NDArray[np.integer]:
        """Reads a mask file.

        Raises:
            UserError: it cannot be read, or is not in the coding of the class file.
        """
        image = open_image(path)
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        return self._read(image, header, str(path))

    def from_bytes(self, data: bytes, where: str) -> NDArray[np.integer]:
        """The same for a file in memory, which errors call `where`."""
        return self._read(open_image(BytesIO(data), where), data[:HEADER_BYTES], where)

    def check(self, values: NDArray[np.integer], where: str) -> NDArray[np.integer]:
        """Ids from the values of one channel, (H, W) of any integer type.

        Raises:
            UserError: values outside of the classes; names `where`.
        """
        if values.ndim != 2 or values.dtype.kind not in "iu":
            raise UserError(
                f"{where} is {values.dtype} of shape {values.shape}; a mask is (height, width) of integers."
            )
        self._check_binary(values, where)
        ids = values.astype(np.int64)
        if self.reduce_labels:
            ids = np.where((ids == 0) | (ids == self.ignore_index), self.ignore_index, ids - 1)
        outside = ((ids < 0) | (ids >= self.num_labels)) & (ids != self.ignore_index)
        if outside.any():
            raise UserError(self._describe(values[outside], where))
        return ids.astype(np.uint8 if self.ignore_index == 255 else np.uint16)

    def _read(self, image: Image.Image, header: bytes, where: str) -> NDArray[np.integer]:
        if image.format in ("JPEG", "MPO"):
            raise UserError(
                f"{where} is a JPEG: its compression has changed the ids. Export the masks again as PNG; converting "
                "this file does not bring them back."
            )
        image = _without_alpha(image, where)
        if image.mode in ("1", "L") and self.colours and all(len(set(colour)) == 1 for colour, _ in self.colours):
            image = image.convert("RGB")
        if image.mode == "RGB":
            return self._look_up(np.asarray(image), where)
        if image.mode not in ("1", "L", "P") and not image.mode.startswith("I"):
            raise UserError(f"{where} has Pillow's mode {image.mode}; a mask has 8 or 16-bit ids, a palette or RGB.")
        values = np.asarray(image)
        if image.mode == "1":
            values = values.astype(np.uint8)
        if image.mode == "L" and header.startswith(PNG_SIGNATURE) and header[25] == 0:
            values = values // STRETCH.get(header[24], 1)
        return self.check(values, where)

    def _look_up(self, pixels: NDArray[np.uint8], where: str) -> NDArray[np.integer]:
        """Ids of colours (H, W, 3)."""
        if not self.colours:
            raise UserError(_without_table(pixels, where))
        if self.reduce_labels:
            raise UserError(
                f"{where} has colours, which name their classes: data.reduce_labels is for ids. Remove it."
            )
        table = sorted((_pack(np.array(colour)).item(), id_) for colour, id_ in self.colours)
        codes, ids = (np.array(column) for column in zip(*table, strict=True))
        packed = _pack(pixels)
        places = np.searchsorted(codes, packed).clip(max=len(codes) - 1)
        unknown = codes[places] != packed
        if unknown.any():
            raise UserError(self._describe_unknown(pixels[unknown], where))
        return ids[places].astype(np.uint8 if self.ignore_index == 255 else np.uint16)

    def _check_binary(self, values: NDArray[np.integer], where: str) -> None:
        """0 and 255 under two classes: void for some, foreground for most."""
        if self.num_labels != 2 or self.names_void or self.reduce_labels:
            return
        if (values == 255).any() and not (values == 1).any():
            raise UserError(
                f"{where} has 255 but no 1, and there are two classes. If 255 is the second class, give the classes "
                "the colours [0, 0, 0] and [255, 255, 255] in a classes.json. If it is unlabelled, list it in the "
                "class file (`255 unlabelled`)."
            )

    def _describe(self, wrong: NDArray[np.integer], where: str) -> str:
        found, counts = np.unique(wrong, return_counts=True)
        hint = "Check the class file, and that the mask belongs to this data set."
        if found.tolist() == [self.num_labels] and not self.reduce_labels:
            hint = "If 0 is unlabelled and the classes start at 1, set data.reduce_labels=true."
        elif self.reduce_labels:
            hint = "data.reduce_labels has subtracted 1: if the masks start at 0 already, remove it."
        return (
            f"{where} has the values {found[:8].tolist()} in {counts.sum():,} pixels, but the class file has "
            f"{self.num_labels} classes, 0..{self.num_labels - 1}, and the ignore index is {self.ignore_index}. {hint}"
        )

    def _describe_unknown(self, wrong: NDArray[np.uint8], where: str) -> str:
        found, counts = np.unique(wrong, axis=0, return_counts=True)
        worst = found[counts.argmax()].astype(np.int64)
        known = [colour for colour, _ in self.colours]
        nearest = known[int(((np.array(known) - worst) ** 2).sum(axis=1).argmin())]
        return (
            f"{where}: {counts.sum():,} pixels have {len(found)} colours that are not in the class file. The most "
            f"frequent, {tuple(worst.tolist())}, fills {counts.max():,} pixels; the nearest known colour is {nearest}"
            ". Add the colour to the class file, or export the mask without smoothing or lossy compression."
        )


def _without_alpha(image: Image.Image, where: str) -> Image.Image:
    plain = {"RGBA": "RGB", "LA": "L", "PA": "P"}.get(image.mode)
    if plain is None:
        return image
    if image.getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{where} is partly transparent, which is no class. Export the mask without transparency.")
    return image.getchannel("L" if plain == "L" else "P") if plain != "RGB" else image.convert("RGB")


def _without_table(pixels: NDArray[np.uint8], where: str) -> str:
    if (pixels == pixels[..., :1]).all():
        return (
            f"{where} is RGB with three equal channels. Keep one of them "
            f"(`Image.open(path).getchannel(0).save(path)`), or give each class a color in a classes.json."
        )
    return f"{where} is RGB, but the class file has no colours. Give each class a color in a classes.json."


def _pack(colours: NDArray[np.integer]) -> NDArray[np.int64]:
    """(..., 3) -> (...), one number for each colour."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1])
