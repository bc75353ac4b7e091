"""A class file for masks whose classes nobody has named: drafted from the numbers and colours in them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hfseg.data.classes import CLASS_FILES
from hfseg.data.images import open_image
from hfseg.data.mask_values import HEADER_BYTES, check_storage, stored_values, without_alpha
from hfseg.data.masks import looks_grey
from hfseg.errors import UserError
from hfseg.labels import Colour

MAX_MASKS = 500  # that are read, evenly spread
MAX_CLASSES = 256  # more values or colours come from smoothing, or are no classes
UNLABELLED = 255
HEAD = "# Drafted from what the masks hold. Give the classes their names; ids and colours must stay.\n"


def has_class_file(folder: Path) -> bool:
    """Whether a data set has a class file of its own."""
    return any((folder / name).is_file() for name in CLASS_FILES)


def draft_class_file(masks: Sequence[Path]) -> str:
    """The text of a class file with a line for each id, grey or colour in the masks.

    Two classes are called `background` and `object`, as most such masks are; others by their value. 255 beside ids is
    left out: it is the ignore index.

    Raises:
        UserError: a mask cannot be read, or there are more values than there can be classes.
    """
    step = -(-len(masks) // MAX_MASKS)
    values: set[int | Colour] = set()
    for path in masks[::step]:
        values |= _values(path)
        if len(values) > MAX_CLASSES:
            raise UserError(
                f"{path}: the masks hold more than {MAX_CLASSES} different values, so that no class file can be "
                f"drafted from them. Write one, {CLASS_FILES[0]}, with a class name on each line in the order of the "
                "ids; masks of colours must be saved without smoothing, as PNG."
            )
    colours = {value for value in values if isinstance(value, tuple)}
    ids = {value for value in values if isinstance(value, int)}
    if colours:
        lines = _lines_of_colours(sorted(colours | {(value, value, value) for value in ids}))
    elif looks_grey(ids, 2, len(ids)):
        lines = _lines_of_colours([(value, value, value) for value in sorted(ids)])
    else:
        num_classes = max(ids - {UNLABELLED}, default=0) + 1
        lines = [f"{index}: {name}" for index, name in enumerate(_names([f"class {i}" for i in range(num_classes)]))]
    return "\n".join([HEAD.rstrip(), *lines]) + "\n"


def _values(path: Path) -> set[int | Colour]:
    """The ids of a mask of one channel, or the colours of one of three."""
    image = open_image(path)
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    check_storage(image, header, str(path))
    plain = without_alpha(image, str(path))
    if plain.mode != "RGB":
        return set(np.unique(stored_values(plain, header, str(path))).tolist())
    packed = np.asarray(plain).astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    return {(code >> 16, code >> 8 & 255, code & 255) for code in np.unique(packed).tolist()}


def _lines_of_colours(colours: Sequence[Colour]) -> list[str]:
    names = _names(["colour " + "-".join(map(str, colour)) for colour in colours])
    return [f"{' '.join(map(str, colour))} {name}" for colour, name in zip(colours, names, strict=True)]


def _names(names: list[str]) -> list[str]:
    return ["background", "object"] if len(names) == 2 else names
