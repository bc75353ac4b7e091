"""Draws street scenes and writes them in the official Cityscapes folder layout.

As with the drawn pets, what a thing is shows in its shape, its parts and its surroundings, not in its colour: one list
of paints serves houses, walls, vehicles and clothes, the ground shares its greys, and season and weather change from
picture to picture. `tests/data/test_synthetic_cityscapes.py` measures that a colour lookup fails.
"""

from pathlib import Path

import numpy as np

from hfseg.data.drawn.ids import OUT_OF_ROI, UNLABELED
from hfseg.data.drawn.scene import RARE, draw
from hfseg.files import complete_folder

# Callers put this into their cache keys: it must rise whenever a byte of what is written changes.
SYNTHETIC_CITYSCAPES_VERSION = 1
CITIES = {"train": ("inkburg", "chalkstadt", "paperfeld"), "val": ("pastelheim", "sepiastein"), "test": ("crayonau",)}
FRAME = 19  # the labelled frame of every official sequence


def _write_split(root: Path, split: str, count: int, size: int, seed: int) -> None:
    cities = CITIES[split]
    for index in range(count):
        city = cities[index % len(cities)]
        rng = np.random.default_rng((seed, list(CITIES).index(split), index))
        image, labels = draw(size, RARE[index % len(RARE)], rng)
        if split == "test":  # the official test set publishes only what calibration knows
            labels = labels.point([i if i <= OUT_OF_ROI else UNLABELED for i in range(256)])
        name = f"{city}_{index // len(cities):06d}_{FRAME:06d}"
        for folder, picture, suffix in (("leftImg8bit", image, "leftImg8bit"), ("gtFine", labels, "gtFine_labelIds")):
            path = root / folder / split / city / f"{name}_{suffix}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            picture.save(path)


def write_synthetic_cityscapes(
    root: Path, *, num_train: int, num_val: int, num_test: int, size: int, seed: int
) -> None:
    """Draws street scenes and writes them as Cityscapes is laid out.

    A picture depends on `seed`, its split, its place in the split and `size` alone, so a larger set contains the
    smaller one. Masks hold the official label ids 0 to 33; those of the test split hold, as the official ones do,
    only the own vehicle and the borders, and 0 elsewhere.

    Args:
        root: Folder to make. It appears only when complete.
        num_train: Pictures in `train`.
        num_val: Pictures in `val`.
        num_test: Pictures in `test`.
        size: Width of every picture in pixels, 16 or more; the height is half of it.
        seed: Any non-negative number.

    Raises:
        FileExistsError: If `root` exists.
    """
    if root.exists():
        raise FileExistsError(f"{root} exists: give a folder that does not, or remove it")
    with complete_folder(root) as building:
        for folder in ("leftImg8bit", "gtFine"):
            for split in CITIES:
                (building / folder / split).mkdir(parents=True)
        for split, count in zip(CITIES, (num_train, num_val, num_test), strict=True):
            _write_split(building, split, count, size, seed)
