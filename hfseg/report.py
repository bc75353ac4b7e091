"""Figures of a run and of its data, by Matplotlib without a display, and the table of results."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from rich.table import Table

from hfseg.data.findings import Tile
from hfseg.labels import LabelSet
from hfseg.scores import with_interval

# Two of the Okabe-Ito colours: training and validation in every figure.
TRAINING, VALIDATION = "#0072B2", "#D55E00"
SPLIT_COLOURS = (TRAINING, VALIDATION, "#009E73")
FAULTY = "#B00020"
UNKNOWN = (255, 0, 0)  # of ids that are no class
SHEET_COLUMNS = 6
MAX_NAME = 28  # characters under a picture of the contact sheet
OVERLAY = 0.55  # weight of the class colour over the image


@dataclass(frozen=True)
class Example:
    """One image with its labels (H, W) and the model's classes (H, W), and the mean IoU between them."""

    name: str
    image: Image.Image
    label: NDArray[np.integer]
    prediction: NDArray[np.integer]
    mean_iou: float


def plot_curves(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws loss and mean IoU against steps, training and validation together.

    Args:
        history: lines of `history.jsonl`.
        path: the picture to write.
    """
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    panels = zip(
        figure.subplots(1, 2),
        (("loss", "eval_loss", "loss"), ("train_mean_iou", "eval_mean_iou", "mean IoU")),
        strict=True,
    )
    for axes, (train_key, eval_key, title) in panels:
        for key, colour, name, marker in (
            (train_key, TRAINING, "training", ""),
            (eval_key, VALIDATION, "validation", "o"),
        ):
            points = [(line["step"], line[key]) for line in history if line.get(key) is not None]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=name, marker=marker, markersize=3)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False)
    save_figure(figure, path)


def plot_predictions(examples: Sequence[Example], labels: LabelSet, path: Path) -> None:
    """Draws image, truth and prediction of each example side by side, with its mean IoU and a legend.

    Args:
        examples: one row each.
        labels: names and colours.
        path: the picture to write.
    """
    figure = Figure(figsize=(9, 2.5 * len(examples) + 0.6), layout="constrained")
    grid = figure.subplots(len(examples), 3, squeeze=False)
    for axes, title in zip(grid[0], ("image", "truth", "prediction"), strict=True):
        axes.set_title(title, fontsize=12)
    for row, example in zip(grid, examples, strict=True):
        pictures = (
            np.asarray(example.image),
            colour_overlay(example.image, example.label, labels),
            colour_overlay(example.image, example.prediction, labels),
        )
        for axes, picture in zip(row, pictures, strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(example.name, fontsize=9)
        row[2].set_xlabel(f"mean IoU {example.mean_iou:.3f}", fontsize=10)
    handles = class_handles(labels)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7), frameon=False)
    save_figure(figure, path)


def colour_overlay(image: Image.Image, ids: NDArray[np.integer], labels: LabelSet) -> NDArray[np.uint8]:
    """The image (H, W, 3) tinted with the classes' colours; ignored pixels stay as they are."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    valid = (ids >= 0) & (ids < labels.num_labels)
    colours = np.asarray(labels.palette, dtype=np.float32)[np.where(valid, ids, 0)]
    blended = np.where(valid[..., None], (1 - OVERLAY) * pixels + OVERLAY * colours, pixels)
    return blended.astype(np.uint8)


def save_figure(figure: Figure, path: Path) -> None:
    """Writes a picture under a temporary name first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=110)
    partial.replace(path)


def plot_class_distribution(
    shares: Mapping[str, NDArray[np.floating]], names: Sequence[str], labels: LabelSet, path: Path
) -> None:
    """Draws bars with each class's share of the pixels, side by side for the splits.

    Args:
        shares: split -> one share for each name.
        names: the classes, and perhaps more rows such as ignored pixels.
        labels: the colours, shown beside the names.
        path: the picture to write.
    """
    assert labels.palette is not None
    figure = Figure(figsize=(9, 1.2 + (0.1 + 0.15 * len(shares)) * len(names)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(len(shares), 1)
    for number, (split, values) in enumerate(shares.items()):
        places = np.arange(len(names)) + (number - (len(shares) - 1) / 2) * height
        bars = axes.barh(places, 100 * values, height, color=SPLIT_COLOURS[number % len(SPLIT_COLOURS)], label=split)
        axes.bar_label(bars, [f"{100 * value:.2f}" for value in values], padding=3, fontsize=8, color="#444444")
    for row, colour in enumerate(labels.palette):
        swatch = Rectangle((-0.018, row - 0.3), 0.011, 0.6, color=np.divide(colour, 255), clip_on=False)
        swatch.set_transform(axes.get_yaxis_transform())
        axes.add_patch(swatch)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="share of the pixels in %", ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0, pad=14)
    axes.margins(x=0.08)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right", ncols=len(shares))
    save_figure(figure, path)


def plot_contact_sheet(tiles: Sequence[Tile], labels: LabelSet, title: str, path: Path) -> None:
    """Draws samples with their masks over them; flagged ones come in a red frame, with their faults.

    Args:
        tiles: the samples.
        labels: names and colours.
        title: of the whole sheet.
        path: the picture to write.
    """
    num_rows = -(-len(tiles) // SHEET_COLUMNS)
    tallest = max((tile.image.height / tile.image.width for tile in tiles if tile.image), default=0.75)
    figure = Figure(figsize=(2.4 * SHEET_COLUMNS, (0.55 + 2.3 * min(tallest, 1)) * num_rows + 1), layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.subplots(num_rows, SHEET_COLUMNS, squeeze=False).ravel()
    has_unknown = False
    for axes, tile in zip(grid, tiles, strict=False):
        picture, unknown = draw_tile(tile, labels)
        has_unknown |= unknown
        axes.imshow(picture)
        axes.set_title(f"{shorten(tile.name)}\n{tile.split}", fontsize=8, color=FAULTY if tile.faults else "black")
        axes.set_xlabel("\n".join(tile.faults), fontsize=8, color=FAULTY, fontweight="bold")
        axes.spines[:].set(visible=bool(tile.faults), color=FAULTY, linewidth=2.5)
    for axes in grid:
        axes.set(xticks=[], yticks=[])
    for axes in grid[len(tiles) :]:
        axes.set_axis_off()
    handles = class_handles(labels)
    if has_unknown:
        handles.append(Patch(color=np.divide(UNKNOWN, 255), label="not a class"))
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 8), frameon=False)
    save_figure(figure, path)


def draw_tile(tile: Tile, labels: LabelSet) -> tuple[NDArray[np.uint8], bool]:
    """The picture (H, W, 3) of a tile, and whether its mask has ids that are no class."""
    size = (tile.ids.shape[1], tile.ids.shape[0]) if tile.ids is not None else (160, 120)
    image = tile.image or Image.new("RGB", size, (225, 225, 225))
    if tile.ids is None:
        return np.asarray(image), False
    picture = colour_overlay(image, tile.ids, labels)
    unknown = (tile.ids >= labels.num_labels) & (tile.ids != labels.ignore_index)
    picture[unknown] = UNKNOWN
    return picture, bool(unknown.any())


def shorten(name: str) -> str:
    """The end of a long name, which tells the samples of a data set apart."""
    return name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}"


def class_handles(labels: LabelSet) -> list[Patch]:
    """The classes for a legend."""
    assert labels.palette is not None
    return [
        Patch(color=np.divide(colour, 255), label=name)
        for name, colour in zip(labels.names, labels.palette, strict=True)
    ]


def print_table(per_class: dict[str, list[dict[str, Any]]], metrics: dict[str, Any]) -> None:
    """The result: IoU per class on both splits, and what a constant answer would have scored."""
    table = Table(title="IoU per class, at the labels' native size")
    table.add_column("class")
    for split in ("validation", "test"):
        table.add_column(split, justify="right")
    for rows in zip(per_class["eval"], per_class["test"], strict=True):
        table.add_row(rows[0]["name"], *("-" if row["iou"] is None else f"{row['iou']:.4f}" for row in rows))
    table.add_section()
    table.add_row("mean IoU", *(with_interval(metrics, f"{prefix}_mean_iou") for prefix in per_class), style="bold")
    table.add_row("pixel accuracy", *(f"{metrics[f'{prefix}_pixel_accuracy']:.4f}" for prefix in per_class))
    constant = metrics["test_constant_class"]
    table.add_row(
        f"mean IoU of {constant!r} everywhere",
        *(f"{metrics[f'{prefix}_constant_mean_iou']:.4f}" for prefix in per_class),
        style="dim",
    )
    Console().print(table)
