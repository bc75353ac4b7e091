"""SegMetrics as a metric of the `evaluate` library."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from hfseg.labels import LabelSet
from hfseg.metrics.id_maps import Mask
from hfseg.metrics.seg_metrics import SegMetrics


def evaluate_metric(labels: LabelSet | int, ignore_index: int | None = None) -> "SegMetric":
    """`SegMetrics` as an `evaluate.Metric`: `add`, `add_batch`, `compute` and `evaluate.combine` work, offline.

    `evaluate`'s own `mean_iou` needs the Hub and writes each mask to disk; this one only counts. It works in one
    process; several add up theirs with `SegMetrics.merge`.

    Args:
        labels: a LabelSet, or the number of classes.
        ignore_index: overrides the LabelSet's, whose default is 255. It may be a class.

    Example:
        >>> metric = evaluate_metric(2)
        >>> metric.add(prediction=[[0, 1, 1]], reference=[[0, 1, 255]])
        >>> metric.compute()["mean_iou"]
        1.0
    """
    return SegMetric(SegMetrics(labels, ignore_index))


class SegMetric(evaluate.Metric):
    """See `evaluate_metric`."""

    def __init__(self, metrics: SegMetrics) -> None:
        self.metrics = metrics
        super().__init__()

    def _info(self) -> evaluate.MetricInfo:
        masks = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="Mean IoU and what goes with it, from one confusion matrix over all valid pixels.",
            citation="",
            inputs_description="predictions, references: class ids (H, W), one map for each image.",
            features=datasets.Features({"predictions": masks, "references": masks}),
        )

    def add(self, *, prediction: Mask | Sequence[Any], reference: Mask | Sequence[Any]) -> None:
        """Counts one image."""
        self.add_batch(predictions=[prediction], references=[reference])

    def add_batch(self, *, predictions: Sequence[Any], references: Sequence[Any]) -> None:
        """Counts images, of different sizes if need be."""
        self.metrics.update(_as_masks(predictions), _as_masks(references))

    def compute(
        self, *, predictions: Sequence[Any] | None = None, references: Sequence[Any] | None = None
    ) -> dict[str, Any]:
        """What `SegMetrics.compute` returns for all that was added and is given here; then starts from zero."""
        if predictions is not None and references is not None:
            self.add_batch(predictions=predictions, references=references)
        results = self.metrics.compute()
        self.metrics.reset()
        return results


def _as_masks(masks: Sequence[Any]) -> list[Mask]:
    return [mask if isinstance(mask, Mask) else np.asarray(mask) for mask in masks]
