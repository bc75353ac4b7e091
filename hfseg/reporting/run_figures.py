"""The pictures in a run's folder."""

from pathlib import Path

import datasets
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.labels import LabelSet
from hfseg.metrics import SPLITS
from hfseg.reporting.examples import chosen_rows, predict_examples
from hfseg.reporting.figures import plot_class_bars, plot_confusion, plot_examples, plot_learning_curves, save_figure
from hfseg.runs import RunResults, save_examples


def keep_examples(
    run_dir: Path,
    options: EvalConfig,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    validation: datasets.Dataset | datasets.IterableDataset,
    labels: LabelSet,
) -> None:
    """Predicts examples of the validation split, and keeps them for figures and report.

    Args:
        run_dir: the run's folder, which has its scores already.
        options: how images reach the model.
        model: the trained one.
        processor: the model's.
        validation: the split to take the examples from.
        labels: the classes.
    """
    rows = chosen_rows(validation, RunResults.read(run_dir).counts.get("eval"))
    save_examples(predict_examples(rows, model, processor, options, labels), labels, run_dir / "examples.npz")


def draw_figures(run_dir: Path) -> None:
    """Draws curves, scores and examples from the files of a run's folder; leaves out what has no file."""
    results = RunResults.read(run_dir)
    figures = {
        "curves": plot_learning_curves({results.name: results.history}),
        "per_class": plot_class_bars({split: results.per_class[prefix] for prefix, split in SPLITS.items()}),
    }
    if results.examples and results.labels is not None:
        ranked = [example for example in results.examples if example.title]
        figures["predictions"] = plot_examples(ranked or results.examples, results.labels)
    if "test" in results.confusion:
        figures["confusion"] = plot_confusion(
            results.confusion["test"], [row["name"] for row in results.per_class["test"]]
        )
    for name, figure in figures.items():
        save_figure(figure, run_dir / "figures" / f"{name}.png")
