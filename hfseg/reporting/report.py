"""The report of a run: one HTML page made from the files in its folder alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hfseg.files import dump_yaml, write_text
from hfseg.labels import Colour, LabelSet
from hfseg.metrics import SPLITS, caveats, metric_name, score_keys, unscored, with_interval
from hfseg.reporting.charts import plot_learning_curves, row_shares
from hfseg.reporting.page import render
from hfseg.reporting.pictures import example_pictures
from hfseg.runs import Example, RunResults

MAX_MATRIX = 40  # classes: a larger matrix is megabytes that nobody reads
NUM_MISTAKES = 5


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run's folder: one file that loads nothing, and shows images of the data.

    Args:
        run_dir: a run. What is missing in it has a sentence in its place.

    Returns:
        The page's path.
    """
    run = RunResults.read(run_dir)
    model, metrics, shares = run.config.get("model", {}), run.metrics, _class_shares(run)
    values = {
        "run": run,
        "splits": SPLITS,
        "caveats": caveats(metrics),
        "unscored": unscored(metrics),
        "start": f"from {Path(model['init']).name}" if model.get("init") else "from scratch",
        "scores": {key: metric_name(key) for key in score_keys(metrics)},
        "with_interval": with_interval,
        "curves": _curves(run),
        "confusion_matrices": confusion_matrices(run),
        "example_groups": example_groups(run),
        "colours": class_colours(run.labels),
        "num_images": _num_images(run),
        "class_shares": shares,
        "classes": dict.fromkeys(name for split in ("train", "validation", "test") for name in shares.get(split, {})),
        "config": dump_yaml(run.public_config) if run.config else "",
    }
    path = run_dir / "report.html"
    write_text(path, render("reporting/report.html.jinja", values))
    return path


def _curves(run: RunResults) -> dict[str, list[tuple[Figure, str]]]:
    """What loss and mean IoU are drawn against -> charts with their titles, none where it was not recorded."""
    curves: dict[str, list[tuple[Figure, str]]] = {}
    axes: list[tuple[Literal["step", "seconds"], str]] = [("step", "training steps"), ("seconds", "time")]
    panels: list[tuple[Literal["loss", "mean_iou"], str]] = [("loss", "Loss"), ("mean_iou", "Mean IoU")]
    for against, words in axes if run.history else ():
        is_recorded = any(line.get(against) is not None for line in run.history)
        curves[words] = [
            (
                plot_learning_curves({run.name: run.history}, against, [panel]),
                f"{name} of training and validation against {words}",
            )
            for panel, name in panels
            if is_recorded
        ]
    return curves


def confusion_matrices(run: RunResults) -> dict[str, dict[str, Any]]:
    """Split -> `names` of the classes, the most frequent `mistakes` in words, and `shares` of each row unless there
    are too many: lists of K numbers.
    """
    splits = {}
    for prefix, split in SPLITS.items():
        if prefix in run.confusion:
            shares = row_shares(run.confusion[prefix])
            rows = run.per_class.get(prefix, [])
            names = [row["name"] for row in rows] if len(rows) == len(shares) else list(map(str, range(len(shares))))
            table = shares.tolist() if len(names) <= MAX_MATRIX else []
            splits[split] = {"names": names, "mistakes": _mistakes(shares, names), "shares": table}
    return splits


def _mistakes(shares: NDArray[np.float64], names: Sequence[str]) -> list[str]:
    wrong = np.where(np.eye(len(shares), dtype=bool), 0, np.nan_to_num(shares))
    places = np.argsort(-wrong, axis=None, kind="stable")[:NUM_MISTAKES]
    largest = [np.unravel_index(place, wrong.shape) for place in places if wrong.flat[place] >= 0.005]
    return [f"{100 * wrong[row, column]:.0f} % of {names[row]} as {names[column]}" for row, column in largest]


def example_groups(run: RunResults) -> dict[str, list[tuple[Example, dict[str, NDArray[np.uint8]]]]]:
    """Why examples are shown -> each of them with its pictures."""
    if run.labels is None or run.labels.palette is None:
        return {}
    ranked = [each for each in run.examples if each.title]
    groups = {
        "The best, the median and the worst images by their own mean IoU.": ranked,
        "A fixed handful, spread over the split; all runs on this data show the same.": fixed_examples(run),
    }
    return {
        why: [(each, example_pictures(each, run.labels)) for each in shown] for why, shown in groups.items() if shown
    }


def fixed_examples(run: RunResults) -> list[Example]:
    """Those that do not depend on how good the model is."""
    return [example for example in run.examples if not example.title]


def class_colours(labels: LabelSet | None) -> dict[str, Colour]:
    """Class name -> its colour; empty where the classes are not known."""
    if labels is None or labels.palette is None:
        return {}
    return dict(zip(labels.names, labels.palette, strict=True))


def _num_images(run: RunResults) -> dict[str, int]:
    scored = {split: run.num_images(prefix) for prefix, split in SPLITS.items()}
    return run.provenance.get("num_images") or {split: count for split, count in scored.items() if count is not None}


def _class_shares(run: RunResults) -> dict[str, dict[str, float]]:
    """Each class's share of the pixels, by split: as the label doctor counted them, or of what was scored."""
    counted = run.check.get("classes", {})
    shares = {split: {row["name"]: row["share"] for row in rows} for split, rows in counted.items()}
    for prefix, split in SPLITS.items():
        scored = run.per_class.get(prefix, [])
        total = sum(row["pixels"] for row in scored)
        if total:
            shares.setdefault(split, {row["name"]: row["pixels"] / total for row in scored})
    return shares
