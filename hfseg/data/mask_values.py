"""The numbers and the colours of a mask file as they are stored.

Pillow stretches some numbers to 0..255, and cuts or turns round others. Colours are looked up in the class file's
table.
"""

import re
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from hfseg.errors import UserError
from hfseg.labels import Colour

Table = Sequence[tuple[Colour, int]]  # (red, green, blue), id

HEADER_BYTES = 1024  # of a file, with what is read here: a PNG's depth, a PGM's largest value
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
PNG_GREY = 0  # a colour type
# Pillow stretches 2 and 4-bit greys to 0..255; divided by these they are the file's own numbers again.
STRETCH = {2: 85, 4: 17}
LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000", "AVIF": "AVIF"}  # Pillow's formats
LOSSY_TIFF = ("jpeg", "tiff_jpeg", "webp")  # Pillow's names of compressions
LOSSY_WEBP = b"VP8 "  # name of the first chunk; others are VP8L and, with transparency or metadata, VP8X
SPACE = rb"(?:\s|#[^\n]*\n)+"
NETPBM = re.compile(rb"(P[1-6])" + SPACE + rb"\d+" + SPACE + rb"\d+" + SPACE + rb"(\d+)\s")
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
BITS, SAMPLE_FORMAT, SIGNED = 258, 339, 2  # of TIFF


def check_storage(image: Image.Image, header: bytes, where: str) -> None:
    """Raises UserError for a mask of which Pillow does not show what was saved; names it `where`."""
    lossy = _lossy_coding(image, header)
    # Pillow's documented way: formats of one image do not have the attribute
    frames = getattr(image, "n_frames", 1)
    problem = ""
    if lossy is not None:
        problem = (
            f"is a {lossy}: its compression has changed the ids. Export the masks again as PNG; converting this file "
            "does not bring them back."
        )
    elif frames > 1:
        problem = f"holds {frames} images, of which a mask is one. Save each of them to a file."
    elif header.startswith(PNG_SIGNATURE) and header[24] == 16 and header[25] != PNG_GREY:
        problem = "has 16 bits in each of several channels, of which 8 are lost. Save the ids alone."
    elif isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        problem = "is a TIFF in which 0 is white, which turns its numbers round. Save it as PNG."
    elif image.format == "PPM" and image.mode == "1":
        problem = "is a PBM, in which 1 is black to some and white to others. Save it as PNG."
    elif image.format == "PPM" and image.mode == "RGB" and (largest := _largest(header, where)) != 255:
        problem = f"has colours of 0..{largest}, not 0..255. Save it as PNG."
    elif image.mode == "F":
        problem = (
            "holds floating-point numbers; ids are integers. Save them as such: "
            "`Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save('x.png')`."
        )
    if problem:
        raise UserError(f"{where} {problem}")


def _lossy_coding(image: Image.Image, header: bytes) -> str | None:
    """What the coding is called, where it changes pixels."""
    if image.format == "TIFF":
        compression = image.info.get("compression")
        return f"TIFF with {compression} inside" if compression in LOSSY_TIFF else None
    if image.format == "WEBP":
        return "lossy WebP" if header[12:16] == LOSSY_WEBP else None
    return LOSSY.get(image.format or "")


def stored_values(image: Image.Image, header: bytes, where: str) -> NDArray[np.integer]:
    """The numbers (H, W) of an image with the mode 1, L, P, I or one of I;16, of whose file `header` is the start."""
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8)
    if image.mode == "L" and header.startswith(PNG_SIGNATURE) and header[25] == PNG_GREY:
        return values // STRETCH.get(header[24], 1)
    if image.mode == "L" and isinstance(image, TiffImagePlugin.TiffImageFile):
        is_signed = image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
        return values.view(np.int8) if is_signed else values // STRETCH.get(image.tag_v2.get(BITS, (8,))[0], 1)
    if image.format == "PPM" and image.mode in ("L", "I"):
        stretched = 255 if image.mode == "L" else 65535
        return np.rint(values.astype(np.float64) * _largest(header, where) / stretched).astype(np.int64)
    return values


def _largest(header: bytes, where: str) -> int:
    """The number that a PGM or PPM says to be its largest."""
    match = NETPBM.match(header)
    if match is None:
        raise UserError(f"{where} has no plain PGM header. Save it as PNG.")
    return int(match[2])


def without_alpha(image: Image.Image, where: str) -> Image.Image:
    """The image without its alpha channel; raises UserError where that is not opaque."""
    plain = {"RGBA": "RGB", "LA": "L", "PA": "P"}.get(image.mode)
    if plain is None:
        return image
    if image.getchannel("A").getextrema() != (255, 255):
        raise UserError(f"{where} is partly transparent, which is no class. Export the mask without transparency.")
    return image.convert("RGB") if plain == "RGB" else image.getchannel(plain)


def are_greys(table: Table) -> bool:
    """Whether there are colours and all are grey: masks of one channel hold them, then."""
    return bool(table) and all(len(set(colour)) == 1 for colour, _ in table)


def look_up(pixels: NDArray[np.integer], table: Table, where: str) -> NDArray[np.int64]:
    """Ids (H, W) of colours (H, W, 3); UserError for a colour that is not in the table, or no table."""
    if not table:
        problem, remedy = "is RGB, but the class file has no colours.", "Give each class a color in a classes.json."
        if (pixels == pixels[..., :1]).all():
            problem = "is RGB with three equal channels."
            remedy = f"Keep one of them (`Image.open(path).getchannel(0).save('x.png')`), or g{remedy[1:]}"
        raise UserError(f"{where} {problem} {remedy}")
    entries = sorted((_pack(np.array(colour)).item(), id_) for colour, id_ in table)
    codes, ids = (np.array(column) for column in zip(*entries, strict=True))
    packed = _pack(pixels)
    places = np.searchsorted(codes, packed).clip(max=len(codes) - 1)
    unknown = codes[places] != packed
    if unknown.any():
        raise UserError(_describe_unknown(pixels[unknown], table, where))
    return ids[places]


def _pack(colours: NDArray[np.integer]) -> NDArray[np.int64]:
    """(..., 3) -> (...), one number for each colour."""
    return colours.astype(np.int64) @ np.array([65536, 256, 1])


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


def full_palette(colours: Sequence[int]) -> NDArray[np.uint8]:
    """Colours (256, 3) from a palette as Pillow gives it; indices beyond its end are black, as Pillow shows them."""
    palette = np.zeros((256, 3), np.uint8)
    palette.flat[: len(colours)] = colours
    return palette


def names_other_classes(
    indices: NDArray[np.integer], palette: NDArray[np.integer], table: Table, void: Collection[int]
) -> bool:
    """Whether a palette's colours (256, 3), and not its indices (H, W), say which classes a mask has.

    They do not where each index has its class's colour in `table`, nor where they are the greys of the indices
    themselves, which are no colours of the table. Ids of `void` may have any colour if the table has none for them.
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
    moved = {index: colour for index, colour in _used(indices, palette).items() if colour != (index, index, index)}
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
