"""Figures of runs, by Matplotlib without a display: one look for the report, the card and the study.

Every `plot_*` function returns a `Figure`. `save_figure` writes it as a PNG or SVG, `inline_svg` gives SVG text for a
page, whose text takes the page's colour and so follows its dark mode. Colours are those of Okabe & Ito (2008), which
people with any colour vision can tell apart; more runs than colours differ in their dashes too.
"""

import html
import io
import logging
import math
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib import font_manager, rc_context
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from hfseg.errors import printable
from hfseg.files import writing, written_whole
from hfseg.labels import OVERLAY, LabelSet
from hfseg.runs import Example

UNDEFINED = "\N{EN DASH}"
INK = "#1f2329"  # of text and lines; becomes the page's colour in `inline_svg`
BLUE, VERMILION = "#0072B2", "#D55E00"  # training and validation of a single run
RUN_COLOURS = (BLUE, "#E69F00", "#009E73", "#CC79A7", VERMILION, "#56B4E9", "#8C8C8C")
DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)))  # from one round of colours to the next
WRONG = (224, 0, 122)  # of an error map's wrong pixels: far from grey for any colour vision
MAX_CELLS = 40  # classes of a confusion matrix with numbers in it
# Inches of a confusion matrix and of bars, whatever the number of classes, and how many names have room along them
MAX_SIDE, MAX_SIDE_NAMES = 18.4, 150
MAX_HEIGHT, MAX_HEIGHT_NAMES = 200.0, 1200
MAX_NAME = 34  # characters under a picture: the end of a name tells images apart
# Of fonts that operating systems come with, those that have what Matplotlib's own lacks: it knows no Chinese.
WIDE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "Droid Sans Fallback", "PingFang SC", "PingFang HK", "Hiragino Sans GB", "Arial Unicode MS", "Microsoft YaHei",
    "SimHei", "Yu Gothic", "Malgun Gothic", "Unifont",
)  # fmt: skip
HAS_FONT = {font.name for font in font_manager.fontManager.ttflist}
STYLE = {
    "font.family": ["sans-serif", *(name for name in WIDE_FONTS if name in HAS_FONT)],  # letter by letter
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called "$5 and $10"
    "svg.fonttype": "none",  # text stays text: searchable, and in the page's font
    "svg.hashsalt": "hfseg",  # the same figure gives the same file
    **{f"{part}.color": INK for part in ("text", "xtick", "ytick")},
    **{f"axes.{part}": INK for part in ("labelcolor", "edgecolor", "titlecolor")},
}
History = Sequence[Mapping[str, Any]]
PANELS = {"loss": ("loss", "eval_loss", "loss"), "mean_iou": ("train_mean_iou", "eval_mean_iou", "mean IoU")}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))

logger = logging.getLogger(__name__)


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
    group_of = {name: (groups or {}).get(name, name) for name in histories}
    order = list(dict.fromkeys(group_of.values()))
    figure = Figure(figsize=(4.8 * len(panels), 3.3 if is_single else 3.7 + 0.24 * len(order) / len(panels)))
    figure.set_layout_engine("constrained")
    unit, scale = _unit(histories, against)
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        *keys, title = PANELS[panel]
        for name, lines in histories.items():
            number = order.index(group_of[name])
            for key, is_validation in zip(keys, (False, True), strict=True):
                points = [(line[against] / scale, line[key]) for line in lines if _has(line, against, key)]
                look = _single_look(is_validation) if is_single else _look(number, group_of[name], is_validation)
                if points:
                    axes.plot(*zip(*points, strict=True), **look)
        axes.set(title=title, xlabel=unit)
        _tidy(axes)
        if not axes.lines:
            axes.text(0.5, 0.5, "nothing recorded", ha="center", transform=axes.transAxes)
        elif is_single:
            axes.legend()
    if not is_single:
        handles = {str(line.get_label()): line for axes in figure.axes for line in axes.lines}
        shown = [line for label, line in handles.items() if not label.startswith("_")]
        figure.legend(
            handles=shown, title="thick: validation, thin: training", loc="outside lower center", ncols=len(panels)
        )
    return figure


def _unit(histories: Mapping[str, History], against: str) -> tuple[str, int]:
    """The horizontal axis's name, and what one of it is in the history's unit."""
    if against == "step":
        return "step", 1
    longest = max((line.get("seconds") or 0 for lines in histories.values() for line in lines), default=0)
    return ("minutes", 60) if longest > 180 else ("seconds", 1)


def _has(line: Mapping[str, Any], *keys: str) -> bool:
    return all(line.get(key) is not None for key in keys)


def _tidy(axes: Axes, grid: Literal["both", "x"] = "both") -> None:
    axes.grid(axis=grid, color=INK, alpha=0.15)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _single_look(is_validation: bool) -> dict[str, Any]:
    if is_validation:
        return {"color": VERMILION, "label": "validation", "marker": "o", "markersize": 4, "linewidth": 1.6}
    return {"color": BLUE, "label": "training", "linewidth": 1.6}


def _look(number: int, name: str, is_validation: bool) -> dict[str, Any]:
    colour, dashes = RUN_COLOURS[number % len(RUN_COLOURS)], DASHES[number // len(RUN_COLOURS) % len(DASHES)]
    if is_validation:
        return {"color": colour, "linestyle": dashes, "linewidth": 2, "label": name, "marker": "o", "markersize": 4}
    return {"color": colour, "linestyle": dashes, "linewidth": 0.8, "alpha": 0.7, "label": f"_{name}"}


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
    figure = Figure(figsize=(8, min(wanted, MAX_HEIGHT)))
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for number, (run, rows) in enumerate(per_class.items()):
        places = np.arange(len(names)) + (number - (len(per_class) - 1) / 2) * height
        values = np.array([np.nan if row[key] is None else row[key] for row in rows], dtype=float)
        colour = RUN_COLOURS[number % len(RUN_COLOURS)]
        axes.barh(places, np.nan_to_num(values), 0.9 * height, color=colour, label=run)
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
    _tidy(axes, "x")
    axes.tick_params(axis="y", length=0)
    if len(per_class) > 1:
        figure.legend(loc="outside upper center", ncols=min(len(per_class), 3))
    return figure


@rc_context(STYLE)
def plot_confusion(matrix: NDArray[np.integer], names: Sequence[str]) -> Figure:
    """Draws where the labelled pixels of each class went, in % of its row; of many classes by colour alone.

    Args:
        matrix: (K, K) pixels, rows labels and columns predictions. Classes without a labelled pixel have an empty row.
        names: of the classes.
    """
    shares = row_shares(matrix)
    size = min(1.6 + len(names) * (0.75 if len(names) < 9 else 0.42), MAX_SIDE)
    figure = Figure(figsize=(size, size))
    figure.set_layout_engine("constrained")
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
    axes.tick_params(axis="x", rotation=0 if len(names) < 5 else 90)
    axes.set(xlabel="predicted, in % of the labelled pixels", ylabel="labelled")
    axes.spines[:].set_visible(False)
    return figure


def name_classes(axis: Axis, names: Sequence[str], at_most: int) -> None:
    """Writes the classes' names along an axis that has one place for each; of more than `at_most`, every nth."""
    places = range(0, len(names), math.ceil(len(names) / at_most))
    axis.set_ticks(places, [printable(names[place]) for place in places])


def row_shares(matrix: NDArray[np.integer]) -> NDArray[np.float64]:
    """Rows (K, K) divided by their sums; NaN in the rows of classes without a labelled pixel."""
    totals = matrix.sum(1, keepdims=True)
    return np.divide(matrix, totals, where=totals > 0, out=np.full(matrix.shape, np.nan))


@rc_context(STYLE)
def plot_examples(examples: Sequence[Example], labels: LabelSet) -> Figure:
    """Draws image, truth, prediction and error map of each example side by side, with its mean IoU and a legend of
    the classes in them.

    Args:
        examples: one row each.
        labels: names and colours.
    """
    tallest = sum(0.35 + 2.15 * example.image.height / example.image.width for example in examples)
    figure = Figure(figsize=(9, tallest + 0.6))
    figure.set_layout_engine("constrained")
    grid = figure.subplots(len(examples), 4, squeeze=False)
    for axes, title in zip(grid[0], ("image", "truth", "prediction", "errors"), strict=True):
        axes.set_title(title)
    for row, example in zip(grid, examples, strict=True):
        for axes, picture in zip(row, example_pictures(example, labels), strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(example.title, fontsize=10)
        row[0].set_xlabel(printable(example.name[-MAX_NAME:]), fontsize=8)
        row[2].set_xlabel(f"mean IoU {example.mean_iou:.3f}", fontsize=10)
    shown = ids_in(ids for example in examples for ids in (example.label, example.prediction))
    add_legend(figure, [*class_handles(labels, shown), Patch(color=np.divide(WRONG, 255), label="wrong")])
    return figure


def add_legend(figure: Figure, handles: Sequence[Patch]) -> None:
    """Below everything else, in as many columns as there is room for; the figure grows by its lines."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = min(len(handles), max(1, int(10.7 * figure.get_figwidth()) // (longest + 6)))  # in characters
    figure.set_figheight(figure.get_figheight() + 0.25 * math.ceil(len(handles) / columns))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)


def ids_in(maps: Iterable[NDArray[np.integer]]) -> set[int]:
    """Class ids that occur in some map; the ignore index may be among them."""
    return set().union(*(np.unique(ids).tolist() for ids in maps))


def example_pictures(example: Example, labels: LabelSet) -> tuple[NDArray[np.uint8], ...]:
    """Image, truth, prediction and error map of an example, each (H, W, 3)."""
    return (
        np.asarray(example.image.convert("RGB")),
        colour_overlay(example.image, example.label, labels),
        colour_overlay(example.image, example.prediction, labels),
        error_map(example, labels),
    )


def error_map(example: Example, labels: LabelSet) -> NDArray[np.uint8]:
    """The image (H, W, 3) in pale grey with its wrong pixels in a striking colour; ignored pixels are not wrong."""
    grey = np.asarray(example.image.convert("L"), dtype=np.float32)
    picture = np.repeat((120 + 0.5 * grey)[..., None], 3, axis=2)
    valid = np.isin(example.label, labels.scored)
    picture[valid & (example.label != example.prediction)] = WRONG
    picture[~valid] = (60 + 0.25 * grey)[~valid, None]  # not scored: dark
    return picture.astype(np.uint8)


def colour_overlay(image: Image.Image, ids: NDArray[np.integer], labels: LabelSet) -> NDArray[np.uint8]:
    """The image (H, W, 3) tinted with the classes' colours; pixels of no class stay as they are."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    valid = (ids >= 0) & (ids < labels.num_labels)
    colours = np.asarray(labels.palette, dtype=np.float32)[np.where(valid, ids, 0)]
    blended = np.where(valid[..., None], (1 - OVERLAY) * pixels + OVERLAY * colours, pixels)
    return blended.astype(np.uint8)


def class_handles(labels: LabelSet, chosen: Container[int] | None = None) -> list[Patch]:
    """The classes for a legend: all, or those with these ids."""
    assert labels.palette is not None
    return [
        Patch(color=np.divide(colour, 255), label=printable(name))
        for number, (name, colour) in enumerate(zip(labels.names, labels.palette, strict=True))
        if chosen is None or number in chosen
    ]


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a `.png` or `.svg` (white behind it)."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.removeprefix(".")
    with rc_context(STYLE), letters_may_lack(), written_whole(path) as partial:
        figure.savefig(partial, format=kind, dpi=110, metadata=NO_METADATA if kind == "svg" else None)


@contextmanager
def letters_may_lack() -> Iterator[None]:
    """Around drawing: letters that no font has become boxes, which is said once and not for each letter."""
    with warnings.catch_warnings(record=True) as caught:
        yield
    if any("missing from" in str(warning.message) for warning in caught):
        say_boxes()
    for warning in caught:
        if "missing from" not in str(warning.message):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@cache
def say_boxes() -> None:
    """Once in a process."""
    logger.warning(
        "No font of this machine has all letters of the names: they are boxes in the figures (report.html has the "
        "text). Install one that has, such as Noto Sans CJK (package fonts-noto-cjk)."
    )


def inline_svg(figure: Figure, title: str) -> str:
    """The figure as an `<svg>` element for a page: scales to its column, text and lines in the page's colour.

    Args:
        figure: any figure of this module without pictures in it.
        title: what it shows, for people who listen to the page. Escaped here.
    """
    file = io.StringIO()
    # another salt, other ids: several figures share a page
    with rc_context(STYLE | {"svg.hashsalt": title}), letters_may_lack():
        figure.savefig(file, format="svg", transparent=True, metadata=NO_METADATA)
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg)  # "axes_1" in every figure of the page
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg, count=2)  # HTML knows them
    width, height = (72 * inches for inches in figure.get_size_inches())
    opening = f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {width:g} {height:g}">'
    return opening + svg[svg.index(">") + 1 :].strip()
