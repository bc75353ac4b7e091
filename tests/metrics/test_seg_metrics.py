from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EvalPrediction

from hfseg import LabelSet, SegMetrics, UserError
from hfseg.metrics import best_constant_mean_iou, class_keys
from tests.builders import Masks, evaluate_mean_iou, mask_cases
from tests.extras import needs

TYPES = ("uint8", "int8", "uint16", "int16", "int32", "uint32", "int64", "uint64")


def brute_force(predictions: Masks, references: Masks, num_labels: int, ignore_index: int) -> list[list[int]]:
    """Counts pixel by pixel."""
    counts = [[0] * num_labels for _ in range(num_labels)]
    for prediction, reference in zip(predictions, references, strict=True):
        for predicted, label in zip(prediction.ravel().tolist(), reference.ravel().tolist(), strict=True):
            if label != ignore_index:
                counts[label][predicted] += 1
    return counts


@settings(max_examples=150, deadline=None)
@given(mask_cases())
def test_equals_brute_force_and_evaluate(case: tuple[int, int, Masks, Masks]) -> None:
    num_labels, ignore_index, predictions, references = case
    metrics = SegMetrics(num_labels, ignore_index=ignore_index)
    metrics.update(predictions, references)
    assert metrics.confusion.tolist() == brute_force(predictions, references, num_labels, ignore_index)
    assert metrics.num_ignored == sum((reference == ignore_index).sum() for reference in references)
    results = metrics.compute()
    for key, value in evaluate_mean_iou(predictions, references, num_labels, ignore_index).items():
        np.testing.assert_allclose(results[key], value, rtol=1e-12, err_msg=key)


@settings(max_examples=50, deadline=None)
@given(mask_cases(), st.randoms())
def test_merging_in_any_order_gives_the_same_integers(case: tuple[int, int, Masks, Masks], random: Any) -> None:
    num_labels, ignore_index, predictions, references = case
    whole = SegMetrics(num_labels, ignore_index=ignore_index, per_image=True)
    whole.update(predictions, references)
    parts = []
    for prediction, reference in zip(predictions, references, strict=True):
        parts.append(SegMetrics(num_labels, ignore_index=ignore_index, per_image=True))
        parts[-1].update(prediction, reference)
    random.shuffle(parts)
    for part in parts[1:]:
        parts[0].merge(part)
    assert parts[0].confusion.tolist() == whole.confusion.tolist()
    assert parts[0].num_ignored == whole.num_ignored
    assert sorted(parts[0].image_areas.tolist()) == sorted(whole.image_areas.tolist())
    assert parts[0].ignored.tolist() == whole.ignored.tolist()
    assert len(parts[0].per_image_confusion) == len(predictions)
    assert sum(whole.per_image_confusion).tolist() == whole.confusion.tolist()


def test_equals_cityscapes_scripts() -> None:
    needs("cityscapes")
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as scripts
    from cityscapesscripts.helpers.labels import labels as table

    rng = np.random.default_rng(0)
    ids = [label.id for label in table if label.id >= 0]
    truth, predicted = rng.choice(ids, (2, 64, 48))
    scripts.args.evalLabels = ids
    scripts.args.avgClassSize, scripts.args.evalInstLevelScore = {}, False
    confusion = scripts.generateMatrix(scripts.args)
    for row, column in zip(truth.ravel(), predicted.ravel(), strict=True):
        confusion[row, column] += 1
    theirs = {
        label.trainId: scripts.getIouScoreForLabel(label.id, confusion, scripts.args)
        for label in table
        if not label.ignoreInEval
    }

    # The same maps in train ids. Void labels are ignored, but void predictions are misses: here class 19.
    to_train = np.full(256, 255)
    for label in table:
        if label.id >= 0 and not label.ignoreInEval:
            to_train[label.id] = label.trainId
    metrics = SegMetrics(20)
    metrics.update(np.where(to_train[predicted] == 255, 19, to_train[predicted]), to_train[truth])
    ours = metrics.compute()["per_category_iou"]
    assert len(theirs) == 19
    np.testing.assert_allclose(ours[:19], [theirs[index] for index in range(19)], rtol=1e-12)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_any_integer_type(kind: str, library: str) -> None:
    prediction, reference = np.array([[0, 1, 2, 1]], dtype=kind), np.array([[0, 1, 1, 3]], dtype=kind)
    if library == "torch":
        prediction, reference = torch.from_numpy(prediction), torch.from_numpy(reference)
    metrics = SegMetrics(3, ignore_index=3)
    metrics.update(prediction, reference)
    assert metrics.confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 0]]


def test_undefined_values_are_nan_and_null_in_logs() -> None:
    metrics = SegMetrics(LabelSet(["pet", "back ground"]))
    assert np.isnan(metrics.compute()["mean_iou"])
    metrics.update(np.zeros((2, 2), int), np.zeros((2, 2), int))
    logged = metrics(EvalPrediction(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int)))
    assert logged["mean_iou"] == 1.0
    assert logged["iou_back_ground"] is None


@pytest.mark.parametrize(
    ("names", "keys"),
    [
        (["traffic light", "a_b", "B-52"], ["iou_traffic_light", "iou_a_b", "iou_B_52"]),
        (["天空", "道路", "Straße"], ["iou_天空", "iou_道路", "iou_Straße"]),
        (["a-b", "a_b", "c"], ["iou_a_b_0", "iou_a_b_1", "iou_c"]),
        (["a b", "a_b", "a_b_0"], ["iou_a_b_0_0", "iou_a_b_1", "iou_a_b_0"]),
        ([" ", "\t", "mean_iou"], ["iou___0", "iou___1", "iou_mean_iou"]),
        (["Road", "road", "\x1b[31m"], ["iou_Road", "iou_road", "iou___31m"]),
    ],
)
def test_keys_of_any_class_names(names: list[str], keys: list[str]) -> None:
    assert class_keys(names) == keys
    metrics = SegMetrics(LabelSet(names))
    before = metrics(EvalPrediction(np.zeros((1, 1, 1), int), np.full((1, 1, 1), 255)))
    after = metrics(EvalPrediction(np.full((1, 1, 1), 2), np.full((1, 1, 1), 2)))
    assert list(before) == list(after)  # whatever is in the split
    assert list(after)[-len(names) :] == keys
    assert [after[key] for key in keys] == [None, None, 1.0]
    assert after["mean_iou"] == 1.0


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(alphabet="ab_-01", max_size=5), min_size=1, max_size=12, unique=True))
def test_keys_are_unique(names: list[str]) -> None:
    assert len(set(class_keys(names))) == len(names)


def test_predictions_under_ignored_labels_are_not_looked_at() -> None:
    metrics = SegMetrics(2)
    labels = np.array([[0, 1, 255]])
    metrics.update(labels, labels)
    assert metrics.compute()["mean_iou"] == 1.0


@pytest.mark.parametrize(
    ("prediction", "reference", "said"),
    [
        ([[0, 1]], [[0, 2]], "Label ids [2] in image 0"),
        ([[0, 2]], [[0, 1]], "Prediction ids [2] in image 0"),
        ([[0, -1]], [[0, 1]], "Prediction ids [-1]"),
        ([[0, 1]], [[0, -1]], "Label ids [-1]"),
        ([[0, 1]], [[0, 1, 1]], "shape"),
        ([[0.0, 1.0]], [[0, 1]], "integer class ids"),
        ([0, 1], [0, 1], "(H, W)"),
    ],
)
def test_bad_input_is_named(prediction: Any, reference: Any, said: str) -> None:
    metrics = SegMetrics(2)
    with pytest.raises(UserError) as error:
        metrics.update(np.array(prediction), np.array(reference))
    assert said in str(error.value)
    assert metrics.confusion.sum() == 0


def test_lists_of_different_lengths_and_other_classes() -> None:
    with pytest.raises(UserError, match="1 predictions for 2"):
        SegMetrics(2).update([np.zeros((1, 1), int)], [np.zeros((1, 1), int)] * 2)
    with pytest.raises(UserError, match="Cannot merge"):
        SegMetrics(2).merge(SegMetrics(3))


def test_as_compute_metrics_of_logits_in_batches() -> None:
    logits, reference = torch.randn(4, 3, 5, 6), torch.randint(0, 3, (4, 20, 24))
    expected = SegMetrics(3)
    upsampled = torch.nn.functional.interpolate(logits, size=(20, 24), mode="bilinear", align_corners=False)
    expected.update(upsampled.argmax(1), reference)
    metrics = SegMetrics(3)
    for _ in range(2):  # the second evaluation starts from zero
        assert metrics(EvalPrediction(logits[:2], reference[:2]), compute_result=False) == {}
        results = metrics(EvalPrediction(logits[2:], reference[2:]), compute_result=True)
        assert results["mean_iou"] == expected.compute()["mean_iou"]
        assert metrics.confusion.tolist() == expected.confusion.tolist()


def test_best_constant_answer() -> None:
    assert best_constant_mean_iou([30, 60, 10]) == (1, pytest.approx(0.6 / 3))
    assert best_constant_mean_iou([30, 60, 0]) == (1, pytest.approx(60 / 90 / 2))


def test_all_scores_of_a_small_case_by_hand() -> None:
    """Two images of 4 and 6 valid pixels; class 2 is predicted only, class 3 nowhere."""
    predictions = [np.array([[0, 0, 1, 2]]), np.array([[1, 1, 1, 1, 1, 0, 0]])]
    references = [np.array([[0, 0, 1, 1]]), np.array([[1, 1, 1, 1, 0, 0, 255]])]
    metrics = SegMetrics(4)
    metrics.update(predictions, references)
    results = metrics.compute()
    assert metrics.image_areas.tolist() == [
        [[2, 1, 0, 0], [2, 2, 0, 0], [2, 1, 1, 0]], [[1, 4, 0, 0], [2, 4, 0, 0], [1, 5, 0, 0]],
    ]  # fmt: skip
    iou = [3 / 4, 5 / 7, 0, np.nan]
    np.testing.assert_allclose(results["per_category_iou"], iou)
    np.testing.assert_allclose(results["per_category_dice"], [6 / 7, 10 / 12, 0, np.nan])
    np.testing.assert_allclose(results["per_category_precision"], [3 / 3, 5 / 6, 0, np.nan])
    np.testing.assert_allclose(results["per_category_recall"], [3 / 4, 5 / 6, np.nan, np.nan])
    assert results["mean_dice"] == pytest.approx((6 / 7 + 10 / 12) / 3)
    assert results["mean_precision"] == pytest.approx((1 + 5 / 6) / 3)
    assert results["frequency_weighted_iou"] == pytest.approx(0.4 * iou[0] + 0.6 * iou[1])
    images = [(2 / 2 + 1 / 2 + 0) / 3, (1 / 2 + 4 / 5) / 2]
    assert results["mean_image_iou"] == pytest.approx(np.mean(images))
    assert (results["worst_image"], results["worst_image_iou"]) == (0, pytest.approx(images[0]))
    assert metrics.per_class()[0] == {
        "name": "0", "iou": 3 / 4, "accuracy": 3 / 4, "dice": 6 / 7, "precision": 1, "recall": 3 / 4, "pixels": 4,
    }  # fmt: skip
    assert metrics.ignored.tolist() == [1, 0, 0, 0]


def test_images_without_valid_pixels_are_no_worst_image() -> None:
    metrics = SegMetrics(2)
    assert metrics(EvalPrediction(np.zeros((1, 1, 2), int), np.full((1, 1, 2), 255)))["worst_image"] is None
    metrics.reset()
    metrics.update([np.array([[0, 0]]), np.array([[1, 0]])], [np.array([[255, 255]]), np.array([[1, 1]])])
    assert metrics.compute()["worst_image"] == 1
