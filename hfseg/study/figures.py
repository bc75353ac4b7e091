"""The figures of a study. None of them shows an image of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from hfseg.reporting import BLUE, INK, STYLE, plot_class_bars, plot_learning_curves, plot_matrix
from hfseg.study.arms import Arm
from hfseg.study.tables import class_table, pair

FIGURES = ("curves_steps", "curves_time", "per_class", "differences", "confusion")  # names of all there can be


def study_figures(study: Mapping[str, Any], arms: Sequence[Arm]) -> dict[str, tuple[Figure, str]]:
    """File name -> figure and what it shows; those that there is something to show of."""
    runs = {f"{arm.name}-seed{seed}": run for arm in arms for seed, run in arm.runs.items()}
    if not runs:
        return {}
    groups = {f"{arm.name}-seed{seed}": arm.name for arm in arms for seed in arm.runs}
    histories = {name: run.history for name, run in runs.items()}
    steps, time = (plot_learning_curves(histories, against, ["mean_iou"], groups) for against in ("step", "seconds"))
    figures = {
        "curves_steps": (steps, "Mean IoU against training steps, a line for each run"),
        "curves_time": (time, "Mean IoU against time of training, a line for each run"),
    }
    if class_table(study)[0]:
        rows = {name: arm["test"]["per_class"] for name, arm in study["arms"].items() if "test" in arm}
        figures["per_class"] = plot_class_bars(rows), "Test IoU of each class, with 95 % intervals"
    differences = [each for each in study["differences"] if each.get("low") is not None]
    if differences:
        words = "Differences of test mean IoU with 95 % intervals; hollow: one seed, images only"
        figures["differences"] = plot_differences(differences), words
    best = runs.get(study["best_run"])
    if best is not None and "test" in best.confusion and best.per_class.get("test"):
        names = [row["name"] for row in best.per_class["test"]]
        figures["confusion"] = (
            plot_matrix(best.confusion["test"], names),
            f"Test confusion of {study['best_run']}",
        )
    return figures


@rc_context(STYLE)
def plot_differences(differences: Sequence[Mapping[str, Any]]) -> Figure:
    """Draws second minus first with its interval, in points, a line for each pair; hollow where of images only."""
    figure = Figure(figsize=(6.8, 1.0 + 0.36 * len(differences)))
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=1)
    for place, each in enumerate(differences):
        low, value, high = (100 * each[key] for key in ("low", "value", "high"))
        axes.plot([low, high], [place, place], color=BLUE, linewidth=2, solid_capstyle="butt")
        axes.plot(value, place, "o", color=BLUE, markerfacecolor=BLUE if each["over_seeds"] else "none")
    axes.set_yticks(range(len(differences)), [pair(each) for each in differences])
    axes.set(xlabel="points of mean IoU, test", ylim=(len(differences) - 0.4, -0.6))
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure
