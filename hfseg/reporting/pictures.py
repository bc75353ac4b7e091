"""Pictures of images with their classes: overlay, error map, and rows of examples."""

import math
from collections.abc import Container, Iterable, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from hfseg.errors import printable
from hfseg.labels import OVERLAY, LabelSet
from hfseg.reporting.style import STYLE, NotebookFigure
from hfseg.runs import Example

WRONG = (224, 0, 122)  # of an error map's wrong pixels: far from grey for any colour vision
MAX_NAME = 34  # characters under a picture: the end of a name tells images apart
Pixels = NDArray[np.uint8]


def colour_overlay(image: Image.Image, ids: NDArray[np.integer], labels: LabelSet) -> Pixels:
    """The image (H, W, 3) tinted with the classes' colours; pixels of no class stay as they are."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    valid = (ids >= 0) & (ids < labels.num_labels)
    colours = np.asarray(labels.palette, dtype=np.float32)[np.where(valid, ids, 0)]
    blended = np.where(valid[..., None], (1 - OVERLAY) * pixels + OVERLAY * colours, pixels)
    return blended.astype(np.uint8)


def error_map(example: Example, labels: LabelSet) -> Pixels:
    """The image (H, W, 3) in pale grey with its wrong pixels in a striking colour; ignored pixels are not wrong."""
    grey = np.asarray(example.image.convert("L"), dtype=np.float32)
    picture = np.repeat((120 + 0.5 * grey)[..., None], 3, axis=2)
    valid = np.isin(example.label, labels.scored)
    picture[valid & (example.label != example.prediction)] = WRONG
    picture[~valid] = (60 + 0.25 * grey)[~valid, None]  # not scored: dark
    return picture.astype(np.uint8)


def example_pictures(example: Example, labels: LabelSet) -> dict[str, Pixels]:
    """Image, truth, prediction and error map of an example, each (H, W, 3), by these names."""
    return {
        "image": np.asarray(example.image.convert("RGB")),
        "truth": colour_overlay(example.image, example.label, labels),
        "prediction": colour_overlay(example.image, example.prediction, labels),
        "errors": error_map(example, labels),
    }


@rc_context(STYLE)
def plot_examples(examples: Sequence[Example], labels: LabelSet) -> Figure:
    """Draws image, truth, prediction and error map of each example side by side, with its mean IoU and a legend of
    the classes in them.

    Args:
        examples: one row each.
        labels: names and colours.
    """
    tallest = sum(0.35 + 2.15 * example.image.height / example.image.width for example in examples)
    figure = NotebookFigure(figsize=(9, tallest + 0.6))
    grid = figure.subplots(len(examples), 4, squeeze=False)
    for row, example in zip(grid, examples, strict=True):
        for axes, (title, picture) in zip(row, example_pictures(example, labels).items(), strict=True):
            axes.imshow(picture)
            axes.set(xticks=[], yticks=[], title=title if axes in grid[0] else "")
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


def class_handles(labels: LabelSet, chosen: Container[int]) -> list[Patch]:
    """The classes with these ids, for a legend."""
    assert labels.palette is not None
    return [
        Patch(color=np.divide(colour, 255), label=printable(name))
        for number, (name, colour) in enumerate(zip(labels.names, labels.palette, strict=True))
        if number in chosen
    ]
