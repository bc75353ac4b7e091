"""A hand-made Cityscapes in the official layout."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SIZE = (24, 12)
CITIES = {
    "train": {"aachen": 20, "bochum": 3, "monchengladbach": 2},
    "val": {"frankfurt": 2, "lindau": 1},
    "test": {"berlin": 2},
}


def save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture(scope="session")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The official layout with everything that its archives hold beside what is needed."""
    root, rng = tmp_path_factory.mktemp("cityscapes") / "official", np.random.default_rng(0)
    for split, cities in CITIES.items():
        for city, count in cities.items():
            for frame in range(count):
                stem = f"{split}/{city}/{city}_{frame:06d}_000019"
                save(
                    root / "leftImg8bit" / f"{stem}_leftImg8bit.png", rng.integers(0, 256, (*SIZE[::-1], 3), np.uint8)
                )
                ids = rng.integers(0, 34, SIZE[::-1], np.uint8) * np.uint8(split != "test")  # dummies in the test
                save(root / "gtFine" / f"{stem}_gtFine_labelIds.png", ids)
                save(root / "gtFine" / f"{stem}_gtFine_instanceIds.png", ids.astype(np.uint16) * 1000)
                save(root / "gtFine" / f"{stem}_gtFine_color.png", np.stack([ids] * 3, axis=2))
                (root / "gtFine" / f"{stem}_gtFine_polygons.json").write_text("{}")
    (root / "license.txt").write_text("Cityscapes Dataset")
    return root
