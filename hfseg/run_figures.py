"""The pictures in a run's folder."""

import datasets
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import RunConfig
from hfseg.examples import chosen_rows, predict_examples, save_examples
from hfseg.figures import plot_class_bars, plot_confusion, plot_examples, plot_learning_curves, save_figure
from hfseg.labels import LabelSet
from hfseg.results import SPLITS, RunResults


def draw_figures(
    config: RunConfig,
    model: PreTrainedModel,
    processor: BaseImageProcessor,
    validation: datasets.Dataset | datasets.IterableDataset,
    labels: LabelSet,
) -> None:
    """Draws curves, scores and examples of the validation split, and keeps the examples for the report.

    Args:
        config: of the run, whose folder has its scores already.
        model: the trained one.
        processor: the model's.
        validation: the split to take the examples from.
        labels: the classes.
    """
    output_dir = config.output_dir
    results = RunResults.read(output_dir)
    rows = chosen_rows(validation, results.counts.get("eval"))
    examples = predict_examples(rows, model, processor, config.eval, labels)
    save_examples(examples, labels, output_dir / "examples.npz")
    figures = {
        "curves": plot_learning_curves({config.name: results.history}),
        "per_class": plot_class_bars({split: results.per_class[prefix] for prefix, split in SPLITS.items()}),
        "predictions": plot_examples([example for example in examples if example.title] or examples, labels),
    }
    if "test" in results.confusion:
        figures["confusion"] = plot_confusion(results.confusion["test"], labels.names)
    for name, figure in figures.items():
        save_figure(figure, output_dir / "figures" / f"{name}.png")
