"""Figures of a data set, for the label doctor: each class's share of the pixels, and samples with their masks."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray
from PIL import Image

from hfseg.data import UNREADABLE, upright
from hfseg.doctor.findings import Finding, Tile
from hfseg.doctor.inspection import File, Inspection, Sample, decode, open_file, spread
from hfseg.errors import UserError, printable
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

NUM_TILES = 24
MAX_FLAGGED = 16
MAX_PER_FAULT = 4
TILE_SIDE = 320  # pixels
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
    """Draws bars with each class's share of the pixels, side by side for the splits, and writes them to `path`.

    Args:
        shares: split -> one share for each name.
        names: the classes, and perhaps more rows such as ignored pixels.
        labels: the colours, shown beside the names.
        path: the picture's file.
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


def choose_tiles(findings: Sequence[Finding], inspections: Sequence[Inspection]) -> dict[int, tuple[str, ...]]:
    """Index of a sample -> its faults: a few samples of each fault, then unflagged ones spread over all splits."""
    owner = {file: index for index, found in enumerate(inspections) for file in (found.image_name, found.mask_name)}
    faults: dict[int, dict[str, None]] = defaultdict(dict)  # in the order of the findings
    examples: dict[str, set[int]] = defaultdict(set)
    for finding in findings:
        for index in [owner[file] for file in finding.files[:MAX_PER_FAULT] if file in owner]:
            faults[index][finding.fault] = None
            if len(examples[finding.fault]) < MAX_PER_FAULT:
                examples[finding.fault].add(index)
    chosen = list(dict.fromkeys(index for indexes in examples.values() for index in indexes))[:MAX_FLAGGED]
    clean = [index for index in range(len(inspections)) if index not in faults]
    return {index: tuple(faults.get(index, ())) for index in [*chosen, *spread(clean, NUM_TILES - len(chosen))]}


def load_tile(make_sample: Callable[[], Sample], faults: tuple[str, ...]) -> Tile:
    """Image and mask as a training would see them, reduced; of a refused mask the stored values."""
    sample = make_sample()
    image, ids = None, None
    with suppress(*UNREADABLE):
        image = load_image(sample.image)
    with suppress(*UNREADABLE):
        ids = None if sample.mask is None else load_ids(sample, sample.mask)
    if ids is not None:
        side = image.size if image else (TILE_SIDE, TILE_SIDE)
        ids = np.asarray(Image.fromarray(ids.astype(np.int32)).resize(side, Image.Resampling.NEAREST))
    return Tile(sample.name, sample.split, image, ids, faults)


def load_image(file: File) -> Image.Image:
    with open_file(file) as image:
        image.draft("RGB", (TILE_SIDE, TILE_SIDE))
        picture = upright(image).convert("RGB")
    picture.thumbnail((TILE_SIDE, TILE_SIDE))
    return picture


def load_ids(sample: Sample, mask: File) -> NDArray[Any] | None:
    """Ids (H, W), or None for a mask of colours."""
    try:
        return sample.read_ids(mask)
    except UserError:
        ids = decode(mask)
    return ids if ids.ndim == 2 else None


@rc_context(AS_IT_IS)
def plot_contact_sheet(tiles: Sequence[Tile], labels: LabelSet, title: str, path: Path) -> None:
    """Draws samples with their masks over them, flagged ones in a red frame with their faults; writes to `path`."""
    num_rows = -(-len(tiles) // SHEET_COLUMNS)
    tallest = max((tile.image.height / tile.image.width for tile in tiles if tile.image), default=0.75)
    height = (0.55 + 2.3 * min(tallest, 1)) * num_rows + 0.7
    figure = Figure(figsize=(2.4 * SHEET_COLUMNS, height), layout="constrained")
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
