"""Samples for the contact sheet: flagged ones first, then some of each split."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.data import UNREADABLE, upright
from hfseg.doctor.findings import Finding, Tile
from hfseg.doctor.inspection import File, Inspection, Sample, decode, open_file
from hfseg.errors import UserError

NUM_TILES = 24
MAX_FLAGGED = 16
MAX_PER_FAULT = 4
TILE_SIDE = 320  # pixels


def choose_tiles(findings: Sequence[Finding], inspections: Sequence[Inspection]) -> dict[int, tuple[str, ...]]:
    """Index of a sample -> its faults: a few samples of each fault, then unflagged ones spread over all splits."""
    owner = {file: index for index, found in enumerate(inspections) for file in (found.image_name, found.mask_name)}
    faults: dict[int, list[str]] = defaultdict(list)
    shown: dict[str, set[int]] = defaultdict(set)
    for finding in findings:
        for file in finding.files[:MAX_PER_FAULT]:
            index = owner.get(file)
            if index is None:
                continue
            if finding.fault not in faults[index]:
                faults[index].append(finding.fault)
            if len(shown[finding.fault]) < MAX_PER_FAULT:
                shown[finding.fault].add(index)
    chosen = list(dict.fromkeys(index for indexes in shown.values() for index in indexes))[:MAX_FLAGGED]
    clean = [index for index in range(len(inspections)) if index not in faults]
    number = min(NUM_TILES - len(chosen), len(clean))
    chosen += [clean[int(at)] for at in np.linspace(0, len(clean) - 1, number)] if number else []
    return {index: tuple(faults.get(index, ())) for index in chosen}


def load_tile(make_sample: Callable[[], Sample], faults: tuple[str, ...]) -> Tile:
    """Image and mask as a training would see them, reduced; of a refused mask the stored values."""
    sample = make_sample()
    image, ids = None, None
    with suppress(*UNREADABLE):
        image = load_image(sample.image)
    with suppress(*UNREADABLE):
        ids = None if sample.mask is None else load_ids(sample, sample.mask)
    if ids is not None:
        side = image.size if image else (TILE_SIDE, TILE_SIDE)
        ids = np.asarray(Image.fromarray(ids.astype(np.int32)).resize(side, Image.Resampling.NEAREST))
    return Tile(sample.name, sample.split, image, ids, faults)


def load_image(file: File) -> Image.Image:
    with open_file(file) as image:
        image.draft("RGB", (TILE_SIDE, TILE_SIDE))
        picture = upright(image).convert("RGB")
    picture.thumbnail((TILE_SIDE, TILE_SIDE))
    return picture


def load_ids(sample: Sample, mask: File) -> NDArray[Any] | None:
    """Ids (H, W), or None for a mask of colours."""
    try:
        return sample.read_ids(mask)
    except UserError:
        ids = decode(mask)
    return ids if ids.ndim == 2 else None
