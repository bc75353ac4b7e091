"""Evaluation and prediction on one GPU against their usual ways; see `bench_gpu`.

"from logits" begins with logits at a quarter of the size and labels, both on the GPU, and ends with the mean IoU:

* "example (evaluate)" takes the logits to the CPU, as a Trainer does, and does there what transformers' example does.
* "ids made on the GPU" upsamples and takes the argmax there, and counts on the CPU with numpy.

"end to end" is a whole `evaluate` of SegFormer-B0, see `bench_eval`. "predict" begins with PIL images and ends with
class ids, or with what a pipeline gives, on the CPU.
"""

import math
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from bench_eval import SIDES, DrawnImages, make_trainer, mean_iou_of
from bench_gpu_models import DEVICE, set_precision
from bench_metric import (
    BATCH,
    batches,
    draw_logits,
    example,
    hfseg_metrics,
    hfseg_trainer,
    timed,
)
from bench_stock import IGNORED, histogram_mean_iou, stock_model
from PIL import Image
from transformers import SegformerImageProcessor, pipeline

import hfseg

Row = dict[str, Any]
Way = Callable[[torch.Tensor, torch.Tensor], float]  # (logits, labels) -> mean IoU


def evaluation_rows(count: int, size: int, classes: int, rounds: int) -> list[Row]:
    """Images per second from logits to the score, and of whole evaluations; scores must agree."""
    set_precision("fp32")
    logits, labels = (each.to(DEVICE) for each in draw_logits(count, size, classes))
    ways: dict[str, Way] = {
        "example (evaluate)": lambda logits, labels: example(classes)(logits.cpu(), labels.cpu()),
        "ids made on the GPU, numpy": partial(numpy_score, classes),
        **({"torchmetrics": partial(torchmetrics_score, classes)} if find_spec("torchmetrics") else {}),
        "hfseg SegMetrics": hfseg_metrics(classes),
        "hfseg, loss included": hfseg_trainer(classes),
    }
    rows = timed("from logits", {name: partial(way, logits, labels) for name, way in ways.items()}, count, rounds)
    for row in rows:  # upsampling in strips rounds otherwise, which moves a pixel on a tie
        assert math.isclose(row["mean_iou"], rows[0]["mean_iou"], abs_tol=1e-3), rows
    data = DrawnImages(count, size, classes)
    trainers = {each: make_trainer(each, size, classes) for each in SIDES}
    for trainer in trainers.values():  # the first batch's workspace
        trainer.evaluate(DrawnImages(BATCH, size, classes))
    return rows + timed(
        "end to end", {name: partial(mean_iou_of, each, data) for name, each in trainers.items()}, count, rounds
    )


def numpy_score(classes: int, logits: torch.Tensor, labels: torch.Tensor) -> float:
    parts = [(ids.cpu().numpy(), label.cpu().numpy()) for ids, label in batches(logits, labels)]
    ids, references = (np.concatenate(each) for each in zip(*parts, strict=True))
    return histogram_mean_iou(ids, references, classes, IGNORED)["mean_iou"]


def torchmetrics_score(classes: int, logits: torch.Tensor, labels: torch.Tensor) -> float:
    from torchmetrics.classification import MulticlassJaccardIndex

    metric = MulticlassJaccardIndex(classes, average="macro", ignore_index=IGNORED).to(DEVICE)
    for ids, label in batches(logits, labels):
        metric.update(ids, label)
    return float(metric.compute())


def prediction_rows(count: int, size: int, classes: int, rounds: int) -> list[Row]:
    """Images per second of predictions at the images' own size, four by three, half as wide again as the model's."""
    set_precision("fp32")
    images = drawn_pictures(count, size)
    labels = hfseg.LabelSet([str(index) for index in range(classes)])
    processor = SegformerImageProcessor(size={"height": size, "width": size})
    torch.manual_seed(2)
    model = hfseg.HfsegSegformerForSemanticSegmentation(hfseg.HfsegSegformerConfig.from_size("b0", labels)).eval()
    stock = stock_model(model).eval().to(DEVICE)
    model = model.to(DEVICE)
    theirs = pipeline("image-segmentation", model=stock, image_processor=processor, device=DEVICE, batch_size=BATCH)
    ours = hfseg.SegmentationPipeline(model, processor, device=DEVICE, batch_size=BATCH)
    ways: dict[str, Callable[[], float]] = {
        "stock model, post-processing": lambda: float(len(stock_ids(stock, processor, images))),
        "hfseg.predict": lambda: float(len(hfseg.predict(model, images, processor, batch_size=BATCH))),
        "stock pipeline": lambda: float(len(theirs(images))),
        "hfseg pipeline": lambda: float(len(ours(images))),
    }
    rows = timed("predict", ways, count, rounds)
    return [{key: value for key, value in row.items() if key != "mean_iou"} for row in rows]


@torch.no_grad()
def stock_ids(model: Any, processor: SegformerImageProcessor, images: list[Image.Image]) -> list[Any]:
    """Class ids of the images, in batches, as transformers' documentation has it."""
    found = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        inputs = processor(images=batch, return_tensors="pt").to(DEVICE)
        sizes = [(image.height, image.width) for image in batch]
        maps = processor.post_process_semantic_segmentation(model(**inputs), target_sizes=sizes)
        found += [ids.cpu().numpy().astype(np.uint8) for ids in maps]
    return found


def drawn_pictures(count: int, size: int) -> list[Image.Image]:
    """Smooth random images."""
    torch.manual_seed(1)
    height, width = 9 * size // 8, 3 * size // 2
    large = F.interpolate(torch.rand(count, 3, 12, 16), size=(height, width), mode="bicubic").clamp(0, 1)
    return [Image.fromarray(each.permute(1, 2, 0).mul(255).byte().numpy()) for each in large]
