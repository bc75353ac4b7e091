"""`data.ignore_index`: from the masks through the cache, the batches and the loss to the scores."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hfseg import (
    DataConfig,
    LabelSet,
    RunConfig,
    SegCollator,
    SegMetrics,
    TrainSet,
    TrainTransform,
    TransformsConfig,
    UserError,
    load_dataset,
    run,
)
from hfseg.doctor import check_data

SIZE = (24, 40)
NAMES = ["sky", "road", "car"]


def draw(seed: int, void: int) -> NDArray[np.int16]:
    """Large areas of three classes and of void."""
    ids = np.kron(np.random.default_rng(seed).permutation(3).reshape(1, 3), np.ones((24, 14))).astype(np.int16)[:, :40]
    ids[4:9, 5:25] = void
    return ids


def save(ids: NDArray[np.int16], path: Path) -> None:
    if ids.min() >= 0:
        Image.fromarray(ids.astype(np.uint8)).save(path)
    else:
        Image.fromarray(ids.astype(np.int32)).save(path)


def make(root: Path, void: int, suffix: str = ".png") -> dict[str, NDArray[np.int16]]:
    truth = {}
    for split, count in {"train": 4, "val": 2, "test": 2}.items():
        for index in range(count):
            name = f"{split}/{index}"
            truth[name] = draw(len(truth), void)
            for folder in ("images", "masks"):
                (root / folder / split).mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(len(truth)).integers(0, 256, (*SIZE, 3), np.uint8)
            Image.fromarray(pixels).save(root / "images" / f"{name}.jpg")
            save(truth[name], root / "masks" / f"{name}{suffix}")
    (root / "classes.txt").write_text("\n".join(NAMES))
    return truth


def config(root: Path, **options: object) -> DataConfig:
    return DataConfig(name="folder", root=root, **options)


def assert_same(data: datasets.DatasetDict, truth: dict[str, NDArray[np.int16]]) -> None:
    for name, ids in truth.items():
        [row] = [row for split in data.values() for row in split if row["name"] == name]
        np.testing.assert_array_equal(np.asarray(row["label"]), ids)


@pytest.mark.parametrize(("void", "suffix"), [(4, ".png"), (-100, ".tif"), (-1, ".tif"), (255, ".png"), (3, ".png")])
def test_void_from_the_files_to_the_batch(tmp_path: Path, void: int, suffix: str) -> None:
    truth = make(tmp_path, void, suffix)
    data, labels = load_dataset(config(tmp_path, ignore_index=void))
    assert (labels.names, labels.ignore_index) == (tuple(NAMES), void)
    assert_same(data, truth)
    # larger than the images, so that a part of every sample is padding
    transform = TrainTransform(TransformsConfig(size=64, scale=None), [0.5] * 3, [0.5] * 3, labels.ignore_index)
    for cache in (False, True):
        samples = TrainSet(data["train"], transform, cache=cache)
        batch = SegCollator(labels)([samples[index] for index in range(4)])
        assert set(batch["labels"].unique().tolist()) == {void, 0, 1, 2}
    report = check_data(config(tmp_path, ignore_index=void))
    assert report.errors == []
    assert all(set(np.unique(tile.ids).tolist()) == {void, 0, 1, 2} for tile in report.tiles)
    assert report.pixels["train"][-1] == sum((ids == void).sum() for name, ids in truth.items() if "train" in name)


@pytest.mark.parametrize("void", [4, -100])
def test_the_doctor_and_the_loader_name_the_key(tmp_path: Path, void: int) -> None:
    make(tmp_path, void, ".png" if void > 0 else ".tif")
    with pytest.raises(UserError, match=f"If {void} is unlabelled, set data.ignore_index={void}"):
        load_dataset(config(tmp_path))
    findings = check_data(config(tmp_path)).errors
    assert len(findings) == 8
    assert all(f"If {void} is unlabelled, set data.ignore_index={void}" in finding.remedy for finding in findings)


def test_another_ignore_index_never_meets_an_old_cache(tmp_path: Path) -> None:
    truth = make(tmp_path, 255)
    assert_same(load_dataset(config(tmp_path))[0], truth)
    with pytest.raises(UserError, match=r"values \[255\](.|\n)*list it in the class file"):
        load_dataset(config(tmp_path, ignore_index=7))
    (tmp_path / "classes.txt").write_text("0 sky\n1 road\n2 car\n255 edge")  # as it says
    data, labels = load_dataset(config(tmp_path, ignore_index=7))
    assert labels.ignore_index == 7
    assert_same(data, {name: np.where(ids == 255, 7, ids) for name, ids in truth.items()})


def test_what_means_nothing_is_refused(tmp_path: Path) -> None:
    for options in ({"reduce_labels": True, "ignore_index": 0}, {"ignore_index": 70000}, {"ignore_index": -101}):
        with pytest.raises(ValueError, match="ignore_index"):
            config(tmp_path, **options)
    with pytest.raises(ValueError, match="`ignore_index` is for folder and hub"):
        DataConfig(name="oxford_pet", ignore_index=3)


def test_rows_of_arrays(tmp_path: Path) -> None:
    ids = [draw(seed, -100) for seed in range(8)]
    images = [Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), np.uint8)) for seed in range(8)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Array2D(SIZE, "int16")})
    rows = datasets.Dataset.from_dict({"image": images, "label": ids}, features=features)
    rows.to_parquet(tmp_path / "train.parquet")
    (tmp_path / "classes.txt").write_text("\n".join(NAMES))
    data, labels = load_dataset(DataConfig(name="hub", root=tmp_path, ignore_index=-100))
    assert labels.ignore_index == -100
    assert_same(data, {f"train-{index:06d}": each for index, each in enumerate(ids)})


def test_padding_does_not_count_in_bytes_either() -> None:
    """Labels of another data set may be bytes, which have no -100."""
    samples = [
        {"labels": torch.ones(size, dtype=torch.uint8), "pixel_values": torch.zeros(3, 4, 4), "name": str(size)}
        for size in ((4, 4), (4, 6))
    ]
    batch = SegCollator(LabelSet(NAMES, ignore_index=-100))(samples)
    assert batch["labels"].dtype == torch.int64
    assert batch["labels"].unique().tolist() == [-100, 1]
    transform = TrainTransform(TransformsConfig(size=32), [0.5] * 3, [0.5] * 3, ignore_index=-100)
    ids = np.tile(np.arange(20, dtype=np.uint8) // 10, (20, 1))
    padded = transform(np.zeros((20, 20, 3), np.uint8), ids, np.random.default_rng(2))[1]
    assert set(padded.unique().tolist()) <= {-100, 0, 1}


def test_a_class_that_is_ignored_has_no_score(tmp_path: Path) -> None:
    make(tmp_path / "data", 0)
    tree = {
        "name": "ignored", "output_dir": str(tmp_path / "run"),
        "data": {"name": "folder", "root": str(tmp_path / "data"), "ignore_index": 0},
        "transforms": {"size": 32}, "eval": {"size": 32},
        "train": {"max_steps": 1, "per_device_train_batch_size": 2},
    }  # fmt: skip
    metrics = run(RunConfig.from_tree(tree, "test"))
    assert metrics["eval_iou_sky"] is None
    assert metrics["test_iou_sky"] is None
    ious = [metrics["test_iou_road"], metrics["test_iou_car"]]
    assert metrics["test_mean_iou"] == pytest.approx(np.nanmean([np.nan if iou is None else iou for iou in ious]))
    assert SegMetrics(LabelSet(NAMES, ignore_index=0)).labels.ignore_index == 0


def test_a_split_of_one_class_is_said(tmp_path: Path) -> None:
    make(tmp_path, 255)
    for path in (tmp_path / "masks").glob("t*/*.png"):
        Image.fromarray(np.where(np.asarray(Image.open(path)) == 255, 255, 1).astype(np.uint8)).save(path)
    report = check_data(config(tmp_path))
    said = {finding.what: finding.severity for finding in report.findings if finding.fault == "one-class-split"}
    assert said == {
        f"of the {split} pixels that count, all are 'road': one answer is always right": severity
        for split, severity in (("train", "error"), ("test", "warning"))
    }
