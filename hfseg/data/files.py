"""What every data set does with files: decode them entirely, know when they change, build the Arrow cache once."""

import hashlib
import struct
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hfseg.errors import UserError
from hfseg.whole_files import writing

# What Pillow raises on damaged files; the last two come from damaged EXIF.
UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError, TypeError, struct.error)
DEEP_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")  # Pillow cuts their values at 255 on the way to RGB


def open_image(file: Path | BytesIO, where: str = "") -> Image.Image:
    """Decodes a file completely, the right way up as `datasets` will: what is broken must not stop a training.

    Args:
        file: its path or its bytes.
        where: what errors call it, if not by its path.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
    path = where or file
    try:
        image = Image.open(file)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing. Restore it.") from error
    except UNREADABLE as error:
        raise UserError(f"{path} cannot be read as an image ({error}). Restore it from where it came.") from error
    return image


def check_depth(image: Image.Image, where: object) -> None:
    """Raises UserError for an image whose values do not fit into the 8 bits of RGB: it would become white."""
    if image.mode in DEEP_MODES:
        low, high = (float(np.min(value)) for value in image.getextrema())
        if low < 0 or high > 255:
            raise UserError(
                f"{where} is a {image.mode} image with values {low:g}..{high:g}; as RGB, all above 255 is white. "
                "Convert the images to 8 bits with the contrast you want."
            )


def check_same_size(image: Image.Image, mask: Image.Image, image_path: Path, mask_path: Path) -> None:
    """Raises UserError where an image and its mask do not have the same width and height."""
    if image.size != mask.size:
        raise UserError(
            f"{image_path} is {image.size[0]}x{image.size[1]} pixels, but its mask {mask_path} is "
            f"{mask.size[0]}x{mask.size[1]}. Restore both from the same source."
        )


def encode_label(label: NDArray[np.integer]) -> bytes:
    """A label map (H, W) of uint8 or uint16 as PNG, or of int32, which PNG has not, as TIFF."""
    buffer = BytesIO()
    if label.dtype.kind == "i":
        Image.fromarray(label).save(buffer, format="TIFF", compression="tiff_adobe_deflate")
    else:
        Image.fromarray(label).save(buffer, format="PNG")
    return buffer.getvalue()


def file_state(path: Path) -> tuple[int, int]:
    """Size and time of change; (-1, -1) for a file that is not there."""
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.exists() else (-1, -1)


def digest(state: object) -> str:
    """A short name for a state, for the Arrow cache's id: `datasets` itself keys local files by path only."""
    return hashlib.sha256(repr(state).encode()).hexdigest()[:16]


def build(builder: datasets.DatasetBuilder) -> datasets.DatasetDict:
    """Prepares the Arrow cache, unless that was done, and opens it.

    Raises:
        UserError: what the builder found wrong with the data.
    """
    with writing(Path(builder.cache_dir)):
        try:
            builder.download_and_prepare()
        except datasets.exceptions.DatasetGenerationError as error:
            if isinstance(error.__cause__, UserError | OSError):  # the data's, or the disk's
                raise error.__cause__ from None
            raise
    return builder.as_dataset()
