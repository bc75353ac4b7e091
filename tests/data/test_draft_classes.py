"""Class files that are drafted from masks, read back by the reader of class files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfseg import UserError
from hfseg.data import draft_class_file
from hfseg.data.classes import read_class_table

Array = np.ndarray


def write_masks(folder: Path, *arrays: Array, **how: object) -> list[Path]:
    paths = [folder / f"{index}.png" for index in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        Image.fromarray(array).save(path, **how)
    return paths


def names_and_colours(folder: Path, masks: list[Path]) -> dict[str, object]:
    path = folder / "classes.txt"
    path.write_text(draft_class_file(masks), encoding="utf-8")
    table = read_class_table(path, 255)
    return dict(zip(table.labels.names, table.labels.palette, strict=True))


def ids(*values: int) -> Array:
    return np.array([values, values], np.uint8)


def test_ids(tmp_path: Path) -> None:
    masks = write_masks(tmp_path, ids(0, 1, 1), ids(3, 255, 0))
    assert list(names_and_colours(tmp_path, masks)) == ["class 0", "class 1", "class 2", "class 3"]


def test_two_ids_are_background_and_object(tmp_path: Path) -> None:
    assert list(names_and_colours(tmp_path, write_masks(tmp_path, ids(0, 1)))) == ["background", "object"]


def test_black_and_white(tmp_path: Path) -> None:
    masks = write_masks(tmp_path, ids(0, 255), ids(0, 0))
    assert draft_class_file(masks).splitlines()[1:] == ["0 0 0 background", "255 255 255 object"]


def test_colours(tmp_path: Path) -> None:
    picture = np.array([[[0, 0, 0], [128, 0, 0], [0, 128, 0]]], np.uint8)
    found = names_and_colours(tmp_path, write_masks(tmp_path, picture))
    assert found == {"colour 0-0-0": (0, 0, 0), "colour 0-128-0": (0, 128, 0), "colour 128-0-0": (128, 0, 0)}


def test_a_grey_mask_among_coloured_ones(tmp_path: Path) -> None:
    picture = np.array([[[0, 0, 0], [0, 128, 0]]], np.uint8)
    found = names_and_colours(tmp_path, write_masks(tmp_path, picture, ids(0, 0)))
    assert list(found.values()) == [(0, 0, 0), (0, 128, 0)]


def test_smoothed_masks_are_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with pytest.raises(UserError, match=r"0\.png: the masks hold more than 256 different values"):
        draft_class_file(write_masks(tmp_path, noise))


def test_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"0\.png"):
        draft_class_file([tmp_path / "0.png"])
