"""Checks of one sample by itself: its image, its mask, and whether they fit. Faults become findings."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data import (
    TO_8_BITS,
    UNREADABLE,
    check_regular,
    depth_problem,
    explain_unreadable,
    has_more_frames,
    open_header,
    orientation_of,
    upright,
)
from hfseg.doctor.findings import Finding, Severity
from hfseg.errors import UserError
from hfseg.labels import LabelSet

File: TypeAlias = Path | bytes  # rows of a data set hold the bytes
Size: TypeAlias = tuple[int, int]

THUMBNAIL = 32  # side of the grey thumbnails that are compared for duplicates
MIN_SIDE = 32
RESTORE = "Restore the file from where it came."


@dataclass(frozen=True)
class Sample:
    """An image and its mask, and what findings call them. `read_ids` is `Source.read_ids`, or its like for bytes."""

    split: str
    name: str
    image: File
    mask: File | None
    image_name: str
    mask_name: str
    read_ids: Callable[[Any], NDArray[np.integer]] = field(repr=False)


@dataclass(slots=True)
class Header:
    """Of an image file, read without decoding its pixels; `size` is (width, height) as stored."""

    size: Size
    mode: str
    format: str
    orientation: int  # 1..8 as in EXIF: how the stored pixels are to be turned

    @property
    def upright(self) -> Size:
        return self.size if self.orientation < 5 else self.size[::-1]


@dataclass(slots=True)  # all of a data set are in memory at once
class Inspection:
    """What is known of one sample; `findings` are those that need no other sample.

    Attributes:
        image: header of the image, None where it cannot be read; `mask` likewise.
        has_more_frames: whether the image's file holds more than one; False in a quick check.
        digest: of the image file's content.
        thumbnail: (32, 32) grey; None in a quick check and for an image of one colour, which resembles every other.
        values: value -> pixels of the mask, as class ids, or as stored if `refused`.
        edge_values: of a mask that has ids outside the classes, the values that fill no area.
        refused: message of `read_ids` where the mask is not in the data set's coding.
        palette: index -> colour, of the indexes that a palette mask uses as ids.
    """

    split: str
    name: str
    image_name: str
    mask_name: str
    findings: list[Finding] = field(default_factory=list)
    image: Header | None = None
    has_more_frames: bool = False
    mask: Header | None = None
    digest: bytes = b""
    thumbnail: NDArray[np.uint8] | None = None
    values: dict[int, int] = field(default_factory=dict)
    edge_values: frozenset[int] = frozenset()
    refused: str | None = None
    palette: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def add(self, severity: Severity, fault: str, file: str, what: str, remedy: str) -> None:
        self.findings.append(Finding(severity, fault, (file,), what, remedy))

    def add_unreadable(self, file: str, part: str, error: BaseException) -> None:
        """Of an image or a mask on which an error of `UNREADABLE` was raised."""
        what, remedy = explain_unreadable(error)
        fault = "missing-file" if isinstance(error, FileNotFoundError) else "unreadable"
        self.add("error", fault, file, f"the {part} {what}", remedy)


def inspect(sample: Sample, labels: LabelSet, quick: bool = False) -> Inspection:
    """Looks at one sample. `quick` leaves the image's pixels undecoded."""
    found = Inspection(sample.split, sample.name, sample.image_name, sample.mask_name)
    try:
        inspect_image(sample.image, found, quick)
    except UNREADABLE as error:
        found.image = None
        found.add_unreadable(sample.image_name, "image", error)
    if sample.mask is None:
        if sample.split != "predict":
            what = f"the image has no mask, in the {sample.split} split"
            found.add("error", "image-without-mask", sample.image_name, what, "Add its mask, or remove the image.")
        return found
    try:
        inspect_mask(sample, sample.mask, found, labels)
    except UNREADABLE as error:
        found.mask = None
        found.add_unreadable(sample.mask_name, "mask", error)
    if found.image is not None and found.mask is not None:
        compare_sizes(found, found.image, found.mask)
    return found


def open_file(file: File) -> Image.Image:
    """Opens without decoding."""
    return open_header(BytesIO(file) if isinstance(file, bytes) else file)


def decode(file: File) -> NDArray[Any]:
    """All pixels, upright."""
    with open_file(file) as image:
        return np.asarray(upright(image))


def read_header(image: Image.Image) -> Header:
    return Header(image.size, image.mode, image.format or "", orientation_of(image))


def inspect_image(file: File, found: Inspection, quick: bool) -> None:
    """Decodes to the end, at the smallest size that the format offers; raises what is in `UNREADABLE`."""
    if quick:
        with open_file(file) as image:
            found.image = read_header(image)
    else:
        content = file if isinstance(file, bytes) else check_regular(file).read_bytes()
        found.digest = hashlib.blake2b(content, digest_size=16).digest()
        with open_file(content) as image:
            found.image = read_header(image)
            image.draft("L", (2 * THUMBNAIL, 2 * THUMBNAIL))  # JPEG only: all of the file is read, not all decoded
            inspect_pixels(image, found)
            found.has_more_frames = has_more_frames(image)
    width, height = found.image.size
    if min(width, height) < MIN_SIDE:
        what = f"the image is {width}x{height} pixels"
        found.add("warning", "tiny-image", found.image_name, what, "Check that it is not a thumbnail or an icon.")


def inspect_pixels(image: Image.Image, found: Inspection) -> None:
    problem = depth_problem(image)
    if problem:
        found.add("error", "deep-image", found.image_name, f"the image {problem}", TO_8_BITS)
    side = (THUMBNAIL, THUMBNAIL)
    small = image if image.mode in ("L", "RGB") else image.convert("RGB")
    grey = np.asarray(small.resize(side, Image.Resampling.BOX, reducing_gap=2.0).convert("L"))
    if np.ptp(grey) > 2:
        found.thumbnail = grey
    elif all(high - low <= 2 for low, high in np.reshape(image.getextrema(), (-1, 2))):
        what = "the image has one colour only"
        found.add("warning", "flat-image", found.image_name, what, "Leave the sample out, or restore the image.")


def inspect_mask(sample: Sample, mask: File, found: Inspection, labels: LabelSet) -> None:
    """Reads the ids; where they are refused or unknown, looks at how they are stored."""
    with open_file(mask) as image:
        found.mask = read_header(image)
        palette = image.getpalette() if image.mode == "P" else None
    try:
        ids = sample.read_ids(mask)
    except UserError as error:
        ids = decode(mask)  # raises if it is damaged
        found.refused = str(error).removeprefix(sample.mask_name).lstrip(": ")
        if ids.ndim != 2 or ids.dtype.kind == "f":
            return
        ids = ids.astype(np.uint8) if ids.dtype == bool else ids
    found.values = count_values(ids)
    known = {*range(labels.num_labels), labels.ignore_index}
    if found.refused or not known.issuperset(found.values):
        found.edge_values = edge_values(ids)
    elif set(found.values) == {labels.ignore_index}:
        what = "all of the mask is the ignore index"
        found.add("warning", "ignored-mask", found.mask_name, what, "Label it, or leave the sample out.")
    elif len(found.values) == 1:
        what = f"the mask has one class only, {labels.names[next(iter(found.values))]!r}"
        found.add("warning", "one-class-mask", found.mask_name, what, "Check that the mask is not empty by mistake.")
    if palette and np.array_equal(ids, decode(mask)):
        found.palette = {index: tuple(palette[3 * index : 3 * index + 3]) for index in found.values}


def count_values(ids: NDArray[np.integer]) -> dict[int, int]:
    """Value -> pixels."""
    if ids.dtype == np.uint8 and ids.ndim == 2:  # several times as fast as NumPy, and outside Python's lock
        return {value: count for value, count in enumerate(Image.fromarray(ids).histogram()) if count}
    if ids.dtype in (np.uint8, np.uint16):
        counts = np.bincount(ids.ravel())
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(ids, return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


def edge_values(ids: NDArray[np.integer]) -> frozenset[int]:
    """Values of which less than half of the pixels lie in a 2x2 block of that value, as interpolation leaves them."""
    same = (ids[1:] == ids[:-1])[:, 1:] & (ids[1:] == ids[:-1])[:, :-1] & (ids[:, 1:] == ids[:, :-1])[1:]
    inside = np.zeros(ids.shape, dtype=bool)
    for rows in (slice(1, None), slice(None, -1)):
        for columns in (slice(1, None), slice(None, -1)):
            inside[rows, columns] |= same
    filled = count_values(ids[inside])
    return frozenset(value for value, count in count_values(ids).items() if 2 * filled.get(value, 0) < count)


def compare_sizes(found: Inspection, image: Header, mask: Header) -> None:
    """Whether image and mask cover each other once both are turned upright."""
    (width, height), (mask_width, mask_height) = image.upright, mask.upright
    exif = f"EXIF orientation is {image.orientation} in the image and {mask.orientation} in the mask"
    turned = "Look at both, and save them upright without the EXIF tag so that they cover each other."
    swaps = (image.orientation >= 5, mask.orientation >= 5)  # width and height
    if image.upright != mask.upright:
        what = f"the mask is {mask_width}x{mask_height} pixels, but its image {found.image_name} is {width}x{height}"
        if image.size == mask.size and swaps[0] != swaps[1]:
            what += f"; they match only before they are turned: {exif}"
            found.add("error", "exif-orientation", found.mask_name, what, turned)
        else:
            remedy = "Restore both from the same source; resize masks with the nearest neighbour only."
            found.add("error", "size-mismatch", found.mask_name, what, remedy)
    elif image.orientation != mask.orientation and (swaps[0] == swaps[1] or len(set(image.size)) == 1):
        # Otherwise equal sizes prove that the mask was drawn on the upright image.
        what = f"{exif} ({found.image_name}); sizes cannot tell whether they still cover each other"
        found.add("warning", "exif-unsure", found.mask_name, what, turned)


def spread(items: Sequence[Any], number: int) -> list[Any]:
    """At most so many items, evenly from all."""
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, min(number, len(items)))]
