"""`bench.py eval`: evaluating a SegFormer-B0, against transformers' example and the metric packages.

* `metric`: what comes after the model, see `bench_metric`.
* `end_to_end`: `Trainer.evaluate` of transformers' model with the example's metrics, and `SegTrainer.evaluate` of ours
  with the same weights and batches; loss, scores and all.
* `memory`: the peak of a process of its own that evaluates so many images.

The images are drawn; the weights are random, but made to predict every class somewhere.
"""

import argparse
import math
import tempfile
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from bench import in_fresh_process, peak_mb
from bench_metric import BATCH, DISTINCT, metric_rows, timed
from bench_stock import IGNORED, example_metrics, stock_model
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

import hfseg

Row = dict[str, Any]
SIDES = ("stock + example", "hfseg")


def eval_tables(arguments: argparse.Namespace) -> dict[str, list[Row]]:
    """The three tables."""
    size, classes, rounds = arguments.size, arguments.classes, arguments.rounds
    tables = {
        "metric": metric_rows(arguments.images, size, classes, rounds),
        "end_to_end": end_to_end_rows(arguments.images, size, classes, arguments.model_rounds),
    }
    case = {"size": size, "classes": classes}
    memory = [
        in_fresh_process("eval_peak", implementation=each, count=count, **case)
        for each in SIDES
        for count in arguments.memory_images
    ]
    return tables | {"memory": memory}


class DrawnImages(Dataset[Row]):
    """As many samples as wanted, of few drawn images that stay in the memory."""

    def __init__(self, count: int, size: int, classes: int) -> None:
        torch.manual_seed(1)
        self.count = count
        self.images = F.interpolate(torch.randn(DISTINCT, 3, 16, 16), size=(size, size), mode="bicubic")
        regions = F.interpolate(torch.randn(DISTINCT, classes, 8, 8), size=(size, size), mode="bilinear")
        self.labels = regions.max(1).indices
        self.labels[:, : size // 16] = IGNORED

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Row:
        here = index % DISTINCT
        return {"pixel_values": self.images[here], "labels": self.labels[here], "name": str(index)}


def make_trainer(implementation: str, size: int, classes: int) -> Trainer:
    """The one or the other trainer, with the same weights, which predict every class somewhere."""
    labels = hfseg.LabelSet([str(index) for index in range(classes)], IGNORED)
    torch.manual_seed(2)
    model = hfseg.HfsegSegformerForSemanticSegmentation(hfseg.HfsegSegformerConfig.from_size("b0", labels)).eval()
    torch.nn.init.normal_(model.decode_head.classifier.weight)
    with torch.no_grad():
        images = DrawnImages(DISTINCT, size, classes).images[:4]
        model.decode_head.classifier.bias -= model(images).logits.mean((0, 2, 3))
    is_ours = implementation == "hfseg"
    args = TrainingArguments(
        tempfile.mkdtemp(prefix="hfseg-bench-"),
        per_device_eval_batch_size=BATCH,
        remove_unused_columns=False,
        batch_eval_metrics=is_ours,
        disable_tqdm=True,
        report_to=[],
    )
    trainer = (
        hfseg.SegTrainer(model=model, args=args, labels=labels, data_collator=hfseg.SegCollator(labels))
        if is_ours
        else Trainer(model=stock_model(model), args=args, compute_metrics=example_metrics(classes))
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def end_to_end_rows(count: int, size: int, classes: int, rounds: int) -> list[Row]:
    """Images per second of whole evaluations; the scores must be the same."""
    data = DrawnImages(count, size, classes)
    trainers = {each: make_trainer(each, size, classes) for each in SIDES}
    for trainer in trainers.values():  # the first batch's workspace
        trainer.evaluate(DrawnImages(BATCH, size, classes))
    ways = {name: partial(mean_iou_of, trainer, data) for name, trainer in trainers.items()}
    rows = timed("end to end", ways, count, rounds)
    stock, ours = (row["mean_iou"] for row in rows)
    assert math.isclose(stock, ours, abs_tol=1e-3), rows  # two implementations of one model: logits to 1e-6
    return rows


def mean_iou_of(trainer: Trainer, data: DrawnImages) -> float:
    return trainer.evaluate(data)["eval_mean_iou"]


def eval_peak(implementation: str, count: int, size: int, classes: int) -> Row:
    """Peak memory of this process after an evaluation of so many images."""
    trainer = make_trainer(implementation, size, classes)
    trainer.evaluate(DrawnImages(min(count, BATCH), size, classes))
    before = peak_mb()
    trainer.evaluate(DrawnImages(count, size, classes))
    return {
        "implementation": implementation,
        "images": count,
        "peak_mb": round(peak_mb()),
        "above_first_batch_mb": round(peak_mb() - before),
    }
