"""Class ids from the masks that people have, and remedies, the label doctor's too, where their values are none."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data import mask_values
from hfseg.data.classes import ClassTable, list_with_greys
from hfseg.data.images import open_image
from hfseg.data.mask_values import HEADER_BYTES, are_greys
from hfseg.errors import UserError
from hfseg.labels import Colour, LabelSet

MIN_GREY_RANGE = 100  # of 255


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
        """Reads a mask file; raises UserError where it cannot be read, or is not in the coding of the class file."""
        image = open_image(path)
        with path.open("rb") as file:
            header = file.read(HEADER_BYTES)
        return self._read(image, header, str(path))

    def from_bytes(self, data: bytes, where: str) -> NDArray[np.integer]:
        """The same for a file in memory, which errors call `where`."""
        return self._read(open_image(BytesIO(data), where), data[:HEADER_BYTES], where)

    def check(self, values: NDArray[np.integer], where: str) -> NDArray[np.integer]:
        """Ids from the values of one channel, (H, W) of any integer type; UserError for values of no class."""
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
        mask_values.check_storage(image, header, where)
        plain = mask_values.without_alpha(image, where)
        if plain.mode == "RGB":
            return self._look_up(np.asarray(plain), where)
        if plain.mode not in ("1", "L", "P") and not plain.mode.startswith("I"):
            raise UserError(
                f"{where} has Pillow's mode {plain.mode}; a mask has 8 or 16-bit ids, a palette or RGB. Save it as "
                "PNG with one of these."
            )
        values = mask_values.stored_values(plain, header, where)
        colours = image.getpalette() if image.mode == "P" else None
        if colours is None:
            return self.check(values * 255 if plain.mode == "1" and are_greys(self.colours) else values, where)
        palette = mask_values.full_palette(colours)
        void = {self.labels.ignore_index, *self.void}
        if self.colours and mask_values.names_other_classes(values, palette, self.colours, void):
            return self._look_up(palette[values], where)
        if not self.colours:
            mask_values.check_numbering(values, palette, self.labels.num_labels, image.format == "GIF", where)
        return replace(self, colours=()).check(values, where)

    def _look_up(self, pixels: NDArray[np.integer], where: str) -> NDArray[np.integer]:
        """Ids of colours (H, W, 3)."""
        if self.reduce_labels and self.colours:
            raise UserError(
                f"{where} has colours, which name their classes: data.reduce_labels is for ids. Remove it."
            )
        return mask_values.look_up(pixels, self.colours, where).astype(self._dtype)

    def _check_binary(self, values: NDArray[np.integer], where: str) -> None:
        """Raises UserError for 0 and 255 under two classes: 255 is void for some, the second class for most."""
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


def looks_grey(values: Collection[int], at_least: int, num_labels: int) -> bool:
    """Whether values are spread over 0..255 as greys of the classes are, such as 0, 127, 254; ids lie side by side."""
    is_spread = len(values) >= at_least and min(np.diff(sorted(values))) >= max(2, MIN_GREY_RANGE / num_labels)
    return bool(is_spread and min(values) >= 0)


def list_greys(values: Collection[int], labels: LabelSet) -> str:
    """What to do where the classes were drawn as greys: the lines of a class file by which `values` are read."""
    greys = sorted(value for value in values if 0 <= value <= 255)
    if len(greys) == labels.num_labels:
        lines = list_with_greys(labels.names, greys)
        return f"List each class with its grey in a text file, a line each, and set data.classes to it: {lines}."
    return (
        "List each class with its grey in a text file, such as `0 sky 0 0 0` and `1 road 255 255 255`, a line each, "
        "and set data.classes to it; a grey that is unlabelled has id 255 there, as in `255 unlabelled 128 128 128`."
    )


def place_ids(unknown: Collection[int], values: Collection[int], labels: LabelSet) -> str:
    """What to do about `unknown` ids among the `values` of masks, neither a class nor ignored: the keys to set."""
    if looks_grey(values, 3, labels.num_labels):
        return f"If the values are greys of the classes: {list_greys(values, labels)}"
    if len(unknown) != 1:
        return "Correct the mask, or complete the class list, or read it with the data.name it belongs to."
    [id_] = unknown
    remedies = []
    if id_ == labels.num_labels:
        remedies.append("If 0 is unlabelled and the classes start at 1, set data.reduce_labels=true.")
    if id_ == 255:
        remedies.append(
            "If 255 is unlabelled, list it in the class file, where every name has its id, as `255 unlabelled`."
        )
    elif labels.ignore_index not in (255, 65535):
        remedies.append(f"If {id_} is unlabelled too, change it to {labels.ignore_index} in the masks.")
    else:
        also = " and list `255 unlabelled` in the class file" if 255 in values else ""
        remedies.append(f"If {id_} is unlabelled, set data.ignore_index={id_}{also}.")
    return " ".join([*remedies, "If it is a class, add it to the class list; otherwise correct the mask."])
