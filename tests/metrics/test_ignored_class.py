"""An ignore index that is one of the classes: its pixels do not count and it has no score."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from hfseg import LabelSet, SegMetrics, UserError
from hfseg.config import LossConfig
from hfseg.doctor.diagnosis import count_classes, judge_classes
from hfseg.doctor.inspection import Inspection
from hfseg.metrics import compute_from_confusion, evaluate_metric
from hfseg.models import segmentation_loss
from hfseg.reporting.pictures import WRONG, error_map
from hfseg.runs import Example, compare_runs, write_counts
from tests.builders import audited, evaluate_mean_iou
from tests.extras import needs

Case = tuple[int, int, np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Classes, the ignored one, predictions and labels (B, H, W); some classes may be nowhere."""
    num_labels = draw(st.integers(2, 6))
    ignored = draw(st.integers(0, num_labels - 1))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 8), st.integers(1, 8)))
    predictions = rng.integers(0, rng.integers(1, num_labels + 1), shape)
    references = rng.integers(0, num_labels, shape)
    references.flat[0] = (ignored + 1) % num_labels  # at least one valid pixel
    return num_labels, ignored, predictions, references


@settings(max_examples=100, deadline=None)
@given(cases(), st.booleans(), st.booleans())
def test_equals_torchmetrics(case: Case, as_torch: bool, with_boundary: bool) -> None:
    needs("peers")
    from torchmetrics.classification import MulticlassJaccardIndex

    num_labels, ignored, predictions, references = case
    ours = SegMetrics(num_labels, ignored, boundary=with_boundary)
    pair = (torch.as_tensor(predictions), torch.as_tensor(references))
    ours.update(*(pair if as_torch else (predictions, references)))
    results = ours.compute()
    theirs = {
        average: MulticlassJaccardIndex(num_labels, average=average, ignore_index=ignored)(*pair)
        for average in ("macro", "micro", "weighted", "none")
    }
    assert results["mean_iou"] == pytest.approx(float(theirs["macro"]), rel=1e-6)
    assert results["frequency_weighted_iou"] == pytest.approx(float(theirs["weighted"]), rel=1e-6)
    for index, (iou, accuracy) in enumerate(
        zip(results["per_category_iou"], results["per_category_accuracy"], strict=True)
    ):
        if index == ignored:
            assert np.isnan(iou)
            assert np.isnan(accuracy)
        elif not np.isnan(iou):
            assert iou == pytest.approx(float(theirs["none"][index]), rel=1e-6)
    values = audited(list(predictions), list(references), num_labels, ignored)
    for average in ("macro", "micro", "weighted"):
        expected = float(theirs[average])
        assert values[f"torchmetrics JaccardIndex(average='{average}')"] == pytest.approx(expected, rel=1e-6)


@settings(max_examples=50, deadline=None)
@given(cases())
def test_evaluate_scores_the_class_where_it_is_predicted(case: Case) -> None:
    num_labels, ignored, predictions, references = case
    values = audited(list(predictions), list(references), num_labels, ignored)
    for parameter, key in (
        (ignored, "evaluate mean_iou(ignore_index=255)"),
        (0, "evaluate mean_iou(ignore_index=0), as in transformers' examples"),
    ):
        if (references != parameter).any():
            expected = evaluate_mean_iou(list(predictions), list(references), num_labels, parameter)["mean_iou"]
            assert values[key] == pytest.approx(expected)


def example() -> tuple[LabelSet, np.ndarray, np.ndarray]:
    """Classes a, void, b: two pixels of a and one of b count; one of a is predicted as void."""
    labels = LabelSet(["a", "void", "b"], ignore_index=1)
    return labels, np.array([[0, 1, 2, 0, 2]]), np.array([[0, 0, 2, 1, 1]])


def test_rows_keys_and_categories() -> None:
    labels, predictions, references = example()
    metrics = SegMetrics(labels, boundary=True)
    metrics.update(predictions, references)
    assert [row["iou"] for row in metrics.per_class()] == [0.5, None, 1.0]
    assert [row["boundary_iou"] for row in metrics.per_class()] == [0.5, None, 1.0]
    assert [row["pixels"] for row in metrics.per_class()] == [2, 0, 1]
    results = metrics.compute()
    assert (results["mean_iou"], results["boundary_iou"], results["pixel_accuracy"]) == (0.75, 0.75, 2 / 3)
    assert (results["num_pixels"], results["num_ignored"], results["mean_precision"]) == (3, 2, 1.0)
    assert metrics.confusion.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    assert metrics.category_iou({"a": "x", "b": "x"}) == {"x": 2 / 3}
    assert metrics.interval().value == 0.75
    assert compute_from_confusion(metrics.confusion, 1)["mean_iou"] == 0.75
    metric = evaluate_metric(labels)
    assert metric.compute(predictions=[predictions], references=[references])["mean_iou"] == 0.75


def test_merging_and_comparing(tmp_path: Path) -> None:
    labels, predictions, references = example()
    better, worse = SegMetrics(labels), SegMetrics(labels)
    for metrics, guess in ((worse, predictions), (better, np.where(references == 1, 0, references))):
        metrics.update(guess, references)
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        arrays = {"names": np.array(["x"]), "areas": metrics.image_areas, "confusion": metrics.confusion}
        pairs = {f"{split}_{key}": value for split in ("eval", "test") for key, value in arrays.items()}
        write_counts(folder, {"classes": np.array(labels.names), **pairs})
    assert compare_runs(tmp_path / "0", tmp_path / "1").value == worse.compare(better).value == 0.25
    worse.merge(better)
    assert worse.compute()["mean_iou"] == pytest.approx((3 / 4 + 1) / 2)
    with pytest.raises(UserError, match="ignore_index=255 into ignore_index=1"):
        worse.merge(SegMetrics(LabelSet(labels.names)))


def test_confidence_leaves_its_pixels_out() -> None:
    logits, labels = torch.randn(2, 3, 6, 6), torch.randint(0, 3, (2, 6, 6))
    as_class, as_void = SegMetrics(3, 1, calibration=True), SegMetrics(3, calibration=True)
    as_class.update_logits(logits, labels)
    as_void.update_logits(logits, labels.masked_fill(labels == 1, 255))
    for key in ("ece", "brier", "pixel_accuracy", "num_ignored"):
        assert as_class.compute()[key] == as_void.compute()[key]
    assert as_class.fit_temperature() == as_void.fit_temperature()


@pytest.mark.parametrize(
    "options",
    [
        LossConfig(),
        LossConfig(dice=1.0),
        LossConfig(ohem=0.7, label_smoothing=0.1),
        LossConfig(class_weights=[1.0, 3.0, 2.0]),
    ],
)
def test_loss_and_gradient_are_those_of_a_void_label(options: LossConfig) -> None:
    labels = torch.randint(0, 3, (2, 8, 8))
    found = []
    for ignored, given_labels in ((1, labels), (255, labels.masked_fill(labels == 1, 255))):
        logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
        loss = segmentation_loss(logits, given_labels, ignored, options)
        loss.mean.backward()
        found.append((loss.total.detach(), loss.confusion, logits.grad))
    for first, second in zip(*found, strict=True):
        torch.testing.assert_close(first, second)
    if options == LossConfig():
        logits = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        wide = F.interpolate(logits, size=(8, 8), mode="bilinear")
        torch.testing.assert_close(found[0][0], F.cross_entropy(wide, labels, ignore_index=1, reduction="sum"))


@pytest.mark.parametrize(("ignore_index", "alias"), [(300, 44), (-100, 156)])
def test_an_index_that_bytes_cannot_hold_ignores_none_of_them(ignore_index: int, alias: int) -> None:
    """torch compares a byte with the lowest eight bits of a number."""
    references = torch.full((1, 4, 4), alias, dtype=torch.uint8)
    metrics = SegMetrics(200, ignore_index, boundary=True)
    metrics.update(references, references)
    assert metrics.num_ignored == 0
    assert metrics.confusion[alias, alias] == 16
    assert metrics.compute()["boundary_iou"] == 1


def test_the_doctor_does_not_miss_it_and_pictures_do_not_blame_it() -> None:
    labels, predictions, references = example()
    found = Inspection("train", "x", "x.jpg", "x.png", values={0: 2, 1: 2, 2: 1})
    pixels, _ = count_classes([found], labels)
    assert pixels["train"].tolist() == [2, 0, 1, 2]
    assert judge_classes(pixels, labels) == []
    picture = error_map(Example("x", Image.new("RGB", (5, 1)), references, predictions, 0.75), labels)
    assert [tuple(pixel) == WRONG for pixel in picture[0].tolist()] == [False, True, False, False, False]
