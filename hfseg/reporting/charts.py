"""Charts of runs' numbers: learning curves, scores of the classes, confusion matrix."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hfseg.reporting.style import (
    BLUE,
    INK,
    MAX_HEIGHT,
    MAX_HEIGHT_NAMES,
    STYLE,
    UNDEFINED,
    VERMILION,
    NotebookFigure,
    name_classes,
)

RUN_COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", VERMILION, "#56B4E9", "#8C8C8C")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # from one round of colours to the next
MAX_CELLS = 40  # classes of a confusion matrix with numbers in it
MAX_FLAT_NAME = 8  # letters that fit under a cell
MAX_SIDE, MAX_SIDE_NAMES = 18.4, 150  # inches of a confusion matrix, and how many names have room along them
History = Sequence[Mapping[str, Any]]
PANELS = {"loss": ("loss", "eval_loss", "loss"), "mean_iou": ("train_mean_iou", "eval_mean_iou", "mean IoU")}


@rc_context(STYLE)
def plot_learning_curves(
    histories: Mapping[str, History],
    against: Literal["step", "seconds"] = "step",
    panels: Sequence[Literal["loss", "mean_iou"]] = ("loss", "mean_iou"),
    groups: Mapping[str, str] | None = None,
) -> Figure:
    """Draws loss and mean IoU of training and validation, of one run or of several.

    One run has a colour for training and one for validation; of several, each has a colour, with training as a thin
    line and validation as a thick one.

    Args:
        histories: run name -> lines of its `history.jsonl`. Lines without what is drawn are passed over.
        against: the horizontal axis; "seconds" (shown as minutes where it is long) is the time since the training
            began, evaluations included.
        panels: what is drawn, side by side.
        groups: run name -> what it belongs to, such as the arm of a study, for runs that share a colour and a line of
            the legend: the seeds of one arm.

    Returns:
        The figure; panels without a point say so.
    """
    is_single = len(histories) == 1
    groups = groups or {name: name for name in histories}
    order = list(dict.fromkeys(groups.values()))
    figure = NotebookFigure(figsize=(4.8 * len(panels), 3.3 if is_single else 3.7 + 0.24 * len(order) / len(panels)))
    unit, scale = _unit(histories, against)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        *keys, title = PANELS[panel]
        for name, lines in histories.items():
            for key, is_validation in zip(keys, (False, True), strict=True):
                points = [(line[against] / scale, line[key]) for line in lines if _has(line, against, key)]
                number = None if is_single else order.index(groups[name])
                if points:
                    axes.plot(*zip(*points, strict=True), **_line_style(number, groups[name], is_validation))
        axes.set(title=title, xlabel=unit)
        if not axes.lines:
            axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)
        elif is_single:
            axes.legend()
    if not is_single:
        handles = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
        shown = [line for label, line in handles.items() if not label.startswith("_")]
        title = "thick: validation, thin: training"
        figure.legend(handles=shown, title=title, loc="outside lower center", ncols=len(panels))
    return figure


def _unit(histories: Mapping[str, History], against: str) -> tuple[str, int]:
    """The horizontal axis's name, and what one of it is in the history's unit."""
    if against == "step":
        return "step", 1
    longest = max((line.get("seconds") or 0 for lines in histories.values() for line in lines), default=0)
    return ("minutes", 60) if longest > 180 else ("seconds", 1)


def _has(line: Mapping[str, Any], *keys: str) -> bool:
    return all(line.get(key) is not None for key in keys)


def _line_style(number: int | None, name: str, is_validation: bool) -> dict[str, Any]:
    """Of the group with this number, or of a single run for None; labels that begin with `_` have no legend."""
    marker = {"marker": "o", "markersize": 4} if is_validation else {}
    if number is None:
        colour, label = (VERMILION, "validation") if is_validation else (BLUE, "training")
        return marker | {"color": colour, "label": label, "linewidth": 1.6}
    width = {"linewidth": 2, "label": name} if is_validation else {"linewidth": 0.8, "alpha": 0.7, "label": f"_{name}"}
    dashes = DASHES[number // len(RUN_COLOURS) % len(DASHES)]
    return marker | width | {"color": RUN_COLOURS[number % len(RUN_COLOURS)], "linestyle": dashes}


@rc_context(STYLE)
def plot_class_bars(per_class: Mapping[str, Sequence[Mapping[str, Any]]], key: str = "iou") -> Figure:
    """Draws each class's score as bars, side by side for the runs, with the number at the end.

    Args:
        per_class: run name -> a row for each class, as in `per_class.json`: `name`, the score (None where undefined),
            and perhaps its interval as `<key>_low` and `<key>_high`. The runs have the same classes.
        key: which score.
    """
    names = [row["name"] for row in next(iter(per_class.values()))]
    height = 0.8 / len(per_class)
    wanted = 1.2 + len(names) * max(0.34, 0.1 + 0.19 * len(per_class))
    figure = NotebookFigure(figsize=(8, min(wanted, MAX_HEIGHT)))
    axes = figure.subplots()
    for number, (run, rows) in enumerate(per_class.items()):
        places = np.arange(len(names)) + (number - (len(per_class) - 1) / 2) * height
        values = [np.nan if row[key] is None else row[key] for row in rows]
        axes.barh(places, np.nan_to_num(values), 0.9 * height, color=RUN_COLOURS[number % len(RUN_COLOURS)], label=run)
        for place, value, row in zip(places, values, rows, strict=True):
            low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
            end = np.nan_to_num(value)
            if low is not None and high is not None:
                end = high
                axes.plot([low, high], [place, place], color=INK, linewidth=1.4, solid_capstyle="butt")
            if wanted <= MAX_HEIGHT:  # otherwise one number lies over the next
                axes.text(end + 0.01, place, UNDEFINED if np.isnan(value) else f"{value:.3f}", va="center", fontsize=9)
    name_classes(axes.yaxis, names, MAX_HEIGHT_NAMES)
    axes.set(xlabel={"iou": "IoU"}.get(key, key.replace("_", " ")), xlim=(0, 1.08), ylim=(len(names) - 0.4, -0.6))
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    if len(per_class) > 1:
        figure.legend(loc="outside upper center", ncols=min(len(per_class), 3))
    return figure


@rc_context(STYLE)
def plot_matrix(matrix: NDArray[np.integer], names: Sequence[str]) -> Figure:
    """Draws where the labelled pixels of each class went, in % of its row; of many classes by colour alone.

    Args:
        matrix: (K, K) pixels, rows labels and columns predictions. Classes without a labelled pixel have an empty row.
        names: of the classes.
    """
    shares = row_shares(matrix)
    size = min(1.6 + len(names) * (0.75 if len(names) < 9 else 0.42), MAX_SIDE)
    figure = NotebookFigure(figsize=(size, size))
    axes = figure.subplots()
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    has_numbers = len(names) <= MAX_CELLS
    if not has_numbers:
        figure.colorbar(image, ax=axes, shrink=0.3, aspect=40, pad=0.01).outline.set_visible(False)
    for (row, column), share in np.ndenumerate(shares) if has_numbers else ():
        if not np.isnan(share) and (len(names) < 9 or share >= 0.005):
            colour = "white" if share > 0.6 else INK
            axes.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=9)
    for axis in (axes.xaxis, axes.yaxis):
        name_classes(axis, names, MAX_SIDE_NAMES)
    axes.tick_params(length=0, labelsize="medium" if has_numbers else 7)
    axes.tick_params(axis="x", rotation=90 if len(names) > 4 or max(map(len, names)) > MAX_FLAT_NAME else 0)
    axes.set(xlabel="predicted, in % of the row", ylabel="labelled")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    return figure


def row_shares(matrix: NDArray[np.integer]) -> NDArray[np.float64]:
    """Rows (K, K) divided by their sums; NaN in the rows of classes without a labelled pixel."""
    totals = matrix.sum(1, keepdims=True)
    return np.divide(matrix, totals, where=totals > 0, out=np.full(matrix.shape, np.nan))
