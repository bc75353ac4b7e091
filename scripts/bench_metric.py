"""The metric part of `bench.py eval`: from what the model says of the images to their mean IoU.

"from logits" begins with logits at a quarter of the size, (N, K, H/4, W/4) float32 in the memory, and ends with the
score: upsampling, argmax and counting. "from ids" begins with id maps (N, H, W) int64. The example's way has all
images at once, as the Trainer hands them over; the others take batches.

* "example (evaluate)" is `bench_stock.example_scores`; "arithmetic only" leaves out the Arrow file of `evaluate`.
* "hfseg, loss included" is SegTrainer's counting, which sums the cross-entropy in the same pass (with stock, the model
  computes that, and here nobody).

The logits are regions and some noise, as a trained model's; the labels follow them at about three pixels of four.
"""

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from bench_stock import IGNORED, example_ids, example_scores, histogram_mean_iou
from transformers import EvalPrediction

import hfseg
from hfseg.models import segmentation_loss

Row = dict[str, Any]
DISTINCT = 16  # images that are drawn; more are these again
BATCH = 8


def metric_rows(count: int, size: int, classes: int, rounds: int) -> list[Row]:
    """Images per second of each way, in turn; all must give the same score."""
    logits, labels = draw_logits(count, size, classes)
    ids = torch.cat([upsample(part, size).max(1).indices for part in logits.split(BATCH)])
    rows = []
    for task, inputs in (("from logits", logits), ("from ids", ids)):
        ways = {name: way(classes) for name, way in WAYS[task].items()}
        rows += timed(task, {name: partial(way, inputs, labels) for name, way in ways.items()}, count, rounds)
    exact = next(row["mean_iou"] for row in rows if row["task"] == "from ids")
    for row in rows:  # upsampling in strips rounds otherwise, which moves a pixel on a tie
        tolerance = 1e-6 if row["task"] == "from ids" else 1e-4
        assert math.isclose(row["mean_iou"], exact, abs_tol=tolerance), rows
    return rows


def timed(task: str, ways: Mapping[str, Callable[[], float]], count: int, rounds: int) -> list[Row]:
    """Calls all in turn, round by round; ratios to the first, round against round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    for number in range(rounds + 1):  # the first warms up
        for name, way in ways.items():
            start = time.perf_counter()
            scores[name] = way()
            if number:
                seconds[name].append(time.perf_counter() - start)
    base = next(iter(seconds.values()))
    rows = []
    for name, mine in seconds.items():
        ratio = statistics.median(reference / own for reference, own in zip(base, mine, strict=True))
        rate = count / statistics.median(mine)
        rows.append(
            {
                "task": task,
                "implementation": name,
                "images_per_s": round(rate, 1),
                "ms_per_image": round(1000 / rate, 2),
                "speed_up": round(ratio, 2),
                "mean_iou": scores[name],
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def draw_logits(count: int, size: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (N, K, H/4, W/4) with regions, as a trained model's, and labels (N, H, W) int64, some ignored."""
    torch.manual_seed(0)
    small = size // 4
    regions = 6 * F.interpolate(torch.randn(DISTINCT, classes, 8, 8), size=(small, small), mode="bicubic")
    noisy = regions + 2 * torch.randn((DISTINCT, classes, small // 4, small // 4)).repeat(1, 1, 4, 4)
    labels = upsample(noisy, size).max(1).indices
    labels[:, : size // 16] = IGNORED
    logits = regions + 0.3 * torch.randn(regions.shape)
    picked = torch.arange(count) % DISTINCT
    return logits[picked], labels[picked]


def upsample(logits: torch.Tensor, size: int) -> torch.Tensor:
    return F.interpolate(logits, size=(size, size), mode="bilinear", align_corners=False)


Way = Callable[[torch.Tensor, torch.Tensor], float]  # (logits or ids, labels) -> mean IoU


def example(classes: int) -> Way:
    def score(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        ids = inputs.numpy() if inputs.ndim == 3 else example_ids(inputs.numpy(), labels.shape[-2:])
        return example_scores(ids, labels.numpy(), classes)["mean_iou"]

    return score


def example_arithmetic(classes: int) -> Way:
    def score(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        ids = inputs.numpy() if inputs.ndim == 3 else example_ids(inputs.numpy(), labels.shape[-2:])
        return histogram_mean_iou(ids, labels.numpy(), classes, IGNORED)["mean_iou"]

    return score


def batches(inputs: torch.Tensor, labels: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of ids and labels; logits become ids as most people do it."""
    for part, label in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
        yield part if part.ndim == 3 else upsample(part, label.shape[-1]).argmax(1), label


def torchmetrics_way(classes: int) -> Way:
    from torchmetrics.classification import MulticlassJaccardIndex

    def score(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        metric = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED)
        for ids, label in batches(inputs, labels):
            metric.update(ids, label)
        return float(metric.compute())

    return score


def smp_way(classes: int) -> Way:
    from segmentation_models_pytorch import metrics

    def score(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        parts = [
            metrics.get_stats(ids, label, mode="multiclass", num_classes=classes, ignore_index=IGNORED)
            for ids, label in batches(inputs, labels)
        ]
        counts = [torch.cat(each) for each in zip(*parts, strict=True)]
        return float(metrics.iou_score(*counts, reduction="macro"))

    return score


def hfseg_metrics(classes: int) -> Way:
    """`SegMetrics` as the `compute_metrics` of a stock Trainer, batch by batch."""

    def score(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        metrics = hfseg.SegMetrics(classes)
        for part, label in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
            metrics(EvalPrediction(part, label), compute_result=False)
        return metrics.compute()["mean_iou"]

    return score


def hfseg_trainer(classes: int) -> Way:
    """As `SegTrainer` counts: image by image, with the loss."""

    def score(inputs: torch.Tensor, labels: torch.Tensor) -> float:
        metrics = hfseg.SegMetrics(classes)
        for logits, label in zip(inputs.split(1), labels.split(1), strict=True):
            metrics.update_counts(segmentation_loss(logits, label, IGNORED).confusion)
        return metrics.compute()["mean_iou"]

    return score


EXAMPLE = {"example (evaluate)": example, "example, arithmetic only": example_arithmetic}
TORCHMETRICS = {"torchmetrics": torchmetrics_way} if find_spec("torchmetrics") else {}
SMP = {"smp get_stats": smp_way} if find_spec("segmentation_models_pytorch") else {}
FROM_IDS = {**EXAMPLE, **TORCHMETRICS, **SMP, "hfseg SegMetrics": hfseg_metrics}
WAYS = {"from logits": {**FROM_IDS, "hfseg, loss included": hfseg_trainer}, "from ids": FROM_IDS}
