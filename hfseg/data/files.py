"""What every data set does with files: decode them entirely, know when they change, build the Arrow cache once."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data.images import TO_8_BITS, UNREADABLE, depth_problem, explain_unreadable, open_header, upright
from hfseg.errors import UserError
from hfseg.files import writing


def open_image(file: Path | BytesIO, where: str = "") -> Image.Image:
    """Decodes a file completely, the right way up as `datasets` will: what is broken must not stop a training.

    Args:
        file: its path or its bytes; of several frames, the first.
        where: what errors call it, if not by its path.

    Raises:
        UserError: the file is missing or cannot be decoded.
    """
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


def as_rgb(image: Image.Image, where: object) -> Image.Image:
    """RGB without transparency; raises UserError for values that are not those of 8 bits."""
    check_depth(image, where)
    return image if image.mode == "RGB" else image.convert("RGB")


def check_depth(image: Image.Image, where: object) -> None:
    """Raises UserError for an image whose values are not those of 8 bits: as RGB it would become white or black."""
    problem = depth_problem(image)
    if problem:
        raise UserError(f"{where} {problem}. {TO_8_BITS}")


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
