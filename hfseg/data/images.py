"""How Pillow is asked for an image: what it may raise, how large, which way up, of how many bits and frames."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, GifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from hfseg.data.suffixes import FORMATS
from hfseg.errors import UserError, shown

# What Pillow raises on damaged files: most of it from a format's own code, the rest from EXIF and from sizes that no
# memory holds. LookupError and ArithmeticError cover IndexError, KeyError, OverflowError and division by zero.
UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError, MemoryError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow cuts their values at 255 on the way to RGB
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TOO_LARGE = (
    "If you trust it, set data.max_pixels to that many or more, in the config or behind --predict; in Python "
    "PIL.Image.MAX_IMAGE_PIXELS."
)
RESTORE_OR_CONVERT = "Restore it from where it came, or save it as an 8-bit PNG."
TO_8_BITS = "Convert the images to 8 bits with the contrast you want."
FRAMED = (GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile, WebPImagePlugin.WebPImageFile)
ORIENTED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # where Pillow keeps an orientation


def allow_pixels(max_pixels: int | None) -> None:
    """Sets how many pixels an image may have in this process; None leaves Pillow's limit, 178,956,970, as it is."""
    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)  # from there on Pillow warns; it refuses what is twice as large


def allowed_pixels() -> int | None:
    """How many pixels an image may have; None is any number."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def check_regular(path: Path) -> Path:
    """Raises UserError for what is no regular file: opening a pipe would block."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file but a folder, pipe, socket or device. Remove it, or leave it out.")
    return path


def open_header(file: Path | BytesIO) -> Image.Image:
    """Opens without decoding the pixels; raises what is in `UNREADABLE`, UserError for what is no regular file."""
    return Image.open(check_regular(file) if isinstance(file, Path) else file, formats=FORMATS)


def has_more_frames(image: Image.Image) -> bool:
    """Whether its file holds more than the one image that is read; False also where that cannot be found out.

    Afterwards its pixels may be those of another frame.
    """
    with suppress(*UNREADABLE):
        return isinstance(image, FRAMED) and image.is_animated
    return False


def explain_unreadable(error: BaseException) -> tuple[str, str]:
    """What is wrong with a file on which one of `UNREADABLE` was raised, and the remedy."""
    if isinstance(error, FileNotFoundError):
        return "is missing", "Restore it from where it came."
    if isinstance(error, UnidentifiedImageError):  # whose text is an address in memory for what comes from no file
        return "cannot be read as an image: it is none, or damaged from its start", RESTORE_OR_CONVERT
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large ({error})", TOO_LARGE
    return f"cannot be read: {shown(error)}", RESTORE_OR_CONVERT


def orientation_of(image: Image.Image) -> int:
    """1..8 as in EXIF: how the pixels, as Pillow gives them, are to be turned."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    # Asking a PNG for EXIF it does not have decodes all of it.
    has_exif = image.format != "PNG" or any(key in image.info for key in ORIENTED)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
    return orientation if orientation in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The decoded image, turned as its orientation says. Its other tags are neither read nor written again."""
    image.load()  # which may find the EXIF at the end of a PNG
    orientation = orientation_of(image)
    if orientation == 1:
        return image
    turned = image.transpose(TURNS[orientation])
    turned.format = image.format
    for key in ORIENTED:
        turned.info.pop(key, None)
    return turned


def depth_problem(image: Image.Image) -> str | None:
    """What is wrong with an image of more than 8 bits: which of its values is white cannot be known."""
    if image.mode not in DEEP_MODES:
        return None
    low, high = (float(np.min(value)) for value in image.getextrema())
    if low == high == 0:
        return None  # black it is
    result = "all above 255 is white" if high > 255 else "it may be black, as 255 need not be its white"
    return f"is a {image.mode} image with values {low:g}..{high:g}; as RGB, {result}"
