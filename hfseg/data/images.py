"""Where images and label maps are decoded, by Pillow: what is an image, which way is up, how many bits are read."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, GifImagePlugin, Image, TiffImagePlugin, UnidentifiedImageError, WebPImagePlugin

from hfseg.errors import UserError, shown

# Formats that Pillow knows by name only or hands to another program, and papers, films and archives.
NOT_PICTURES = {"BUFR", "EPS", "FITS", "FLI", "GRIB", "HDF5", "IPTC", "MPEG", "PCD", "PDF", "WMF"}
Image.init()
FORMATS = [name for name in Image.ID if name not in NOT_PICTURES]  # in the order in which Pillow tries them
SUFFIXES = frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS)
# Images of cameras, phones and the web that Pillow does not read, or not in every version.
UNREADABLE_PICTURES = {
    ".arw", ".avif", ".avifs", ".bpg", ".cr2", ".cr3", ".dng", ".emf", ".eps", ".exr", ".fit", ".fits", ".hdr",
    ".heic", ".heif", ".hif", ".insp", ".jls", ".jp2", ".jpf", ".jpx", ".jxl", ".jxr", ".nef", ".nrw", ".orf",
    ".pef", ".raf", ".raw", ".rw2", ".sr2", ".srw", ".svg", ".svgz", ".wdp", ".wmf", ".x3f",
}  # fmt: skip
# What Pillow raises on damaged files: most of it from a format's own code, the rest from EXIF and from sizes that no
# memory holds. LookupError and ArithmeticError cover IndexError, KeyError, OverflowError and division by zero.
UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, EOFError, MemoryError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
TOO_LARGE = (
    "If you trust it, set data.max_pixels to that many or more, in the config or behind --predict; in Python "
    "PIL.Image.MAX_IMAGE_PIXELS."
)
RESTORE_OR_CONVERT = "Restore it from where it came, or save it as an 8-bit PNG."
TO_8_BITS = "Convert the images to 8 bits with the contrast you want."
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow cuts their values at 255 on the way to RGB
FRAMED = (GifImagePlugin.GifImageFile, TiffImagePlugin.TiffImageFile, WebPImagePlugin.WebPImageFile)
ORIENTED = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")  # where Pillow keeps an orientation
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
REDUCTIONS = (8, 4, 2)  # what the JPEG format can be decoded at, besides its full size


def is_image(path: Path) -> bool:
    """Whether Pillow reads it, as far as its name tells."""
    return path.suffix.lower() in SUFFIXES


def is_unreadable_image(path: Path) -> bool:
    """Whether it is an image by its name, of a format that this Pillow does not read."""
    return path.suffix.lower() in UNREADABLE_PICTURES and not is_image(path)


def allow_pixels(max_pixels: int | None) -> None:
    """Sets how many pixels an image may have in this process; None leaves Pillow's limit, 178,956,970, as it is."""
    if max_pixels is not None:
        Image.MAX_IMAGE_PIXELS = -(-max_pixels // 2)  # from there on Pillow warns; it refuses what is twice as large


def check_regular(path: Path) -> Path:
    """Raises UserError for what is no regular file: opening a pipe would block."""
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is no file but a folder, pipe, socket or device. Remove it, or leave it out.")
    return path


def open_header(file: Path | BytesIO) -> Image.Image:
    """Opens without decoding the pixels; raises what is in `UNREADABLE`, UserError for what is no regular file."""
    return Image.open(check_regular(file) if isinstance(file, Path) else file, formats=FORMATS)


def open_image(file: Path | BytesIO, where: str = "") -> Image.Image:
    """The first frame of a file, decoded completely and upright; UserError calls it `where`, or by its path."""
    with reading(where or file):
        return upright(open_header(file))


@contextmanager
def reading(where: object) -> Iterator[None]:
    """Around reading an image: what Pillow raises becomes a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except UNREADABLE as error:
        what, remedy = explain_unreadable(error)
        raise UserError(f"{where} {what}. {remedy}") from error


def explain_unreadable(error: BaseException) -> tuple[str, str]:
    """What is wrong with a file on which one of `UNREADABLE` was raised, and the remedy."""
    if isinstance(error, FileNotFoundError):
        return "is missing", "Restore it from where it came."
    if isinstance(error, UnidentifiedImageError):  # whose text is an address in memory for what comes from no file
        return "cannot be read as an image: it is none, or damaged from its start", RESTORE_OR_CONVERT
    if isinstance(error, Image.DecompressionBombError):
        return f"is too large ({error})", TOO_LARGE
    return f"cannot be read: {shown(error)}", RESTORE_OR_CONVERT


def has_more_frames(image: Image.Image) -> bool:
    """Whether its file is known to hold more than the one image that is read; may move on to another frame."""
    with suppress(*UNREADABLE):
        return isinstance(image, FRAMED) and image.is_animated
    return False


def orientation_of(image: Image.Image) -> int:
    """1..8 as in EXIF: how the pixels, as Pillow gives them, are to be turned."""
    if image.format == "TIFF":  # Pillow turns these itself
        return 1
    # Asking a PNG for EXIF it does not have decodes all of it.
    has_exif = image.format != "PNG" or any(key in image.info for key in ORIENTED)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if has_exif else 1
    return orientation if orientation in TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """The decoded image, turned as its orientation says; unlike `ImageOps.exif_transpose` it writes no EXIF anew."""
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


def check_depth(image: Image.Image, where: object) -> None:
    """Raises UserError for an image whose values are not those of 8 bits."""
    problem = depth_problem(image)
    if problem:
        raise UserError(f"{where} {problem}. {TO_8_BITS}")


def as_rgb(image: Image.Image, where: object) -> Image.Image:
    """RGB without transparency; raises UserError for values that are not those of 8 bits."""
    check_depth(image, where)
    return image if image.mode == "RGB" else image.convert("RGB")


def decode_image(data: bytes, reduction: int = 1, where: str = "The image") -> NDArray[np.uint8]:
    """Decodes an image as `datasets.Image(mode="RGB")` does: (ceil(H / r), ceil(W / r), 3), upright.

    A `reduction` r of 2, 4 or 8 decodes a JPEG at a fraction of its size, in a fraction of the time; other formats,
    and turned JPEGs whose sides it does not divide, come at full size.

    Raises:
        UserError: its values are not those of 8 bits. Of a damaged file, what is in `UNREADABLE`.
    """
    image = open_header(BytesIO(data))
    if image.format == "JPEG" and image.mode == "RGB":
        is_upright = orientation_of(image) == 1
        width, height = image.size
        # Pixels of a reduced image cover blocks from the top left; turned, the blocks would start elsewhere.
        if reduction > 1 and (is_upright or width % reduction == height % reduction == 0):
            image.draft("RGB", (width // reduction, height // reduction))
    return np.asarray(as_rgb(upright(image), where))


def decode_label(data: bytes) -> NDArray[np.integer]:
    """Decodes a label map (H, W): palette indices, 1, 8, 16 or 32-bit ids; ValueError where it is none."""
    label = np.asarray(upright(open_header(BytesIO(data))))
    if label.ndim != 2 or label.dtype.kind not in "biu":
        raise ValueError(f"{label.dtype} of shape {label.shape} is no map of class ids (height, width)")
    return label.astype(np.uint8) if label.dtype == bool else label


def encode_label(label: NDArray[np.integer]) -> bytes:
    """A label map (H, W) of uint8 or uint16 as PNG, or of int32, which PNG has not, as TIFF."""
    buffer = BytesIO()
    options = {"format": "TIFF", "compression": "tiff_adobe_deflate"} if label.dtype.kind == "i" else {"format": "PNG"}
    Image.fromarray(label).save(buffer, **options)
    return buffer.getvalue()
