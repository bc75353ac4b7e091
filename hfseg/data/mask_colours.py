"""Masks whose colours are the classes: looked up in the class file's table, and palettes compared with it."""

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from hfseg.errors import UserError
from hfseg.labels import Colour

Table = Sequence[tuple[Colour, int]]  # (red, green, blue), id


def are_greys(table: Table) -> bool:
    """Whether there are colours and all are grey: masks of one channel hold them, then."""
    return bool(table) and all(len(set(colour)) == 1 for colour, _ in table)


def look_up(pixels: NDArray[np.integer], table: Table, where: str) -> NDArray[np.int64]:
    """Ids (H, W) of colours (H, W, 3).

    Raises:
        UserError: a colour that is not in the table, or no table; names the mask `where`.
    """
    if not table:
        raise UserError(_without_table(pixels, where))
    entries = sorted((_pack(np.array(colour)).item(), id_) for colour, id_ in table)
    codes, ids = (np.array(column) for column in zip(*entries, strict=True))
    packed = _pack(pixels)
    places = np.searchsorted(codes, packed).clip(max=len(codes) - 1)
    unknown = codes[places] != packed
    if unknown.any():
        raise UserError(_describe_unknown(pixels[unknown], table, where))
    return ids[places]


def full_palette(colours: Sequence[int]) -> NDArray[np.uint8]:
    """Colours (256, 3) from a palette as Pillow gives it; indices beyond its end are black, as Pillow shows them."""
    palette = np.zeros((256, 3), np.uint8)
    palette.flat[: len(colours)] = colours
    return palette


def names_other_classes(
    indices: NDArray[np.integer], palette: NDArray[np.integer], table: Table, void: Collection[int]
) -> bool:
    """Whether a palette's colours, and not its indices, say which classes a mask has.

    They do not where each index has its class's colour, nor where they are the greys of the indices themselves, which
    are no colours of the table.

    Args:
        indices: of the mask (H, W).
        palette: colours (256, 3) of the indices.
        table: the class file's colours.
        void: ids of pixels that do not count, which may have any colour if the table has none for them.
    """
    colours = {id_: colour for colour, id_ in table}
    used = _used(indices, palette)
    if all(colours.get(index, colour if index in void else None) == colour for index, colour in used.items()):
        return False
    is_ramp = all(colour == (index, index, index) for index, colour in used.items())
    return not is_ramp or {*used.values()} <= {colour for colour, _ in table}


def check_numbering(
    indices: NDArray[np.integer], palette: NDArray[np.integer], num_labels: int, is_gif: bool, where: str
) -> None:
    """Raises UserError for a palette mask whose indices are no ids: a program has numbered the colours anew.

    GIF does so, and so do programs that make files smaller, which leave greys of the ids under other indices.
    """
    used = _used(indices, palette)
    moved = {index: colour for index, colour in used.items() if colour != (index, index, index)}
    are_ids = all(len(set(colour)) == 1 and 0 < colour[0] < num_labels for colour in moved.values())
    if moved and (is_gif or are_ids):
        listed = ", ".join(f"{index} is {colour}" for index, colour in list(moved.items())[:4])
        raise UserError(
            f"{where} has a palette that numbers colours anew ({listed}), so that its indices are no ids. If the "
            "greys are the ids, save those: `Image.open(path).convert('L').save('x.png')`. Otherwise give each class "
            "its colour in the class file."
        )


def _used(indices: NDArray[np.integer], palette: NDArray[np.integer]) -> dict[int, Colour]:
    """The colours of the indices that occur."""
    return {index: (*palette[index].tolist(),) for index in np.unique(indices).tolist()}


def _describe_unknown(wrong: NDArray[np.integer], table: Table, where: str) -> str:
    found, counts = np.unique(wrong, axis=0, return_counts=True)
    worst = found[counts.argmax()].astype(np.int64)
    known = [colour for colour, _ in table]
    nearest = known[int(((np.array(known) - worst) ** 2).sum(axis=1).argmin())]
    return (
        f"{where}: {counts.sum():,} pixels have {len(found)} colours that are not in the class file. The most "
        f"frequent, {tuple(worst.tolist())}, fills {counts.max():,} pixels; the nearest known colour is {nearest}. "
        "Add the colour to the class file, with the id 255 if it is unlabelled, or export the mask without smoothing "
        "or lossy compression; if the values are ids, take the colours out of the class file."
    )


def _without_table(pixels: NDArray[np.integer], where: str) -> str:
    if (pixels == pixels[..., :1]).all():
        return (
            f"{where} is RGB with three equal channels. Keep one of them "
            "(`Image.open(path).getchannel(0).save('x.png')`), or give each class a color in a classes.json."
        )
    return f"{where} is RGB, but the class file has no colours. Give each class a color in a classes.json."


def _pack(colours: NDArray[np.integer]) -> NDArray[np.int64]:
    """(..., 3) -> (...), one number for each colour."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1])
