"""Scores as arithmetic on areas: how many pixels of each class were hit, labelled and predicted.

An array of areas has shape (..., 3, K): hits, labelled and predicted pixels per class, of one image, of a data set, of
a thousand resamples. Every score here works on any leading dimensions and is NaN where it is not defined.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Scores = NDArray[np.float64]

SPLITS = {"test": "test", "eval": "validation"}  # prefix of a run's metrics -> what people call it


def areas_from_confusion(confusion: Counts) -> Counts:
    """Areas (..., 3, K) of confusion matrices (..., K, K) with labels as rows and predictions as columns."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([hits, confusion.sum(-1), confusion.sum(-2)], axis=-2)


def without_ignored(areas: Counts, ignore_index: int) -> Counts:
    """Areas (..., 3, K) in which a class that is the ignore index has no score: its union is empty.

    Its labels do not count anyway. Pixels of other classes that were predicted as it stay their classes' mistakes.
    """
    if not 0 <= ignore_index < areas.shape[-1]:
        return areas
    areas = areas.copy()
    areas[..., ignore_index] = 0
    return areas


def class_iou(areas: NDArray[Any]) -> Scores:
    """Intersection over union (..., K)."""
    hits, labelled, predicted = _split(areas)
    return _divide(hits, labelled + predicted - hits)


def mean_iou(areas: NDArray[Any]) -> Scores:
    """Mean IoU (...) over the classes whose union is not empty."""
    return mean_defined(class_iou(areas))


def pixel_accuracy(areas: NDArray[Any]) -> Scores:
    """Share (...) of the valid pixels that were hit."""
    hits, labelled, _ = _split(areas)
    return _divide(hits.sum(-1), labelled.sum(-1))


def frequency_weighted_iou(areas: NDArray[Any]) -> Scores:
    """IoU (...) averaged over classes with their labelled pixels as weights."""
    _, labelled, _ = _split(areas)
    return _divide((labelled * np.nan_to_num(class_iou(areas))).sum(-1), labelled.sum(-1))


def compute_from_areas(areas: NDArray[Any]) -> dict[str, Any]:
    """The scores of one data set's areas (3, K); see `SegMetrics.compute`."""
    hits, labelled, predicted = _split(areas)
    accuracy = _divide(hits, labelled)
    iou, dice, precision = class_iou(areas), _divide(2 * hits, labelled + predicted), _divide(hits, predicted)
    return {
        "mean_iou": float(mean_defined(iou)),
        "mean_accuracy": float(mean_defined(accuracy)),
        "pixel_accuracy": float(pixel_accuracy(areas)),
        "mean_dice": float(mean_defined(dice)),
        "mean_precision": float(mean_defined(precision)),
        "frequency_weighted_iou": float(frequency_weighted_iou(areas)),
        "per_category_iou": iou.tolist(),
        "per_category_accuracy": accuracy.tolist(),
        "per_category_dice": dice.tolist(),
        "per_category_precision": precision.tolist(),
        "per_category_recall": accuracy.tolist(),  # two names of one thing
        "num_pixels": int(labelled.sum()),
    }


def compute_from_confusion(confusion: Counts, ignore_index: int) -> dict[str, Any]:
    """The scores of one confusion matrix (K, K), rows labels and columns predictions; see `SegMetrics.compute`."""
    return compute_from_areas(without_ignored(areas_from_confusion(confusion), ignore_index))


def category_iou(confusion: Counts, categories: Sequence[str | None]) -> dict[str, float]:
    """IoU of groups of classes, as cityscapesScripts scores its categories: mistakes inside a group do not count.

    Args:
        confusion: (K, K), rows labels and columns predictions.
        categories: the group of each class, in class order; None for one that is ignored.
    """
    names = list(dict.fromkeys(name for name in categories if name is not None))
    member = np.array([[category == name for category in categories] for name in names], dtype=np.int64)
    hits = np.diagonal(member @ confusion @ member.T)
    iou = class_iou(np.stack([hits, member @ confusion.sum(1), member @ confusion.sum(0)]))
    return dict(zip(names, iou.tolist(), strict=True))


def best_constant_mean_iou(labelled: Iterable[int]) -> tuple[int, float]:
    """The class that scores best when it is predicted everywhere, and its mean IoU: what any model has to beat.

    Args:
        labelled: labelled pixels per class.
    """
    counts = np.asarray(list(labelled), dtype=np.int64)
    always = np.eye(len(counts), dtype=np.int64)  # row c: class c is the answer
    areas = np.stack([always * counts, np.broadcast_to(counts, always.shape), always * counts.sum()], axis=1)
    scores = mean_iou(areas)
    best = int(np.nanargmax(scores))
    return best, float(scores[best])


def class_keys(names: Sequence[str]) -> list[str]:
    """A key for each class: `iou_` and the name, in which all but letters and digits of any script is `_`.

    Where several classes would have the same key, each has its id appended. The keys depend on the names alone.

    Example:
        >>> class_keys(["traffic light", "a-b", "a_b", "\u5929\u7a7a"])
        ['iou_traffic_light', 'iou_a_b_1', 'iou_a_b_2', 'iou_\u5929\u7a7a']
    """
    keys = ["iou_" + re.sub(r"\W", "_", name) for name in names]
    number = Counter(keys)
    return [key if number[key] == 1 else _free_key(key, index, number) for index, key in enumerate(keys)]


def _free_key(key: str, index: int, taken: Mapping[str, int]) -> str:
    """With the id appended, more than once if a class is called so. No two ids give the same key."""
    while key in taken:
        key = f"{key}_{index}"
    return key


def flat_metrics(results: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """Numbers only, `iou_<class>` for each class as `class_keys` has it, None where undefined: JSON has no NaN."""
    flat = {key: value for key, value in results.items() if not isinstance(value, list)}
    flat |= dict(zip(class_keys(names), results["per_category_iou"], strict=True))
    return {key: none_if_nan(value) for key, value in flat.items()}


def with_interval(metrics: Mapping[str, Any], key: str) -> str:
    """A score as people read it: `0.5812 [0.5608, 0.6011]`, or the score alone where it has no interval."""
    value, low, high = (metrics.get(name) for name in (key, f"{key}_low", f"{key}_high"))
    text = "-" if value is None else f"{value:.4f}"
    return text if low is None or high is None else f"{text} [{low:.4f}, {high:.4f}]"


def none_if_nan(value: float | None) -> float | None:
    return value if value is not None and np.isfinite(value) else None


def mean_defined(values: NDArray[Any]) -> Scores:
    """Mean (...) over the last dimension of what is not NaN; NaN where nothing is left."""
    defined = ~np.isnan(values)
    return _divide(np.where(defined, values, 0).sum(-1), defined.sum(-1))


def _split(areas: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return areas[..., 0, :], areas[..., 1, :], areas[..., 2, :]


def _divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> Scores:
    with np.errstate(invalid="ignore", divide="ignore"):  # 0 / 0 is NaN: not defined
        return np.asarray(np.divide(numerator, denominator, dtype=np.float64))
