"""The numbers of a mask file as they are stored: Pillow stretches some to 0..255, and cuts or turns round others."""

import re

import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from hfseg.errors import UserError

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
    if lossy is not None:
        raise UserError(
            f"{where} is a {lossy}: its compression has changed the ids. Export the masks again as PNG; converting "
            "this file does not bring them back."
        )
    # Pillow's documented way: formats of one image do not have the attribute
    frames = getattr(image, "n_frames", 1)
    if frames > 1:
        raise UserError(f"{where} holds {frames} images, of which a mask is one. Save each of them to a file.")
    if header.startswith(PNG_SIGNATURE) and header[24] == 16 and header[25] != PNG_GREY:
        raise UserError(f"{where} has 16 bits in each of several channels, of which 8 are lost. Save the ids alone.")
    if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO:
        raise UserError(f"{where} is a TIFF in which 0 is white, which turns its numbers round. Save it as PNG.")
    if image.format == "PPM" and image.mode == "1":
        raise UserError(f"{where} is a PBM, in which 1 is black to some and white to others. Save it as PNG.")
    if image.format == "PPM" and image.mode == "RGB" and _largest(header, where) != 255:
        raise UserError(f"{where} has colours of 0..{_largest(header, where)}, not 0..255. Save it as PNG.")
    if image.mode == "F":
        raise UserError(
            f"{where} holds floating-point numbers; ids are integers. Save them as such: "
            "`Image.fromarray(np.asarray(Image.open(path)).astype(np.uint8)).save('x.png')`."
        )


def stored_values(image: Image.Image, header: bytes, where: str) -> NDArray[np.integer]:
    """The numbers (H, W) of one channel.

    Args:
        image: with the mode 1, L, P, I or one of I;16.
        header: the first `HEADER_BYTES` of the file.
        where: what errors call it.
    """
    values = np.asarray(image)
    if image.mode == "1":
        return values.astype(np.uint8)
    if image.mode == "L" and header.startswith(PNG_SIGNATURE) and header[25] == PNG_GREY:
        return values // STRETCH.get(header[24], 1)
    if image.mode == "L" and isinstance(image, TiffImagePlugin.TiffImageFile):
        is_signed = image.tag_v2.get(SAMPLE_FORMAT, (1,))[0] == SIGNED
        return values.view(np.int8) if is_signed else values // STRETCH.get(image.tag_v2.get(BITS, (8,))[0], 1)
    if image.format == "PPM" and image.mode in ("L", "I"):
        largest = _largest(header, where)
        stretched = 255 if image.mode == "L" else 65535
        return np.rint(values.astype(np.float64) * largest / stretched).astype(np.int64)
    return values


def _lossy_coding(image: Image.Image, header: bytes) -> str | None:
    """What the coding is called, where it changes pixels."""
    if image.format == "TIFF":
        compression = image.info.get("compression")
        return f"TIFF with {compression} inside" if compression in LOSSY_TIFF else None
    if image.format == "WEBP":
        return "lossy WebP" if header[12:16] == LOSSY_WEBP else None
    return LOSSY.get(image.format or "")


def _largest(header: bytes, where: str) -> int:
    """The number that a PGM or PPM says to be its largest."""
    match = NETPBM.match(header)
    if match is None:
        raise UserError(f"{where} has no plain PGM header. Save it as PNG.")
    return int(match[2])
