"""What other packages would call "mean IoU" for the same predictions: the same counts under each one's convention.

Each definition restates that package's own code, read in the version named. Ignored pixels are left out of labels and
predictions alike, which some packages leave to their user.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfseg.metrics.scores import (
    Counts,
    Scores,
    class_iou,
    frequency_weighted_iou,
    mean_defined,
    mean_iou,
    without_ignored,
)


@dataclass(frozen=True)
class Convention:
    """One package's "mean IoU": `value` is NaN where undefined, None where counts per image cannot tell it."""

    package: str
    call: str
    value: float | None
    meaning: str


def audit_conventions(areas: Counts, confusion: Counts, ignored: Counts, ignore_index: int) -> list[Convention]:
    """The value of each package's convention.

    A class that is the ignore index has no score in some packages; in others it has one where it is predicted: 0.

    Args:
        areas: (N, 3, K), hits, labelled and predicted pixels per class of each image, of an ignored class too.
        confusion: (K, K), of the data set, rows labels and columns predictions.
        ignored: (K,), predictions under ignored labels.
        ignore_index: label of pixels that do not count.
    """
    total = areas.sum(0)
    scored = without_ignored(total, ignore_index)
    data_set = "one confusion matrix, mean over classes with a union"
    rows: list[tuple[str, str, Callable[[], float], str]] = [
        ("hfseg", "SegMetrics", lambda: float(mean_iou(scored)), data_set),
        ("evaluate 0.4", "mean_iou(ignore_index=255)", lambda: float(mean_iou(total)), data_set),
        ("evaluate 0.4", "mean_iou(ignore_index=0), as in transformers' examples",
         lambda: _ignoring_class_0(confusion, ignored, ignore_index),
         "class 0 is never labelled; ignored pixels are misses"),
        ("mmseg 1", "IoUMetric", lambda: float(mean_iou(total)), data_set),
        ("cityscapesScripts 2", "averageScoreClasses", lambda: float(mean_iou(scored)), data_set),
        ("torchmetrics 1.9", "segmentation.MeanIoU()", lambda: _over_pairs(areas),
         "IoU of each image and class with a union, mean over all of them"),
        ("torchmetrics 1.9", "segmentation.MeanIoU(per_class=True), mean", lambda: _over_images_then_classes(areas),
         "IoU of each image and class, mean over images, then over classes; a class that is nowhere counts -1"),
        ("torchmetrics 1.9", "JaccardIndex(average='macro')", lambda: float(mean_iou(scored)), data_set),
        ("torchmetrics 1.9", "JaccardIndex(average='micro')", lambda: _micro(scored),
         "hits of all classes over unions of all classes"),
        ("torchmetrics 1.9", "JaccardIndex(average='weighted')", lambda: float(frequency_weighted_iou(total)),
         "IoU per class, weighted with labelled pixels"),
        ("smp 0.6", "iou_score(reduction='micro')", lambda: _micro(total),
         "hits of all classes over unions of all classes"),
        ("smp 0.6", "iou_score(reduction='macro')", lambda: float(_or_one(class_iou(total)).mean()),
         "IoU per class, mean over all classes; a class that is nowhere counts 1"),
        ("smp 0.6", "iou_score(reduction='micro-imagewise')", lambda: _mean(_or_one(_micro_per_image(areas))),
         "micro for each image, mean over images"),
        ("smp 0.6", "iou_score(reduction='macro-imagewise')", lambda: _mean(_or_one(class_iou(areas))),
         "IoU of each image and class, mean over all; a class that an image has not counts 1"),
        ("ultralytics 8.4", "metrics/mIoU", lambda: _labelled_only(total),
         "one confusion matrix, mean over labelled classes; at the labels' size, where it scores letterboxed ones"),
    ]  # fmt: skip
    known = [Convention(package, call, value(), meaning) for package, call, value, meaning in rows]
    unknown = [
        ("torchmetrics 1.4", "segmentation.MeanIoU()", "a mean of batches' means: depends on the batch size"),
        (
            "evaluate 0.4",
            "mean_iou(reduce_labels=True) after the labels were reduced",
            "shifts the labels",
        ),
    ]
    return known + [Convention(package, call, None, meaning) for package, call, meaning in unknown]


def _ignoring_class_0(confusion: Counts, ignored: Counts, ignore_index: int) -> float:
    """Labels 0 are ignored; pixels that should be are not.

    Whatever is predicted there has no label to hit, unless the ignore index is a class.
    """
    kept = confusion.copy()
    unlabelled = ignored
    if 0 <= ignore_index < len(kept):
        kept[ignore_index], unlabelled = ignored, np.zeros_like(ignored)
    kept[0] = 0
    return float(mean_iou(np.stack([np.diag(kept), kept.sum(1), kept.sum(0) + unlabelled])))


def _micro(areas: NDArray[Any]) -> float:
    return float(_micro_per_image(areas[None])[0])


def _micro_per_image(areas: NDArray[Any]) -> Scores:
    summed = areas.sum(-1, keepdims=True)  # as if there were one class
    return class_iou(summed)[..., 0]


def _over_pairs(areas: Counts) -> float:
    return float(mean_defined(class_iou(areas).ravel()))


def _over_images_then_classes(areas: Counts) -> float:
    per_class = mean_defined(class_iou(areas).T)
    return float(np.where(np.isnan(per_class), -1.0, per_class).mean())


def _labelled_only(areas: Counts) -> float:
    return float(mean_defined(class_iou(areas)[areas[1] > 0]))


def _or_one(iou: Scores) -> Scores:
    return np.where(np.isnan(iou), 1.0, iou)


def _mean(values: Scores) -> float:
    return float(values.mean()) if values.size else float("nan")
