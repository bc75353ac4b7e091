"""The drawn pets: official layout, the same bytes always, and out of reach of a colour lookup."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from hfseg.data.drawn import write_synthetic_pet

TRAINVAL, TEST, SIZE = 120, 60, 96
IDS = {  # class id, species, breed id: classes by name as the official ones are, breeds counted within a species
    "Charcoal_Shorthair": "1 1 1",
    "crayon_hound": "2 2 1",
    "Paper_Tabby": "3 1 2",
    "pencil_terrier": "4 2 2",
}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """A network this small is many times slower when two threads wait for each other on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic") / "pets"
    write_synthetic_pet(root, num_trainval=TRAINVAL, num_test=TEST, size=SIZE, seed=0)
    return root


def _lines(root: Path, split: str) -> list[str]:
    return (root / "annotations" / f"{split}.txt").read_text().splitlines()


def _names(root: Path, split: str) -> list[str]:
    return [line.split()[0] for line in _lines(root, split)]


def _pair(root: Path, name: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    image = Image.open(root / "images" / f"{name}.jpg")
    trimap = Image.open(root / "annotations" / "trimaps" / f"{name}.png")
    assert (image.format, image.mode, trimap.format, trimap.mode) == ("JPEG", "RGB", "PNG", "L")
    return np.asarray(image), np.asarray(trimap)


def _bytes(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_layout_and_lists_are_the_official_ones(pets: Path) -> None:
    names = _names(pets, "list")
    expected = {"annotations/list.txt", "annotations/trainval.txt", "annotations/test.txt"}
    expected |= {f"images/{name}.jpg" for name in names} | {f"annotations/trimaps/{name}.png" for name in names}
    assert set(_bytes(pets)) == expected
    for split in ("trainval", "test", "list"):
        for line in _lines(pets, split):
            name, ids = line.split(" ", 1)
            breed, number = name.rsplit("_", 1)
            assert ids == IDS[breed]
            assert int(number) > 0
    trainval, test = _lines(pets, "trainval"), _lines(pets, "test")
    assert set(trainval).isdisjoint(test)
    assert sorted(trainval + test) == sorted(_lines(pets, "list"))
    assert len(set(names)) == len(names) == TRAINVAL + TEST


def test_breeds_are_spread_evenly(pets: Path) -> None:
    for split, count in (("trainval", TRAINVAL), ("test", TEST)):
        breeds = [name.rsplit("_", 1)[0] for name in _names(pets, split)]
        assert {breed: breeds.count(breed) for breed in breeds} == dict.fromkeys(IDS, count // len(IDS))


def test_trimaps_are_pet_background_and_a_ring_between_them(pets: Path) -> None:
    shapes, shares = set(), []
    for name in _names(pets, "list"):
        image, trimap = _pair(pets, name)
        assert image.shape == (*trimap.shape, 3)
        assert max(trimap.shape) == SIZE
        assert set(np.unique(trimap)) == {1, 2, 3}
        for one, other in ((trimap[1:], trimap[:-1]), (trimap[:, 1:], trimap[:, :-1])):
            assert not np.any((one != other) & (one != 3) & (other != 3)), f"{name}: pet touches background"
        shapes.add(trimap.shape)
        shares.append(np.mean(trimap == 3))
    assert len(shapes) >= 3, "the aspect ratios vary, as in the real set"
    assert 0.08 < np.mean(shares) < 0.15, "the real set has 13 %"


def test_same_seed_same_bytes_and_a_larger_set_contains_the_smaller(pets: Path, tmp_path: Path) -> None:
    for name, seed in (("again", 0), ("other", 1)):
        write_synthetic_pet(tmp_path / name, num_trainval=12, num_test=6, size=SIZE, seed=seed)
    write_synthetic_pet(tmp_path / "fewer", num_trainval=7, num_test=0, size=SIZE, seed=0)
    large, again, other, fewer = (
        _bytes(root) for root in (pets, *(tmp_path / n for n in ("again", "other", "fewer")))
    )
    for small in (again, fewer):
        pictures = {path: data for path, data in small.items() if not path.endswith(".txt")}
        assert pictures.items() <= large.items()
    assert set(_lines(tmp_path / "again", "trainval")) <= set(_lines(pets, "trainval"))
    assert set(_lines(tmp_path / "again", "test")) <= set(_lines(pets, "test"))
    assert all(other[path] != data for path, data in again.items() if not path.endswith(".txt"))
    write_synthetic_pet(tmp_path / "twice", num_trainval=12, num_test=6, size=SIZE, seed=0)
    assert _bytes(tmp_path / "twice") == again


def test_global_random_state_plays_no_part(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        np.random.seed(seed)
        write_synthetic_pet(tmp_path / name, num_trainval=3, num_test=1, size=64, seed=5)
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")


def test_what_exists_is_left_alone(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    root.mkdir()
    with pytest.raises(FileExistsError, match="pets"):
        write_synthetic_pet(root, num_trainval=1, num_test=1, size=64, seed=0)
    assert list(tmp_path.rglob("*")) == [root]


def test_a_killed_run_leaves_no_set_behind(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    counts = {"num_trainval": 100_000, "num_test": 1, "size": 64, "seed": 0}
    writer = multiprocessing.get_context("fork").Process(target=write_synthetic_pet, args=(root,), kwargs=counts)
    writer.start()
    deadline = time.monotonic() + 20
    while len(list(tmp_path.rglob("*.jpg"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    writer.kill()
    writer.join()
    assert len(list(tmp_path.rglob("*.jpg"))) >= 3, "it was killed while writing"
    assert not root.exists()
    write_synthetic_pet(root, num_trainval=1, num_test=1, size=64, seed=0)
    assert len(list((root / "images").iterdir())) == 2


def test_a_failed_run_cleans_up(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="negative"):  # numpy's word on such a seed, after the folders were made
        write_synthetic_pet(tmp_path / "pets", num_trainval=1, num_test=1, size=64, seed=-1)
    assert list(tmp_path.iterdir()) == []


def _pixels(root: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """120 pixels per image: (n, 5) of r, g, b, x, y in 0..1 and the class 0..2."""
    rng, features, classes = np.random.default_rng(0), [], []
    for name in _names(root, split):
        image, trimap = _pair(root, name)
        height, width = trimap.shape
        y, x = np.divmod(rng.choice(trimap.size, 120, replace=False), width)
        features.append(np.column_stack([image[y, x] / 255, x / width, y / height]))
        classes.append(trimap[y, x] - 1)
    return torch.tensor(np.concatenate(features)).float(), torch.tensor(np.concatenate(classes)).long()


def _network(features: torch.Tensor, classes: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    """Class probabilities from a small network on colour, position and their squares."""
    torch.manual_seed(0)
    train, test = (torch.cat([2 * x - 1, (2 * x - 1) ** 2], dim=1) for x in (features, unseen))
    net = torch.nn.Sequential(
        torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 32), torch.nn.ReLU(), torch.nn.Linear(32, 3)
    )
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(train), classes).backward()
        optimizer.step()
    with torch.no_grad():
        return net(test).softmax(dim=1)


def _lookup(features: torch.Tensor, classes: torch.Tensor, unseen: torch.Tensor) -> torch.Tensor:
    """Class probabilities read from a table over 5 x 5 x 5 colours and 5 x 5 places."""

    def cell(x: torch.Tensor) -> torch.Tensor:
        return ((x * 5).long().clamp(max=4) * torch.tensor([625, 125, 25, 5, 1])).sum(dim=1)

    counts = torch.bincount(cell(features) * 3 + classes, minlength=3125 * 3).reshape(3125, 3)
    smoothed = counts + 4 * torch.bincount(classes) / len(classes)
    return (smoothed / smoothed.sum(dim=1, keepdim=True))[cell(unseen)]


def _mean_iou(predicted: torch.Tensor, truth: torch.Tensor) -> float:
    confusion = torch.bincount(truth * 3 + predicted, minlength=9).reshape(3, 3).double()
    return float((confusion.diag() / (confusion.sum(0) + confusion.sum(1) - confusion.diag())).mean())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("classifier", [_network, _lookup])
def test_colour_and_position_do_not_give_the_class_away(pets: Path, classifier: Callable[..., torch.Tensor]) -> None:
    features, classes = _pixels(pets, "trainval")
    unseen, truth = _pixels(pets, "test")
    probabilities = classifier(features, classes, unseen)
    prior = torch.bincount(classes) / len(classes)
    # Dividing by the prior trades accuracy for rare classes; the classifier gets whichever trade suits it best.
    scores = [_mean_iou((probabilities / prior**power).argmax(dim=1), truth) for power in (0, 0.5, 0.75, 1)]
    assert 0.25 < max(scores) < 0.40, "below: the classifier is broken; above: the drawing leaks the class"
