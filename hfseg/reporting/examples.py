"""The images of its validation split that a run keeps, and the figures in its folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import datasets
import numpy as np
from numpy.typing import NDArray
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.data import some_rows
from hfseg.files import written_whole
from hfseg.inference import predict
from hfseg.labels import LabelSet
from hfseg.metrics import SPLITS, Counts, SegMetrics, mean_iou
from hfseg.reporting.charts import plot_class_bars, plot_learning_curves, plot_matrix
from hfseg.reporting.pictures import plot_examples
from hfseg.reporting.style import save_figure
from hfseg.runs import Example, RunResults, save_examples

NUM_FIXED = 4  # the same for all runs on the same data
NUM_ALONE = 6  # of them, where no others are known
EXAMPLE_IMAGES = tuple(f"example_{number}.png" for number in (1, 2, 3))  # the first of the fixed ones, as they are
Data: TypeAlias = datasets.Dataset | datasets.IterableDataset


def keep_examples(
    run_dir: Path,
    options: EvalConfig,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    validation: Data,
    labels: LabelSet,
) -> None:
    """Predicts examples of the validation split, as the evaluation sees them, and keeps them at their native size.

    Args:
        run_dir: the run's folder, which has its scores already.
        options: how images reach the model.
        model: the trained one.
        processor: the model's.
        validation: the split to take the examples from.
        labels: the classes.
    """
    rows = choose_rows(validation, RunResults.read(run_dir).arrays)
    predictions = predict(model, [row["image"] for _, row in rows], processor, eval=options)
    examples = []
    for (title, row), prediction in zip(rows, predictions, strict=True):
        label = np.asarray(row["label"])
        metrics = SegMetrics(labels)
        metrics.update(prediction, label)
        score = metrics.compute()["mean_iou"]
        examples.append(Example(row["name"], row["image"].convert("RGB"), label, prediction, score, title))
    save_examples(examples, labels, run_dir / "examples.npz")


def choose_rows(data: Data, arrays: Mapping[str, NDArray[Any]]) -> list[tuple[str, dict[str, Any]]]:
    """Titles and rows of the best, the median and the worst images and, untitled, of a fixed handful; of a stream or
    without counts (see `write_counts`) only that.
    """
    chosen = choose_examples(arrays["eval_areas"]) if "eval_areas" in arrays else {}
    if not chosen or isinstance(data, datasets.IterableDataset):
        return [("", dict(row)) for row in some_rows(data, NUM_ALONE)]
    places = {name: place for place, name in enumerate(data["name"])}
    ranked = [(title, data[places[str(arrays["eval_names"][number])]]) for number, title in chosen.items()]
    return [*ranked, *(("", dict(row)) for row in some_rows(data, NUM_FIXED))]


def choose_examples(areas: Counts) -> dict[int, str]:
    """Numbers of the best two, the median two and the worst two images, in this order -> "best", "median", "worst".

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
    return {number: chosen[number] for number in order if number in chosen}


def draw_figures(run_dir: Path) -> None:
    """Draws curves, scores and examples from the files of a run's folder, and saves a few images as they are.

    What has no file is left out.
    """
    run = RunResults.read(run_dir)
    figures = {
        "curves": plot_learning_curves({run.name: run.history}),
        "per_class": plot_class_bars({split: run.per_class[prefix] for prefix, split in SPLITS.items()}),
    }
    if run.examples and run.labels is not None:
        ranked = [example for example in run.examples if example.title]
        figures["predictions"] = plot_examples(ranked or run.examples, run.labels)
    if "test" in run.confusion:
        figures["confusion"] = plot_matrix(run.confusion["test"], [row["name"] for row in run.per_class["test"]])
    for name, figure in figures.items():
        save_figure(figure, run_dir / "figures" / f"{name}.png")
    fixed = [example for example in run.examples if not example.title]
    for name, example in zip(EXAMPLE_IMAGES, fixed, strict=False):
        with written_whole(run_dir / "figures" / name) as partial:
            example.image.save(partial, format="PNG")
