"""Against the published algorithm (Cheng et al., 2021, `mask_to_boundary`), with an erosion written out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hfseg import SegMetrics, UserError
from hfseg.metrics import boundary_areas
from hfseg.metrics.boundary import BANDS

IGNORE = 255


def erode(mask: np.ndarray, iterations: int) -> np.ndarray:
    """cv2.erode with a 3 x 3 kernel: the smallest of nine neighbours; what lies outside does not erode."""
    for _ in range(iterations):
        around = np.pad(mask, 1, constant_values=1)
        height, width = mask.shape
        mask = np.min([around[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return mask


def mask_to_boundary(mask: np.ndarray, dilation_ratio: float = 0.02) -> np.ndarray:
    """The paper's: a border of zeros, so that masks cut off by the image's border end there, then the erosion."""
    height, width = mask.shape
    dilation = max(1, round(dilation_ratio * np.sqrt(height**2 + width**2)))
    return mask - erode(np.pad(mask, 1), dilation)[1:-1, 1:-1]


def reference_boundary(prediction: np.ndarray, label: np.ndarray, num_labels: int) -> list[list[int]]:
    """Intersection and union of each class's boundaries; predictions where the label is ignored are ignored."""
    pairs = []
    for index in range(num_labels):
        truth = mask_to_boundary((label == index).astype(np.uint8))
        guess = mask_to_boundary(((prediction == index) & (label != IGNORE)).astype(np.uint8))
        pairs.append([int((truth & guess).sum()), int((truth | guess).sum())])
    return pairs


def reference_band(prediction: np.ndarray, label: np.ndarray, num_labels: int, width: int) -> list[list[int]]:
    """Hits, labelled and predicted pixels in the band, pixel by pixel."""
    counts = [[0] * num_labels for _ in range(3)]
    for y, x in np.argwhere(label != IGNORE):
        window = label[max(0, y - width) : y + width + 1, max(0, x - width) : x + width + 1]
        if (window != label[y, x]).any():
            counts[0][label[y, x]] += prediction[y, x] == label[y, x]
            counts[1][label[y, x]] += 1
            counts[2][prediction[y, x]] += 1
    return counts


def random_map(rng: np.random.Generator, height: int, width: int, num_labels: int, ignore: bool) -> np.ndarray:
    """Rectangles over each other, many of them across the image's border, and some single pixels."""
    ids = np.full((height, width), rng.integers(num_labels))
    for _ in range(rng.integers(0, 7)):
        y, x = rng.integers(-9, height), rng.integers(-9, width)
        value = IGNORE if ignore and rng.random() < 0.25 else rng.integers(num_labels)
        ids[max(0, y) : max(0, y + rng.integers(3, 40)), max(0, x) : max(0, x + rng.integers(3, 40))] = value
    for _ in range(rng.integers(0, 4)):
        ids[rng.integers(height), rng.integers(width)] = rng.integers(num_labels)
    return ids


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 110), st.integers(1, 110), st.integers(2, 5), st.booleans())
def test_equals_the_published_algorithm(seed: int, height: int, width: int, num_labels: int, ignore: bool) -> None:
    rng = np.random.default_rng(seed)
    labels = [random_map(rng, height, width, num_labels, ignore) for _ in range(2)]
    predictions = [random_map(rng, height, width, num_labels, ignore=False) for _ in range(2)]
    areas = boundary_areas(
        torch.as_tensor(np.stack(predictions)), torch.as_tensor(np.stack(labels)), num_labels, IGNORE
    )
    for image, (prediction, label) in enumerate(zip(predictions, labels, strict=True)):
        hits, labelled, predicted = areas[image, 0]
        ours = torch.stack([hits, labelled + predicted - hits], dim=1)
        assert ours.tolist() == reference_boundary(prediction, label, num_labels)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 30))
def test_bands_equal_a_loop_over_pixels(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    label, prediction = random_map(rng, height, width, 3, True), random_map(rng, height, width, 3, False)
    areas = boundary_areas(torch.as_tensor(prediction)[None], torch.as_tensor(label)[None], 3, IGNORE)
    for band, distance in zip(areas[0, 1:].tolist(), BANDS, strict=True):
        assert band == reference_band(prediction, label, 3, distance)


def test_in_metrics_by_batch_by_image_and_merged() -> None:
    rng = np.random.default_rng(0)
    labels = np.stack([random_map(rng, 60, 80, 3, True) for _ in range(4)])
    predictions = np.stack([random_map(rng, 60, 80, 3, False) for _ in range(4)])
    whole, parts = SegMetrics(3, boundary=True), [SegMetrics(3, boundary=True) for _ in range(2)]
    whole.update(predictions.astype(np.uint8), labels.astype(np.uint8))
    for index, part in enumerate(parts):
        part.update(list(predictions[2 * index : 2 * index + 2]), list(labels[2 * index : 2 * index + 2]))
    parts[0].merge(parts[1])
    assert parts[0].compute() == whole.compute()
    pairs = np.sum([reference_boundary(*maps, 3) for maps in zip(predictions, labels, strict=True)], axis=0)
    results = whole.compute()
    assert results["per_category_boundary_iou"] == pytest.approx((pairs[:, 0] / pairs[:, 1]).tolist(), rel=1e-12)
    assert results["boundary_iou"] == pytest.approx((pairs[:, 0] / pairs[:, 1]).mean(), rel=1e-12)
    assert whole.per_class()[1]["boundary_iou"] == results["per_category_boundary_iou"][1]
    assert [key for key in results if key.startswith("band_")] == [f"band_iou_{width}px" for width in (1, 3, 5, 9)]
    whole.reset()
    assert np.isnan(whole.compute()["boundary_iou"])


def test_a_perfect_prediction_scores_one_beside_ignored_pixels() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[:20], label[10:30, 10:30] = 1, IGNORE
    metrics = SegMetrics(2, boundary=True)
    metrics.update(np.where(label == IGNORE, 0, label), label)
    results = metrics.compute()
    assert [results[key] for key in ("boundary_iou", "band_iou_1px", "band_iou_9px")] == [1, 1, 1]


def test_a_shift_costs_the_narrow_band_most() -> None:
    label = np.zeros((200, 200), np.uint8)
    label[:, 100:] = 1
    metrics = SegMetrics(2, boundary=True)
    metrics.update(np.roll(label, 2, axis=1) * (np.arange(200) > 50), label)
    results = metrics.compute()
    scores = [results[key] for key in ("band_iou_1px", "band_iou_3px", "band_iou_5px", "band_iou_9px", "mean_iou")]
    assert scores == sorted(scores)
    assert results["boundary_iou"] < results["mean_iou"]


def test_counts_show_no_contours_and_other_kinds_do_not_merge() -> None:
    metrics = SegMetrics(2, boundary=True)
    with pytest.raises(UserError, match="needs counts near contours"):
        metrics.update_counts(torch.zeros(1, 3, 2, dtype=torch.int64))
    with pytest.raises(UserError, match="boundary=False into boundary=True"):
        metrics.merge(SegMetrics(2))
