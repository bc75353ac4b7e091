"""Class ids from the masks that people have: 1, 2, 4, 8, 16 or 32-bit ids, palette images, greys and colours."""

from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data.classes import ClassTable
from hfseg.data.files import open_image
from hfseg.data.mask_colours import are_greys, check_numbering, full_palette, look_up, names_other_classes
from hfseg.data.remedies import list_greys, place_ids
from hfseg.data.stored import HEADER_BYTES, check_storage, stored_values
from hfseg.errors import UserError
from hfseg.labels import Colour, LabelSet


@dataclass(frozen=True)
class MaskReader:
    """Reads masks as class ids (H, W): uint8, uint16 for ids above 255, int32 for a negative ignore index.

    * One channel: the stored values are the ids; if all colours of the table are grey, the greys are looked up there.
    * 1-bit: 0 and 1.
    * A palette: its indices are the ids, unless its colours are those of other classes, which are looked up then.
    * RGB: looked up in the colour table, exactly.

    An alpha channel must be opaque. `reduce_labels` makes 0 the ignore index and every other id one less. All ids of
    `void` become the ignore index.

    Example:
        >>> reader = MaskReader.of(read_class_table(Path("classes.txt")))  # doctest: +SKIP
        >>> reader(Path("masks/train/0001.png")).dtype                     # doctest: +SKIP
        dtype('uint8')
    """

    labels: LabelSet
    colours: tuple[tuple[Colour, int], ...] = ()
    void: tuple[int, ...] = ()
    reduce_labels: bool = False

    @classmethod
    def of(cls, table: ClassTable, reduce_labels: bool = False) -> "MaskReader":
        """The reader for masks in the coding of a class file."""
        return cls(table.labels, table.colours, table.void, reduce_labels)

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
                f"{where} is {values.dtype} of shape {values.shape}; a mask is (height, width) of integers. "
                "Store the class ids so."
            )
        if are_greys(self.colours):
            return self._look_up(np.repeat(values[..., None], 3, axis=-1), where)
        if self._are_ids(values):
            return values.astype(self._dtype)
        self._check_binary(values, where)
        ids = values.astype(np.int64)
        is_void = np.isin(ids, [self.labels.ignore_index, *self.void, *([0] if self.reduce_labels else [])])
        ids = np.where(is_void, self.labels.ignore_index, ids - self.reduce_labels)
        outside = ((ids < 0) | (ids >= self.labels.num_labels)) & ~is_void
        if outside.any():
            raise UserError(self._describe(ids, outside, where))
        return ids.astype(self._dtype)

    def _are_ids(self, values: NDArray[np.integer]) -> bool:
        """Whether all are classes, and stay as they are: most masks are, and what follows is slow."""
        is_shifted = self.reduce_labels or any(0 <= id_ < self.labels.num_labels for id_ in self.void)
        return not is_shifted and values.size > 0 and values.min() >= 0 and values.max() < self.labels.num_labels

    @property
    def _dtype(self) -> type[np.integer]:
        if self.labels.ignore_index < 0:
            return np.int32
        return np.uint8 if max(self.labels.num_labels - 1, self.labels.ignore_index) <= 255 else np.uint16

    def _read(self, image: Image.Image, header: bytes, where: str) -> NDArray[np.integer]:
        check_storage(image, header, where)
        plain = _without_alpha(image, where)
        if plain.mode == "RGB":
            return self._look_up(np.asarray(plain), where)
        if plain.mode not in ("1", "L", "P") and not plain.mode.startswith("I"):
            raise UserError(
                f"{where} has Pillow's mode {plain.mode}; a mask has 8 or 16-bit ids, a palette or RGB. Save it as "
                "PNG with one of these."
            )
        values = stored_values(plain, header, where)
        colours = image.getpalette() if image.mode == "P" else None
        if colours is None:
            return self.check(values * 255 if plain.mode == "1" and are_greys(self.colours) else values, where)
        palette = full_palette(colours)
        if self.colours and names_other_classes(values, palette, self.colours, {self.labels.ignore_index, *self.void}):
            return self._look_up(palette[values], where)
        if not self.colours:
            check_numbering(values, palette, self.labels.num_labels, image.format == "GIF", where)
        return replace(self, colours=()).check(values, where)

    def _look_up(self, pixels: NDArray[np.integer], where: str) -> NDArray[np.integer]:
        """Ids of colours (H, W, 3)."""
        if self.reduce_labels and self.colours:
            raise UserError(
                f"{where} has colours, which name their classes: data.reduce_labels is for ids. Remove it."
            )
        return look_up(pixels, self.colours, where).astype(self._dtype)

    def _check_binary(self, values: NDArray[np.integer], where: str) -> None:
        """0 and 255 under two classes: void for some, foreground for most."""
        if self.labels.num_labels != 2 or 255 in self.void or self.reduce_labels:
            return
        if (values == 255).any() and np.isin(values, [0, 255]).all():
            is_default = self.labels.ignore_index == 255
            void = "set data.ignore_index=255" if is_default else "list it in the class file (`255 unlabelled`)"
            raise UserError(
                f"{where} has 255 but no 1, and there are two classes. If it is unlabelled, {void}. If it "
                f"is the second class: {list_greys([0, 255], self.labels)}"
            )

    def _describe(self, ids: NDArray[np.int64], outside: NDArray[np.bool_], where: str) -> str:
        found, counts = np.unique(ids[outside], return_counts=True)
        labels = self.labels
        if self.reduce_labels:
            hint = "data.reduce_labels has subtracted 1: if the masks start at 0 already, remove it."
        else:
            hint = place_ids(found.tolist(), np.unique(ids).tolist(), labels)
        return (
            f"{where} has the values {found[:8].tolist()} in {counts.sum():,} pixels, but the class file has "
            f"{labels.num_labels} classes, 0..{labels.num_labels - 1}, and the ignore index is {labels.ignore_index}. "
            f"{hint}"
        )


def _without_alpha(image: Image.Image, where: str) -> Image.Image:
    plain = {"RGBA": "RGB", "LA": "L", "PA": "P"}.get(image.mode)
    if plain is None:
        return image
    if image.getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{where} is partly transparent, which is no class. Export the mask without transparency.")
    return image.getchannel("L" if plain == "L" else "P") if plain != "RGB" else image.convert("RGB")
