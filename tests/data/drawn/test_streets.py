"""The drawn streets: official layout and ids, the same bytes always, and out of reach of a colour lookup."""

import glob
import multiprocessing
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.helpers.csHelpers import getCsFileInfo
from cityscapesscripts.helpers.labels import id2label, name2label
from numpy.typing import NDArray
from PIL import Image
from torch.nn.functional import avg_pool2d

from hfseg.data.drawn import write_synthetic_cityscapes

COUNTS, SIZE = {"train": 40, "val": 12, "test": 2}, 128
TRAIN_IDS = np.array([id2label[i].trainId if i in id2label else -1 for i in range(256)])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A network this small is many times slower when two threads wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def _write(root: Path, train: int, val: int, test: int, seed: int = 0, size: int = SIZE) -> Path:
    write_synthetic_cityscapes(root, num_train=train, num_val=val, num_test=test, size=size, seed=seed)
    return root


@pytest.fixture(scope="module")
def streets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write(tmp_path_factory.mktemp("synthetic") / "streets", *COUNTS.values())


def _pairs(root: Path, split: str) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Pictures and ids, found by the official evaluation script's own pattern."""
    pairs = []
    for mask in sorted(glob.glob(str(root / "gtFine" / split / "*" / "*_gtFine_labelIds.png"))):
        picture = mask.replace("gtFine_labelIds", "leftImg8bit").replace("gtFine", "leftImg8bit")
        image, labels = Image.open(picture), Image.open(mask)
        assert (image.format, image.mode, labels.format, labels.mode) == ("PNG", "RGB", "PNG", "L")
        assert image.size == labels.size == (SIZE, SIZE // 2)
        pairs.append((np.asarray(image), np.asarray(labels)))
    return pairs


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_names_and_folders_are_the_official_ones(streets: Path) -> None:
    cities: dict[str, set[str]] = {}
    for split, count in COUNTS.items():
        images = sorted((streets / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        masks = sorted((streets / "gtFine" / split).glob("*/*_gtFine_labelIds.png"))
        assert len(images) == len(masks) == count
        for image, mask in zip(images, masks, strict=True):
            one, other = getCsFileInfo(str(image)), getCsFileInfo(str(mask))
            assert one[:3] == other[:3]
            assert (one.type, one.type2, one.ext) == ("leftImg8bit", "", "png")
            assert (other.type, other.type2, other.ext) == ("gtFine", "labelIds", "png")
            assert image.parent.name == mask.parent.name == one.city
            assert [len(number) for number in (one.sequenceNb, one.frameNb)] == [6, 6]
        cities[split] = {image.parent.name for image in images}
    assert len(_bytes(streets)) == 2 * sum(COUNTS.values()), "and nothing else"
    assert len(set.union(*cities.values())) == sum(map(len, cities.values())), "no city is in two splits"


def test_ids_are_official_label_ids_and_every_class_occurs(streets: Path) -> None:
    for split in ("train", "val"):
        labels = np.stack([labels for _, labels in _pairs(streets, split)])
        ids = set(np.unique(labels).tolist())
        assert ids <= set(id2label) - {-1}
        assert max(ids) == 33, "labelIds, not trainIds"
        if split == "train":
            assert set(TRAIN_IDS[list(ids)].tolist()) == {*range(19), 255}
            assert {name2label[name].id for name in ("static", "dynamic", "ego vehicle", "out of roi")} <= ids


def test_shares_of_the_classes_are_those_of_a_street(streets: Path) -> None:
    labels = np.stack([labels for _, labels in _pairs(streets, "train")])
    share = {label.name: float(np.mean(labels == label.id)) for label in id2label.values()}
    large = ("road", "building", "vegetation", "sky")
    assert 0.2 < share["road"] < 0.45
    assert sum(share[name] for name in large) > 0.55
    for name in ("rider", "train", "motorcycle", "wall", "bicycle", "person", "traffic light", "fence"):
        assert 0.0003 < share[name] < 0.03, name
        assert share[name] < min(share[big] for big in large) / 2, name
    void = np.mean(TRAIN_IDS[labels] == 255, axis=(1, 2))
    assert 0.04 < void.mean() < 0.15, "the real set has 11 %"
    assert void.min() > 0.03
    assert set(np.unique(labels[:, -1])) == {name2label["out of roi"].id}


def test_the_test_split_publishes_what_calibration_knows(streets: Path) -> None:
    for image, labels in _pairs(streets, "test"):
        assert set(np.unique(labels)) == {0, 1, 2, 3}
        assert np.mean(labels == 0) > 0.85
        assert image.std() > 20, "the pictures themselves are like the others"


@pytest.mark.parametrize("axis", [0, 1])
def test_masks_fit_the_pictures_to_the_pixel(streets: Path, axis: int) -> None:
    """Neighbouring pixels differ most across the mask's edges, far more than one pixel beside them on either side."""
    steps: dict[int, list[float]] = {0: [], -1: [], 1: []}
    for image, labels in _pairs(streets, "train"):
        contrast = np.abs(np.diff(image.astype(float), axis=axis)).sum(2)
        edge = np.diff(labels.astype(int), axis=axis) != 0
        for moved, values in steps.items():
            values.append(contrast[3:-9, 4:-4][np.roll(edge, moved, axis=axis)[3:-9, 4:-4]].mean())
    on, before, after = (np.mean(steps[moved]) for moved in (0, -1, 1))
    assert on > 1.5 * max(before, after)


def test_same_seed_same_bytes_and_a_larger_set_contains_the_smaller(streets: Path, tmp_path: Path) -> None:
    large = _bytes(streets)
    np.random.seed(7)  # the global state plays no part
    small = _bytes(_write(tmp_path / "small", 4, 2, 1))
    assert len(small) == 14
    assert small.items() <= large.items()
    other = _bytes(_write(tmp_path / "other", 4, 2, 1, seed=1))
    assert small.keys() == other.keys()
    assert all(other[path] != data for path, data in small.items() if "/test/" not in path)
    assert not [
        path for path, data in _bytes(_write(tmp_path / "size", 1, 0, 0, size=96)).items() if data == large[path]
    ]


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "streets"
    root.mkdir()
    with pytest.raises(FileExistsError, match="streets"):
        _write(root, 1, 1, 1)
    assert list(tmp_path.rglob("*")) == [root]


def test_a_killed_run_leaves_no_set_behind(tmp_path: Path) -> None:
    root = tmp_path / "streets"
    writer = multiprocessing.get_context("fork").Process(target=_write, args=(root, 100_000, 1, 1))
    writer.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.rglob("*labelIds.png"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.kill()
    writer.join()
    assert len(list(tmp_path.rglob("*labelIds.png"))) >= 3, "it was killed while writing"
    assert not root.exists()
    assert len(_bytes(_write(root, 1, 1, 0))) == 4


def test_a_failed_run_cleans_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="negative"):  # numpy's word on such a seed, after the folders were made
        _write(tmp_path / "streets", 1, 1, 1, seed=-1)
    assert list(tmp_path.iterdir()) == []


def _pixels(root: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """400 valid pixels per picture: (n, 6), colour and mean colour of 5 x 5 pixels in -1..1, and the trainId."""
    rng, features, classes = np.random.default_rng(0), [], []
    for image, labels in _pairs(root, split):
        pixels = torch.tensor(image).permute(2, 0, 1).float() / 127.5 - 1
        both = torch.cat([pixels, avg_pool2d(pixels, 5, stride=1, padding=2, count_include_pad=False)]).flatten(1).T
        train_ids = TRAIN_IDS[labels].ravel()
        chosen = rng.choice(np.flatnonzero(train_ids != 255), 400, replace=False)
        features.append(both[chosen])
        classes.append(torch.tensor(train_ids[chosen]))
    return torch.cat(features), torch.cat(classes)


def _mean_iou(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    confusion = torch.bincount(truth * 19 + predicted, minlength=361).reshape(19, 19).double()
    union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
    return float((confusion.diag() / union)[union > 0].mean())


@pytest.mark.usefixtures("one_thread")
def test_colour_does_not_give_the_class_away(streets: Path) -> None:
    features, classes = _pixels(streets, "train")
    unseen, truth = _pixels(streets, "val")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(6, 48), torch.nn.ReLU(), torch.nn.Linear(48, 48), torch.nn.ReLU(), torch.nn.Linear(48, 19)
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(features), classes).backward()
        optimizer.step()
    with torch.no_grad():
        probabilities = network(unseen).softmax(dim=1)
    prior = (torch.bincount(classes, minlength=19) + 1) / len(classes)
    # Dividing by the prior trades accuracy for rare classes; the classifier gets whichever trade suits it best.
    scores = [_mean_iou((probabilities / prior**power).argmax(dim=1), truth) for power in (0, 0.25, 0.5, 0.75, 1)]
    chance = _mean_iou(torch.zeros_like(truth), truth)
    assert 3 * chance < max(scores) < 0.18, "below: the classifier is broken; above: the drawing leaks the class"
