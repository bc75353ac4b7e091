"""What `predict`, `predict_images` and `SegmentationPipeline` promise alike: one Predictor is behind all three."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedModel, SegformerForSemanticSegmentation, SegformerImageProcessor

from hfseg import LabelSet, SegmentationPipeline, UserError, predict, predict_images, push
from tests.builders import opinionated_model, tiny_model
from tests.hub.server import HubServer

PROCESSOR = SegformerImageProcessor(size={"height": 32, "width": 32})


def by_predict(source: str, photo: Path, folder: Path) -> NDArray[np.integer]:
    return predict(source, photo)[0]


def by_predict_images(source: str, photo: Path, folder: Path) -> NDArray[np.integer]:
    predict_images(photo, source, folder)
    return np.asarray(Image.open(folder / "masks" / f"{photo.stem}.png"))


def by_pipeline(source: str, photo: Path, folder: Path) -> NDArray[np.integer]:
    segment = SegmentationPipeline(source, device="cpu")
    parts = segment(str(photo))
    ids = np.zeros(parts[0]["mask"].size[::-1], dtype=np.int64)
    for part in parts:
        ids[np.asarray(part["mask"]) > 0] = segment.names.index(part["label"])
    return ids


DOORS = pytest.mark.parametrize("door", [by_predict, by_predict_images, by_pipeline])
Door = Callable[[str, Path, Path], NDArray[np.integer]]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(2).integers(0, 256, (41, 57, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def saved(model: PreTrainedModel, folder: Path) -> str:
    model.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return str(folder)


@DOORS
def test_scores_that_are_not_finite_are_refused(door: Door, photo: Path, tmp_path: Path, labels: LabelSet) -> None:
    model = tiny_model(labels)
    torch.nn.init.constant_(model.decode_head.classifier.weight, 3e38)  # finite, and its products are not
    with pytest.raises(UserError, match=r"class scores are not finite"):
        door(saved(model, tmp_path / "model"), photo, tmp_path / "out")


@DOORS
@pytest.mark.parametrize("num_classes", [3, 300])
def test_all_give_the_same_ids(door: Door, num_classes: int, photo: Path, tmp_path: Path) -> None:
    source = saved(opinionated_model(LabelSet([f"c{index}" for index in range(num_classes)])), tmp_path / "model")
    (expected,) = predict(source, photo)
    assert expected.dtype == (np.uint8 if num_classes <= 256 else np.uint16)
    assert len(np.unique(expected)) > 2
    assert np.array_equal(door(source, photo, tmp_path / "out"), expected)


@DOORS
def test_a_run_and_its_model_are_one_source(
    door: Door, photo: Path, tmp_path: Path, small_runs: dict[str, Path]
) -> None:
    run_dir = small_runs["segformer"]
    found = [door(str(source), photo, tmp_path / name) for name, source in (("a", run_dir), ("b", run_dir / "model"))]
    assert np.array_equal(*found)


@DOORS
def test_a_hub_id_is_a_source(
    door: Door, photo: Path, tmp_path: Path, small_runs: dict[str, Path], hub: HubServer
) -> None:
    push(small_runs["segformer"], "tester/pets")
    expected = door(str(small_runs["segformer"]), photo, tmp_path / "a")
    assert np.array_equal(door("tester/pets", photo, tmp_path / "b"), expected)


@pytest.fixture
def one_output(photo: Path, tmp_path: Path) -> str:
    """A model with one output, which finds its class in a part of the photo."""
    model = opinionated_model(LabelSet(["pet"]))
    with torch.no_grad():
        logits = model(**PROCESSOR(Image.open(photo), return_tensors="pt")).logits
        model.decode_head.classifier.bias -= logits.median()
    return saved(model, tmp_path / "model")


@DOORS
def test_one_output_is_a_class_and_everything_else(door: Door, photo: Path, tmp_path: Path, one_output: str) -> None:
    """Stock trains it by a sigmoid for each pixel: the class is where that is above 0.5."""
    stock = SegformerForSemanticSegmentation.from_pretrained(one_output).eval()
    with torch.no_grad():
        logits = stock(**PROCESSOR(Image.open(photo), return_tensors="pt")).logits
    probability = F.interpolate(logits, size=(41, 57), mode="bilinear").sigmoid()[0, 0].numpy()
    expected = probability > 0.5
    assert 0.1 < expected.mean() < 0.9
    assert np.array_equal(door(one_output, photo, tmp_path / "out"), expected)


def test_one_output_has_two_names_and_probabilities(photo: Path, tmp_path: Path, one_output: str) -> None:
    (ids,), (probabilities,) = predict(one_output, photo, return_probabilities=True)
    assert probabilities.shape == (2, 41, 57)
    assert np.array_equal(probabilities[1] > 0.5, ids == 1)
    parts = SegmentationPipeline(one_output)(str(photo), return_probabilities=True)
    assert [part["label"] for part in parts] == ["background", "pet"]
    for index, part in enumerate(parts):
        assert part["score"] == pytest.approx(probabilities[index][ids == index].mean(), abs=1e-6)
    predict_images(photo, one_output, tmp_path / "out")
    line = json.loads((tmp_path / "out" / "predictions.jsonl").read_text().splitlines()[0])
    assert line["shares"] == {"background": pytest.approx((ids == 0).mean()), "pet": pytest.approx((ids == 1).mean())}
