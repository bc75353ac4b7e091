"""Images that occur twice: the same file content, or the same picture saved again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.doctor.findings import Finding
from hfseg.doctor.inspection import Inspection

# Both measures must agree. Of 105,000 pairs of different photos and video frames from a moving car, none within 10
# bits correlated above 0.8; a stock photo with and without its watermark gave 4 bits and 0.98.
MAX_BITS = 10
MIN_CORRELATION = 0.95
BLOCK = 64  # images compared at once with all others: memory stays small for any number of images

REMEDY = "Keep it in one split only: a score on training images means nothing."


def find_duplicates(inspections: Sequence[Inspection]) -> list[Finding]:
    """Warnings: official sets have duplicates, and are used with them."""
    findings = []
    same: dict[bytes, list[Inspection]] = defaultdict(list)
    for found in inspections:
        if found.digest:
            same[found.digest].append(found)
    for group in same.values():
        if len(group) > 1:
            files = tuple(found.image_name for found in group)
            splits = sorted({found.split for found in group})
            if len(splits) > 1:
                what = f"the same image in {' and '.join(splits)}"
                findings.append(Finding("warning", "duplicate-across-splits", files, what, REMEDY))
            else:
                what = f"the same image {len(group)} times in {splits[0]}"
                findings.append(Finding("warning", "duplicate", files, what, "Remove all but one."))
    for first, second, bits, correlation in near_duplicates(inspections):
        files = (first.image_name, second.image_name)
        what = f"nearly the same image in {first.split} and {second.split} ({bits} of 64 bits differ, "
        what += f"correlation {correlation:.3f})"
        findings.append(Finding("warning", "near-duplicate-across-splits", files, what, f"Look at both. {REMEDY}"))
    return findings


def near_duplicates(inspections: Sequence[Inspection]) -> Iterator[tuple[Inspection, Inspection, int, float]]:
    """For each image of a later split, the one of an earlier split that it nearly repeats, if there is one."""
    members: dict[str, list[Inspection]] = defaultdict(list)
    thumbnails: dict[str, list[NDArray[np.uint8]]] = defaultdict(list)
    for found in inspections:
        if found.thumbnail is not None:
            members[found.split].append(found)
            thumbnails[found.split].append(found.thumbnail)
    hashes = {split: difference_hashes(images) for split, images in thumbnails.items()}
    pixels = {split: standardise(images) for split, images in thumbnails.items()}
    for left, right in combinations(members, 2):
        for start in range(0, len(members[right]), BLOCK):
            block = slice(start, start + BLOCK)
            bits = np.bitwise_count(hashes[right][block, None] ^ hashes[left][None])
            rows = np.flatnonzero((bits <= MAX_BITS).any(1))  # of most photos none: products take most of the time
            correlation = np.where(bits[rows] <= MAX_BITS, pixels[right][start + rows] @ pixels[left].T, -1)
            for row, number, column in zip(rows, range(len(rows)), correlation.argmax(1), strict=True):
                first, second = members[left][column], members[right][start + row]
                if correlation[number, column] >= MIN_CORRELATION and first.digest != second.digest:
                    yield first, second, int(bits[row, column]), float(correlation[number, column])


def difference_hashes(thumbnails: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint64]:
    """(N,) of 64 bits: whether each cell of a 9x8 picture is brighter than its left neighbour (dHash)."""
    cells = [Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX) for grey in thumbnails]
    small = np.stack([np.asarray(image) for image in cells])
    return np.packbits(small[:, :, 1:] > small[:, :, :-1], axis=None).view(np.uint64)


def standardise(thumbnails: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
    """(N, 1024) with mean 0 and length 1: their products are Pearson's correlations."""
    flat = np.stack(thumbnails).reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)
