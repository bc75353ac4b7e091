"""The images of its validation split that a run shows: the best, the median, the worst, and a fixed handful."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.counts import load_arrays, write_arrays
from hfseg.data import some_rows
from hfseg.figures import Example
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics
from hfseg.predict import predict
from hfseg.scores import Counts, mean_iou

NUM_FIXED = 4  # the same for all runs on the same data
NUM_ALONE = 6  # of them, where no others are known
MAX_SIDE = 640  # of the pictures that are kept


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


def save_examples(examples: Sequence[Example], labels: LabelSet, path: Path) -> None:
    """Writes an `.npz` with pictures of at most 640 pixels, from which a report can be made again; see
    `load_examples`."""
    assert labels.palette is not None
    arrays: dict[str, NDArray[Any]] = {
        "names": np.array([example.name for example in examples], dtype=np.str_),
        "titles": np.array([example.title for example in examples], dtype=np.str_),
        "mean_iou": np.array([example.mean_iou for example in examples], dtype=np.float64),
        "class_names": np.array(labels.names, dtype=np.str_),
        "palette": np.array(labels.palette, dtype=np.uint8),
        "ignore_index": np.array(labels.ignore_index),
    }
    for number, example in enumerate(examples):
        size = _shrunk(example.image.size)
        arrays[f"image_{number}"] = np.asarray(example.image.resize(size, Image.Resampling.LANCZOS))
        arrays[f"label_{number}"] = _resize_ids(example.label, size)
        arrays[f"prediction_{number}"] = _resize_ids(example.prediction, size)
    write_arrays(path, arrays)


def load_examples(path: Path) -> tuple[list[Example], LabelSet]:
    """The examples of a file that `save_examples` wrote, with the classes and their colours.

    Raises:
        OSError, ValueError or KeyError: there is no such file, or it is damaged.
    """
    file = load_arrays(path)
    palette = [(int(red), int(green), int(blue)) for red, green, blue in file["palette"]]
    labels = LabelSet(file["class_names"].tolist(), int(file["ignore_index"]), palette)
    examples = [
        Example(
            str(name),
            Image.fromarray(file[f"image_{number}"]),
            file[f"label_{number}"],
            file[f"prediction_{number}"],
            float(file["mean_iou"][number]),
            str(file["titles"][number]),
        )
        for number, name in enumerate(file["names"])
    ]
    return examples, labels


def _shrunk(size: tuple[int, int]) -> tuple[int, int]:
    factor = min(1, MAX_SIDE / max(size))
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _resize_ids(ids: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.integer]:
    """Nearest pixels, at the same places as Pillow's."""
    rows, columns = (
        ((np.arange(target) + 0.5) * source / target).astype(int)
        for target, source in zip((size[1], size[0]), ids.shape, strict=True)
    )
    return ids[np.ix_(rows, columns)]
