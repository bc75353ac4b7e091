"""Names of files: what looks the same is the same, and what nearly is says so."""

import shutil
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfseg import DataConfig, UserError, load_dataset
from hfseg.data import find_source
from hfseg.data.pairing import find_mask_suffix
from hfseg.doctor import check_data

IDS = np.eye(2, dtype=np.uint8)[:, [0, 1, 1]].repeat(20, axis=0).repeat(20, axis=1)
ACCENTED = "caf\N{LATIN SMALL LETTER E WITH ACUTE}"


def make(root: Path, stem: str = "x", splits: tuple[str, ...] = ("train", "val")) -> Path:
    for number, split in enumerate(splits):
        for index in range(3):
            for folder in ("images", "masks"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng([number, index]).integers(0, 256, (*IDS.shape, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / split / f"{stem}{index}.jpg")
            Image.fromarray(IDS).save(root / "masks" / split / f"{stem}{index}.png")
    (root / "classes.txt").write_text("sky\ncar\n")
    return root.resolve()


def config(root: Path, **options: str) -> DataConfig:
    return DataConfig(name="folder", root=root, **options)


def rename(folder: Path, change: Callable[[Path], str]) -> None:
    for path in sorted(folder.rglob("*.*")):
        path.rename(path.parent / change(path))


def complaint(root: Path, **options: str) -> str:
    with pytest.raises(UserError) as error:
        check_data(config(root, **options))
    with pytest.raises(UserError) as same:
        load_dataset(config(root, **options))
    assert str(error.value) == str(same.value)
    return str(error.value)


@pytest.mark.parametrize("folder", ["images", "masks"])
def test_one_unicode_form(tmp_path: Path, folder: str) -> None:
    root = make(tmp_path, ACCENTED)
    rename(root / folder, lambda path: unicodedata.normalize("NFD", path.name))
    assert check_data(config(root)).errors == []
    names = [name for rows in load_dataset(config(root))[0].values() for name in rows["name"]]
    assert sorted(names) == [f"{split}/{ACCENTED}{index}" for split in ("train", "val") for index in range(3)]


def test_two_files_of_one_name(tmp_path: Path) -> None:
    root = make(tmp_path, ACCENTED)
    twin = root / "images" / "train" / unicodedata.normalize("NFD", f"{ACCENTED}1.jpg")
    shutil.copy(root / "images" / "train" / f"{ACCENTED}1.jpg", twin)
    assert "have the same name, in two Unicode forms: which one counts? Remove the other" in complaint(root)
    twin.unlink()
    shutil.copy(root / "images" / "train" / f"{ACCENTED}1.jpg", twin.with_suffix(".png"))
    assert "in two Unicode forms" in complaint(root)


def test_upper_and_lower_case(tmp_path: Path) -> None:
    root = make(tmp_path)
    rename(root / "masks", lambda path: path.stem.upper() + ".PNG")
    message = complaint(root)
    assert f"{root}/masks/train/X0.PNG and {root}/images/train/x0.jpg differ in upper and lower case" in message
    assert "Rename the mask to x0.PNG" in message
    rename(root / "masks", lambda path: path.stem.lower() + ".PNG")
    assert check_data(config(root)).errors == []


@pytest.mark.parametrize("suffix", ["_mask", "-seg", " (1)", ".jpg", "_gt.label"])
def test_a_suffix_is_named_and_works(tmp_path: Path, suffix: str) -> None:
    root = make(tmp_path, "a.b_")
    rename(root / "masks", lambda path: f"{path.stem}{suffix}.png")
    assert complaint(root).endswith(f"Set data.mask_suffix={suffix}")
    assert check_data(config(root, mask_suffix=suffix)).errors == []
    if suffix != "_mask":
        assert complaint(root, mask_suffix="_mask").endswith(f"Set data.mask_suffix={suffix}")


def test_one_name_that_is_unlike_the_others(tmp_path: Path) -> None:
    root = make(tmp_path)
    odd = next((root / "masks" / "train").iterdir())
    renamed = odd.rename(odd.with_name(f"{odd.stem}_old.png"))
    message = complaint(root)
    assert "mask_suffix" not in message
    assert f"{renamed} has _old at the end" in message
    assert f"rename it to {odd.name}" in message


def test_masks_beside_their_images(tmp_path: Path) -> None:
    root = make(tmp_path)
    for path in list((root / "masks").rglob("*.png")):
        path.rename(root / "images" / path.parent.name / f"{path.stem}_mask.png")
    shutil.rmtree(root / "masks")
    assert "with data.mask_suffix=_mask" in complaint(root)
    assert check_data(config(root, mask_suffix="_mask")).errors == []


def test_numbers_are_no_suffixes() -> None:
    assert find_mask_suffix({"1", "2", "a/1"}, {"10", "11", "a/12", "b_mask"}) == ""
    assert find_mask_suffix({"1", "2"}, {"1 ", "2 "}) == ""
    assert find_mask_suffix({"a/1", "a_1"}, {"a/1_m", "a_1_m", "a_mask"}) == "_m"


def test_masks_of_another_kind(tmp_path: Path) -> None:
    root = make(tmp_path)
    rename(root / "masks" / "val", lambda path: f"{path.stem}.npy")
    assert f"{root}/masks/val/x0.npy is no image file that is read" in complaint(root)


def test_nothing_is_left_out_silently(tmp_path: Path) -> None:
    root = make(tmp_path)
    (root / "images" / "train" / "more.svg").write_text("<svg/>")
    (root / "masks" / "val" / "deep").mkdir()
    (root / "masks" / "val" / "deep" / "notes.txt").write_text("x")
    (root / "images" / "train" / "Thumbs.db").write_text("x")
    (root / "images" / "val" / ".hidden.svg").write_text("x")
    make(tmp_path / "other", splits=("test",))
    shutil.copytree(tmp_path / "other" / "masks" / "test", root / "masks" / "test")
    report = check_data(config(root))
    named = {finding.files[0].removeprefix(f"{root}/"): finding.fault for finding in report.findings}
    assert named == {
        "images/train/more.svg": "unread",
        "masks/val/deep/notes.txt": "unread",
        **{f"masks/test/x{index}.png": "stray" for index in range(3)},
    }
    assert set(find_source(config(root), root).other_files) == {
        root / "images/train/more.svg", root / "masks/val/deep/notes.txt",
    }  # fmt: skip


def test_folders_that_are_no_split(tmp_path: Path) -> None:
    root = make(tmp_path)
    for folder in ("masks", "images"):
        shutil.copytree(root / folder / "val", root / folder / "extra")
        assert f"{root}/{folder} is split into train/, val/ but 3 images lie elsewhere" in complaint(root)
        shutil.rmtree(root / folder / "extra")
    for split in ("train", "val"):
        (root / "masks" / split).rename(root / "masks" / f"{split}_")
    assert f"{root}/images has split folders, but {root}/masks has none" in complaint(root)
    for split in ("train", "val"):
        (root / "masks" / f"{split}_").rename(root / "masks" / split.title())
    assert check_data(config(root)).errors == []
