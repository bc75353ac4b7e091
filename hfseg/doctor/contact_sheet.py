"""Figures of a data set, for the label doctor: each class's share of the pixels, and samples with their masks."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from hfseg.doctor.findings import Tile
from hfseg.errors import printable
from hfseg.labels import LabelSet
from hfseg.reporting import (
    MAX_HEIGHT,
    MAX_HEIGHT_NAMES,
    STYLE,
    add_legend,
    class_handles,
    colour_overlay,
    ids_in,
    name_classes,
    save_figure,
)

SPLIT_COLOURS = ("#0072B2", "#D55E00", "#009E73")
FAULTY = "#B00020"
UNKNOWN = (255, 0, 0)  # of ids that are no class
SHEET_COLUMNS = 6
MAX_NAME = 28  # characters under a picture of the contact sheet
AS_IT_IS = {key: STYLE[key] for key in ("text.parse_math", "font.family")}  # names of files and classes as they are


@rc_context(AS_IT_IS)
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
    wanted = 1.2 + (0.1 + 0.15 * len(shares)) * len(names)
    figure = Figure(figsize=(9, min(wanted, MAX_HEIGHT)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(len(shares), 1)
    for number, (split, values) in enumerate(shares.items()):
        places = np.arange(len(names)) + (number - (len(shares) - 1) / 2) * height
        bars = axes.barh(places, 100 * values, height, color=SPLIT_COLOURS[number % len(SPLIT_COLOURS)], label=split)
        if wanted <= MAX_HEIGHT:
            axes.bar_label(bars, [f"{100 * value:.2f}" for value in values], padding=3, fontsize=8, color="#444444")
    for row, colour in enumerate(labels.palette):
        swatch = Rectangle((-0.018, row - 0.3), 0.011, 0.6, color=np.divide(colour, 255), clip_on=False)
        swatch.set_transform(axes.get_yaxis_transform())
        axes.add_patch(swatch)
    name_classes(axes.yaxis, names, MAX_HEIGHT_NAMES)
    axes.set(xlabel="share of the pixels in %", ylim=(len(names) - 0.4, -0.6))
    axes.tick_params(axis="y", length=0, pad=14)
    axes.margins(x=0.08)
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(frameon=False, loc="outside upper right", ncols=len(shares))
    save_figure(figure, path)


@rc_context(AS_IT_IS)
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
    figure = Figure(
        figsize=(2.4 * SHEET_COLUMNS, (0.55 + 2.3 * min(tallest, 1)) * num_rows + 0.7), layout="constrained"
    )
    figure.suptitle(printable(title), fontsize=13)
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
    handles = class_handles(labels, ids_in(tile.ids for tile in tiles if tile.ids is not None))
    if has_unknown:
        handles.append(Patch(color=np.divide(UNKNOWN, 255), label="not a class"))
    if handles:
        add_legend(figure, handles)
    save_figure(figure, path)


def draw_tile(tile: Tile, labels: LabelSet) -> tuple[NDArray[np.uint8], bool]:
    """The picture (H, W, 3) of a tile, and whether its mask has ids that are no class."""
    size = (tile.ids.shape[1], tile.ids.shape[0]) if tile.ids is not None else (160, 120)
    image = tile.image or Image.new("RGB", size, (225, 225, 225))
    if tile.ids is None:
        return np.asarray(image), False
    picture = colour_overlay(image, tile.ids, labels)
    unknown = ((tile.ids < 0) | (tile.ids >= labels.num_labels)) & (tile.ids != labels.ignore_index)
    picture[unknown] = UNKNOWN
    return picture, bool(unknown.any())


def shorten(name: str) -> str:
    """The end of a long name, which tells the samples of a data set apart."""
    return printable(name if len(name) <= MAX_NAME else f"…{name[1 - MAX_NAME :]}")
