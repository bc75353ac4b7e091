"""What every data set does with files: decode them entirely, know when they change, build the Arrow cache once."""

import hashlib
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hfseg.errors import UserError

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on damaged files


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


def check_same_size(image: Image.Image, mask: Image.Image, image_path: Path, mask_path: Path) -> None:
    """Raises UserError where an image and its mask do not have the same width and height."""
    if image.size != mask.size:
        raise UserError(
            f"{image_path} is {image.size[0]}x{image.size[1]} pixels, but its mask {mask_path} is "
            f"{mask.size[0]}x{mask.size[1]}. Restore both from the same source."
        )


def encode_label(label: NDArray[np.integer]) -> bytes:
    """A label map (H, W) of uint8 or uint16 as PNG."""
    buffer = BytesIO()
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
    try:
        builder.download_and_prepare()
    except datasets.exceptions.DatasetGenerationError as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise
    return builder.as_dataset()
