"""The figures of a study. None of them shows an image of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from hfseg.reporting import BLUE, INK, STYLE, plot_class_bars, plot_confusion, plot_learning_curves
from hfseg.study.answer import Arm

FIGURES = ("curves_steps", "curves_time", "per_class", "differences", "confusion")  # names of all there can be


def study_figures(study: Mapping[str, Any], arms: Sequence[Arm]) -> dict[str, tuple[Figure, str]]:
    """File name -> figure and what it shows; those that there is something to show of."""
    figures: dict[str, tuple[Figure, str]] = {}
    runs = {f"{arm.name}-seed{seed}": run for arm in arms for seed, run in arm.runs.items()}
    groups = {f"{arm.name}-seed{seed}": arm.name for arm in arms for seed in arm.runs}
    histories = {name: run.history for name, run in runs.items()}
    if not runs:
        return figures
    figures["curves_steps"] = (
        plot_learning_curves(histories, "step", ["mean_iou"], groups),
        "Mean IoU against training steps, a line for each run",
    )
    figures["curves_time"] = (
        plot_learning_curves(histories, "seconds", ["mean_iou"], groups),
        "Mean IoU against time of training, a line for each run",
    )
    rows = {name: arm["test"]["per_class"] for name, arm in study["arms"].items() if "test" in arm}
    if len({tuple(row["name"] for row in each) for each in rows.values()}) == 1:
        figures["per_class"] = plot_class_bars(rows), "Test IoU of each class, with 95 % intervals"
    differences = [each for each in study["differences"] if each.get("low") is not None]
    if differences:
        figures["differences"] = (
            plot_differences(differences),
            "Differences of test mean IoU with 95 % intervals; hollow: one seed, images only",
        )
    best = runs[study["best_run"]] if study["best_run"] else None
    if best is not None and "test" in best.confusion and best.per_class.get("test"):
        names = [row["name"] for row in best.per_class["test"]]
        figures["confusion"] = plot_confusion(best.confusion["test"], names), f"Test confusion of {study['best_run']}"
    return figures


@rc_context(STYLE)
def plot_differences(differences: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws second minus first with its interval, in points, a line for each pair; hollow where of images only."""
    figure = Figure(figsize=(6.8, 1.0 + 0.36 * len(differences)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    for place, each in enumerate(differences):
        low, value, high = (100 * each[key] for key in ("low", "value", "high"))
        axes.plot([low, high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot(value, place, "o", color=BLUE, markerfacecolor=BLUE if each["over_seeds"] else "none")
    names = [f"{each['second']} \N{MINUS SIGN} {each['first']}" for each in differences]
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="points of mean IoU, test", ylim=(len(names) - 0.4, -0.6))
    axes.grid(axis="x", color=INK, alpha=0.15)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
