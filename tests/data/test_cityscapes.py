"""Cityscapes from its official layout: the labels against cityscapesscripts' table, pixel by pixel."""

import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from hfseg import DataConfig, UserError, load_dataset
from hfseg.data import cityscapes_labels
from hfseg.data.cityscapes import CLASSES, LABEL_IDS, CityscapesReader, cityscapes_source
from tests.builders import assert_same_as_cityscapes, cityscapes_train_ids, pack_cityscapes
from tests.data.conftest import CITIES, SIZE, save
from tests.extras import needs

needs("cityscapes")

from cityscapesscripts.helpers import labels as table  # noqa: E402


@pytest.fixture
def copy(cityscapes: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(cityscapes, tmp_path / "copy"))


def load(root: Path | None) -> datasets.DatasetDict:
    return load_dataset(DataConfig(name="cityscapes", root=root))[0]


def test_every_entry_of_the_table_is_the_official_one() -> None:
    assert {label.id: label.trainId if label.trainId >= 0 else 255 for label in table.labels} == {
        label_id: train_id for label_id, train_id in LABEL_IDS.items() if label_id != 255
    }
    labels = cityscapes_labels()
    assert labels.num_labels == 19
    assert labels.palette is not None
    for train_id, (name, label_id, colour, _) in enumerate(CLASSES):
        official = table.trainId2label[train_id]
        assert (name, label_id, colour) == (official.name, official.id, official.color)
        assert (labels.names[train_id], labels.palette[train_id]) == (official.name, official.color)


def test_labels_are_the_masks_from_folders_and_from_archives(cityscapes: Path, tmp_path: Path) -> None:
    assert_same_as_cityscapes(load(cityscapes), cityscapes)
    assert_same_as_cityscapes(load(pack_cityscapes(cityscapes, tmp_path / "zips")), cityscapes)


def test_only_what_is_needed_is_unpacked(cityscapes: Path, tmp_path: Path) -> None:
    source = cityscapes_source(pack_cityscapes(cityscapes, tmp_path / "zips"), tmp_path / "cache")
    files = {path for pairs in source.splits.values() for pair in pairs for path in (pair.image, pair.mask) if path}
    assert {path for path in source.root.rglob("*") if path.is_file()} == files


def test_ready_train_ids_do_as_well(copy: Path, cityscapes: Path) -> None:
    for path in sorted((copy / "gtFine").glob("*/*/*_labelIds.png")):
        save(path.with_name(path.name.replace("labelIds", "labelTrainIds")), cityscapes_train_ids(path))
        if "bochum" not in path.name and "frankfurt" not in path.name:  # where both are there, they say the same
            path.unlink()
    assert_same_as_cityscapes(load(copy), cityscapes)


def test_splits(cityscapes: Path, tmp_path: Path) -> None:
    source = cityscapes_source(cityscapes, tmp_path)
    names = {split: [pair.name for pair in pairs] for split, pairs in source.splits.items()}
    official = {split: {f"{city}_{i:06d}_000019" for city in c for i in range(c[city])} for split, c in CITIES.items()}
    assert set(names["train"]) | set(names["validation"]) == official["train"]
    assert not set(names["train"]) & set(names["validation"])
    assert set(names["test"]) == official["val"]
    assert set(names["predict"]) == official["test"]
    held_out = [name.partition("_")[0] for name in names["validation"]]
    assert {city: held_out.count(city) for city in held_out} == {"aachen": 2, "bochum": 1, "monchengladbach": 1}


def test_drawn_streets_load_like_the_real_ones(tmp_path: Path) -> None:
    drawing = {"num_trainval": 8, "num_test": 4, "size": 64}
    data, labels = load_dataset(DataConfig(name="synthetic_cityscapes", root=tmp_path, synthetic=drawing))
    assert labels == cityscapes_labels()
    assert {split: len(rows) for split, rows in data.items()} == {"train": 5, "validation": 3, "test": 4}
    assert {row["image"].size for rows in data.values() for row in rows} == {(64, 32)}
    for row in data["test"]:
        mask = first(tmp_path, f"synthetic_cityscapes/*/gtFine/val/*/{row['name']}_gtFine_labelIds.png")
        assert np.array_equal(np.array(row["label"]), cityscapes_train_ids(mask))


def test_without_test_images_there_is_nothing_to_predict(copy: Path) -> None:
    shutil.rmtree(copy / "leftImg8bit" / "test")
    assert sorted(load(copy)) == ["test", "train", "validation"]


def test_strays_of_a_mac_are_left_out(copy: Path) -> None:
    (copy / "leftImg8bit" / "train" / "aachen" / "._aachen_000000_000019_leftImg8bit.png").write_bytes(b"\0\5\26\7")
    (copy / "gtFine" / "val" / "lindau" / "._lindau_000000_000019_gtFine_labelIds.png").write_bytes(b"\0\5\26\7")
    assert_same_as_cityscapes(load(copy), copy)


def test_wider_numbers_and_what_stands_for_minus_one(tmp_path: Path) -> None:
    ids, path = np.arange(34).reshape(2, 17), tmp_path / "a_gtFine_labelIds.png"
    save(path, ids.astype(np.uint8))
    expected = CityscapesReader()(path)
    assert expected.dtype == np.uint8
    save(path, ids.astype(np.uint16))
    assert np.array_equal(CityscapesReader()(path), expected)
    save(path, np.array([[7, 255]], np.uint8))
    assert CityscapesReader()(path).tolist() == [[0, 255]]
    Image.fromarray(np.array([[33, -1]], np.int32)).save(path, format="TIFF")  # no PNG can hold -1
    assert CityscapesReader()(path).tolist() == [[18, 255]]
    palette = Image.fromarray(ids.astype(np.uint8)).convert("L").convert("P")
    palette.putdata(ids.ravel().tolist())
    palette.save(path)
    assert np.array_equal(CityscapesReader()(path), expected)


def first(root: Path, pattern: str) -> Path:
    return sorted(root.glob(pattern))[0]


def damage_missing_mask(root: Path) -> str:
    path = first(root, "gtFine/train/*/*_labelIds.png")
    path.unlink()
    return f"{path} is missing"


def damage_missing_masks(root: Path) -> str:
    for path in root.glob("gtFine/train/aachen/*_labelIds.png"):
        path.unlink()
    return "20 of 25"


def damage_missing_image(root: Path) -> str:
    path = first(root, "leftImg8bit/val/*/*.png")
    path.unlink()
    return f"{path} is missing"


def damage_no_masks(root: Path) -> str:
    shutil.rmtree(root / "gtFine")
    return "gtFine_trainvaltest.zip (241 MB)"


def damage_no_val(root: Path) -> str:
    shutil.rmtree(root / "leftImg8bit" / "val")
    return "leftImg8bit/val holds no"


def damage_unknown_id(root: Path) -> str:
    path = first(root, "gtFine/train/*/*_labelIds.png")
    save(path, np.full(SIZE[::-1], 34, np.uint8))
    return f"{path} holds [34]"


def damage_wide_unknown_id(root: Path) -> str:
    path = first(root, "gtFine/train/*/*_labelIds.png")
    save(path, np.full(SIZE[::-1], 26001, np.uint16))
    return f"{path} holds [26001]"


def damage_label_ids_as_cityscapes_train_ids(root: Path) -> str:
    path = first(root, "gtFine/train/*/*_labelIds.png")
    path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    return "one channel of train ids (0..18)"


def damage_colours(root: Path) -> str:
    path = first(root, "gtFine/val/*/*_labelIds.png")
    shutil.copy(first(root, "gtFine/val/*/*_color.png"), path)
    return f"{path} holds ['uint8 of shape (12, 24, 3)']"


def damage_one_bit(root: Path) -> str:
    path = first(root, "gtFine/val/*/*_labelIds.png")
    Image.new("1", SIZE).save(path)
    return f"{path} holds ['bool"


def damage_size(root: Path) -> str:
    path = first(root, "gtFine/train/*/*_labelIds.png")
    save(path, np.zeros((5, 7), np.uint8))
    return "7x5"


def damage_truncated_image(root: Path) -> str:
    path = first(root, "leftImg8bit/test/*/*.png")
    path.write_bytes(path.read_bytes()[:-50])
    return f"{path} cannot be read"


def damage_same_name_in_two_splits(root: Path) -> str:
    for pattern in ("leftImg8bit/train/aachen/aachen_000003*", "gtFine/train/aachen/aachen_000003*_labelIds.png"):
        path = first(root, pattern)
        (root / path.relative_to(root).parts[0] / "val" / "aachen").mkdir()
        shutil.copy(path, str(path).replace("train", "val"))
    return "more than once, such as aachen_000003_000019"


DAMAGES = [value for name, value in sorted(globals().items()) if name.startswith("damage_")]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_is_named_and_repair_is_noticed(copy: Path, cityscapes: Path, damage: Callable[[Path], str]) -> None:
    load(copy)  # a cache of the healthy folder exists, and must not be used
    said = damage(copy)
    with pytest.raises(UserError) as error:
        load(copy)
    assert said in str(error.value)
    assert str(copy) in str(error.value)
    shutil.rmtree(copy)
    shutil.copytree(cityscapes, copy)
    assert_same_as_cityscapes(load(copy), copy)


def test_a_changed_added_or_removed_mask_is_noticed(copy: Path) -> None:
    load(copy)
    save(first(copy, "gtFine/val/*/*_labelIds.png"), np.full(SIZE[::-1], 33, np.uint8))
    assert_same_as_cityscapes(load(copy), copy)
    shutil.rmtree(copy / "leftImg8bit" / "train" / "bochum")
    shutil.rmtree(copy / "gtFine" / "train" / "bochum")
    assert len(load(copy)["train"]) == 19


def test_what_is_missing_is_said(cityscapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a folder.*leftImg8bit_trainvaltest\.zip \(11 GB\)"):
        load(tmp_path / "nowhere")
    archives = pack_cityscapes(cityscapes, tmp_path / "zips")
    (archives / "gtFine_trainvaltest.zip").unlink()
    with pytest.raises(UserError, match=r"missing: gtFine_trainvaltest\.zip.*cityscapes-dataset\.com/downloads/"):
        load(archives)


def test_a_damaged_archive_leaves_nothing_behind(cityscapes: Path, tmp_path: Path) -> None:
    archives, cache = pack_cityscapes(cityscapes, tmp_path / "zips"), tmp_path / "cache"
    path = archives / "gtFine_trainvaltest.zip"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"gtFine_trainvaltest\.zip is truncated or corrupt"):
        cityscapes_source(archives, cache)
    assert not [path for path in (cache / "cityscapes").iterdir() if path.is_dir()]
    path.write_bytes(whole)
    assert_same_as_cityscapes(cityscapes_source(archives, cache).load(cache), cityscapes)


def prepare(archives: Path, cache: Path) -> None:
    cityscapes_source(archives, cache).load(cache)


@pytest.fixture(scope="module")
def children() -> multiprocessing.context.ForkServerContext:
    """Processes that need not import everything anew, from a parent without threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hfseg", __name__])
    return context


def progress(cache: Path) -> int:
    """How many files and folders there are: a clock that runs as fast as the machine does."""
    return sum(len(folders) + len(files) for _, folders, files in os.walk(cache))


def test_killed_at_any_moment_and_run_again(
    cityscapes: Path, tmp_path: Path, children: multiprocessing.context.ForkServerContext
) -> None:
    archives, rng, killed = pack_cityscapes(cityscapes, tmp_path / "zips"), random.Random(0), 0
    prepare(archives, tmp_path / "whole")
    total = progress(tmp_path / "whole")
    for attempt in range(6):
        cache, moment = tmp_path / f"cache-{attempt}", rng.randint(1, total - 1)
        child = children.Process(target=prepare, args=(archives, cache))
        child.start()
        while progress(cache) < moment and child.is_alive():
            pass
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
        assert_same_as_cityscapes(cityscapes_source(archives, cache).load(cache), cityscapes)
        assert not list(cache.glob("cityscapes/*.partial"))
    assert killed >= 2


def test_two_at_once(cityscapes: Path, tmp_path: Path, children: multiprocessing.context.ForkServerContext) -> None:
    archives, cache = pack_cityscapes(cityscapes, tmp_path / "zips"), tmp_path / "cache"
    processes = [children.Process(target=prepare, args=(archives, cache)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert_same_as_cityscapes(cityscapes_source(archives, cache).load(cache), cityscapes)
