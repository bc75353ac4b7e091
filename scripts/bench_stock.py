"""The other side of the benchmarks: evaluation and training as most people write them with transformers.

`ExampleMeanIoU` restates the metric `mean_iou` of the library `evaluate` (a metric script on the Hub, which nothing
here may ask) from its documentation: masks go through the library's Arrow file as images, then for each image three
`np.histogram`s, of hits, predicted and labelled pixels. `example_metrics` does with it what transformers' example of
semantic segmentation does, but for its `ignore_index=0`, which would leave a class out.
"""

import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import EvalPrediction, SegformerForSemanticSegmentation

import hfseg

IGNORED = 255


class ExampleMeanIoU(evaluate.Metric):
    """`evaluate.load("mean_iou")`, restated."""

    def _info(self) -> evaluate.MetricInfo:
        masks = datasets.Features({"predictions": datasets.Image(), "references": datasets.Image()})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=masks)

    def _compute(self, predictions: Any, references: Any, num_labels: int, ignore_index: int) -> dict[str, Any]:
        return histogram_mean_iou(predictions, references, num_labels, ignore_index)


def histogram_mean_iou(predictions: Any, references: Any, num_labels: int, ignore_index: int) -> dict[str, Any]:
    """The arithmetic of `evaluate`'s `mean_iou`, on id maps (H, W)."""
    hits, predicted, labelled = np.zeros((3, num_labels))
    for prediction, reference in zip(predictions, references, strict=True):
        ids, labels = np.array(prediction), np.array(reference)
        valid = labels != ignore_index
        ids, labels = ids[valid], labels[valid]
        hits += _areas(ids[ids == labels], num_labels)
        predicted += _areas(ids, num_labels)
        labelled += _areas(labels, num_labels)
    with np.errstate(invalid="ignore"):
        iou, accuracy = hits / (predicted + labelled - hits), hits / labelled
    return {
        "mean_iou": float(np.nanmean(iou)),
        "mean_accuracy": float(np.nanmean(accuracy)),
        "overall_accuracy": float(hits.sum() / labelled.sum()),
        "per_category_iou": iou,
        "per_category_accuracy": accuracy,
    }


def _areas(ids: NDArray[np.integer], num_labels: int) -> NDArray[np.integer]:
    return np.histogram(ids, bins=num_labels, range=(0, num_labels - 1))[0]


def example_ids(logits: NDArray[np.floating], size: Sequence[int]) -> NDArray[np.integer]:
    """Class ids (N, H, W) from logits (N, K, h, w): all images at once, as the example has it."""
    upsampled = F.interpolate(torch.from_numpy(logits), size=tuple(size), mode="bilinear", align_corners=False)
    return upsampled.argmax(dim=1).numpy()


def example_scores(ids: NDArray[np.integer], labels: NDArray[np.integer], num_labels: int) -> dict[str, Any]:
    """The scores of id maps through `evaluate`, Arrow file included."""
    with tempfile.TemporaryDirectory() as folder:
        metric = ExampleMeanIoU(cache_dir=folder)
        return metric.compute(predictions=ids, references=labels, num_labels=num_labels, ignore_index=IGNORED)


def example_metrics(num_labels: int) -> Callable[[EvalPrediction], dict[str, float]]:
    """The example's `compute_metrics`."""

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        labels = prediction.label_ids
        scores = example_scores(example_ids(prediction.predictions, labels.shape[-2:]), labels, num_labels)
        for name in ("accuracy", "iou"):
            values = scores.pop(f"per_category_{name}").tolist()
            scores |= {f"{name}_{index}": value for index, value in enumerate(values)}
        return scores

    return compute_metrics


def stock_model(model: hfseg.HfsegSegformerForSemanticSegmentation) -> SegformerForSemanticSegmentation:
    """transformers' own class with the same weights, by way of a folder."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        stock, loading = SegformerForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(loading.values()), loading
    return stock
