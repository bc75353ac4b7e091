"""The images of its validation split that a run shows: the best, the median, the worst, and a fixed handful."""

from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.data import some_rows
from hfseg.inference import predict
from hfseg.labels import LabelSet
from hfseg.metrics import Counts, SegMetrics, mean_iou
from hfseg.runs import Example

NUM_FIXED = 4  # the same for all runs on the same data
NUM_ALONE = 6  # of them, where no others are known


def choose_examples(areas: Counts) -> dict[int, str]:
    """Numbers of the best two, the median two and the worst two images, and which of it they are.

    Ordered by each image's own mean IoU, the first of equal ones first. Images without a valid pixel are left out; of
    fewer than six images none comes twice.

    Args:
        areas: (N, 3, K), hits, labelled and predicted pixels per class of each image.
    """
    scores = mean_iou(areas)
    order = [int(index) for index in np.argsort(-scores, kind="stable") if not np.isnan(scores[index])]
    middle = (len(order) - 1) // 2
    wanted = (("best", order[:1]), ("worst", order[-1:]), ("median", order[middle : middle + 1]),
              ("best", order[1:2]), ("worst", order[-2:-1]), ("median", order[middle + 1 : middle + 2]))  # fmt: skip
    chosen: dict[int, str] = {}
    for title, numbers in wanted:
        for number in numbers:
            chosen.setdefault(number, title)
    ranks = {number: rank for rank, number in enumerate(order)}
    return {number: chosen[number] for number in sorted(chosen, key=ranks.__getitem__)}


def chosen_rows(
    data: datasets.Dataset | datasets.IterableDataset, scored: tuple[Sequence[str], Counts] | None
) -> list[tuple[str, dict[str, Any]]]:
    """Titles and rows of the chosen images and, untitled, of a fixed handful; of a stream or without counts only that.

    Args:
        data: the split.
        scored: names of the images that were scored, and their areas (N, 3, K) in the same order.
    """
    chosen = choose_examples(scored[1]) if scored is not None else {}
    if scored is None or not chosen or isinstance(data, datasets.IterableDataset):
        return [("", dict(row)) for row in some_rows(data, NUM_ALONE)]
    places = {name: place for place, name in enumerate(data["name"])}
    ranked = [(title, data[places[scored[0][number]]]) for number, title in chosen.items()]
    return [*ranked, *(("", dict(row)) for row in some_rows(data, NUM_FIXED))]


def predict_examples(
    rows: Sequence[tuple[str, dict[str, Any]]],
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    options: EvalConfig,
    labels: LabelSet,
) -> list[Example]:
    """What the model says of these rows, as the evaluation sees it, at their native size."""
    predictions = predict(model, [row["image"] for _, row in rows], processor, eval=options)
    examples = []
    for (title, row), prediction in zip(rows, predictions, strict=True):
        label = np.asarray(row["label"])
        metrics = SegMetrics(labels)
        metrics.update(prediction, label)
        score = metrics.compute()["mean_iou"]
        examples.append(Example(row["name"], row["image"].convert("RGB"), label, prediction, score, title))
    return examples
