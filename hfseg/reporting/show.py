"""show(images, masks, labels): pictures of images and of masks over them, with the classes' colours."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from transformers import PreTrainedModel

from hfseg.data import decode_label, reading
from hfseg.errors import UserError, printable, shown
from hfseg.inference import ImageLike, labels_of, read_image
from hfseg.labels import LabelSet
from hfseg.reporting.pictures import MAX_NAME, add_legend, class_handles, colour_overlay, ids_in
from hfseg.reporting.style import STYLE, NotebookFigure

MaskLike: TypeAlias = str | Path | Image.Image | NDArray[np.integer] | torch.Tensor
Classes: TypeAlias = LabelSet | PreTrainedModel | Mapping[int, str]
COLUMNS = 4  # pictures in a row
WIDTH = 9.0  # inches of a row
MAX_SIDE = 640  # pixels that are drawn of an image


@rc_context(STYLE)
def show(
    images: ImageLike | Sequence[ImageLike],
    masks: MaskLike | Sequence[MaskLike] | None = None,
    labels: Classes | None = None,
) -> Figure:
    """Draws images and, beside each, its mask over it in the classes' colours, with a legend of those that occur.

    Args:
        images: paths, PIL images or uint8 arrays (H, W, 3), one or several.
        masks: as many maps of class ids (H, W), such as `hfseg.predict` returns: arrays, tensors, PIL images or paths.
        labels: the classes: a LabelSet, a model, or its `id2label`. Without it, classes are called by their ids, and
            255 is the ignore index. Ignored pixels have no colour.

    Returns:
        The figure, which a notebook shows; `figure.savefig("x.png")` writes it.

    Raises:
        UserError: an image or mask cannot be read, their numbers or sizes differ, or a mask has ids of no class; says
            which one.
    """
    images = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
    masks = [masks] if isinstance(masks, str | Path | Image.Image | np.ndarray | torch.Tensor) else masks
    if not images or (masks is not None and len(masks) != len(images)):
        raise UserError(f"There are {len(images)} images and {len(masks or [])} masks. Give one mask for each image.")
    pictures = [read_image(image) for image in images]
    maps = [_read_map(mask, number) for number, mask in enumerate(masks or [])]
    classes = _label_set(labels, maps)
    for number, (picture, ids) in enumerate(zip(pictures, maps, strict=bool(maps))):
        _check_map(ids, picture, classes, number)
    names = [Path(image).name if isinstance(image, str | Path) else "" for image in images]
    figure = _draw(pictures, maps, classes, names)
    handles = class_handles(classes, ids_in(maps))
    if handles:
        add_legend(figure, handles)
    return figure


def _read_map(mask: MaskLike, number: int) -> NDArray[np.integer]:
    """Class ids (H, W)."""
    if isinstance(mask, str | Path):
        with reading(mask):
            return decode_label(Path(mask).expanduser().read_bytes())
    ids: NDArray[Any] = mask.cpu().numpy() if isinstance(mask, torch.Tensor) else np.asarray(mask)
    if ids.ndim != 2 or ids.dtype.kind not in "biu" or not ids.size:
        raise UserError(f"Mask {number} is {ids.dtype} of shape {ids.shape}, not a map of class ids (height, width).")
    return ids.astype(np.uint8) if ids.dtype == bool else ids


def _label_set(labels: Classes | None, maps: Sequence[NDArray[np.integer]]) -> LabelSet:
    if isinstance(labels, LabelSet):
        return labels
    if isinstance(labels, PreTrainedModel):
        found = labels_of(labels)
        return LabelSet(found.names, LabelSet.of_config(labels.config).ignore_index, found.palette)
    if labels is None:
        largest = max((index for index in ids_in(maps) if index != 255), default=0)
        return LabelSet([str(index) for index in range(max(largest, 0) + 1)], ignore_index=255)
    if not isinstance(labels, Mapping) or sorted(labels) != list(range(len(labels))):
        raise UserError(
            f"labels={shown(labels)}: give a LabelSet, a model, or an `id2label` such as {{0: 'road', 1: 'car'}}."
        )
    return LabelSet([str(labels[index]) for index in range(len(labels))])


def _check_map(ids: NDArray[np.integer], picture: Image.Image, classes: LabelSet, number: int) -> None:
    """Raises UserError where a mask is not one of its image, by its size or its ids."""
    if ids.shape != (picture.height, picture.width):
        raise UserError(
            f"Mask {number} has shape {ids.shape} and its image {(picture.height, picture.width)} (height, width). "
            "Check that they belong together; `hfseg.predict` gives masks of their image's size."
        )
    unknown = sorted(ids_in([ids]) - {*range(classes.num_labels), classes.ignore_index})
    if unknown:
        raise UserError(
            f"Mask {number} has the ids {shown(unknown[:5])}, which are neither one of the {classes.num_labels} "
            f"classes nor the ignore index {classes.ignore_index}. Give the `labels` that the mask was made with."
        )


def _draw(
    pictures: Sequence[Image.Image], maps: Sequence[NDArray[np.integer]], classes: LabelSet, names: Sequence[str]
) -> NotebookFigure:
    """A grid of the images, each with its overlay behind it; names are written below the images."""
    cells: list[tuple[Image.Image | NDArray[np.uint8], str]] = []
    for number, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        size = _drawn_size(picture)
        small = picture.resize(size, Image.Resampling.LANCZOS)
        cells.append((small, name))
        if maps:
            ids = Image.fromarray(maps[number].astype(np.int32)).resize(size, Image.Resampling.NEAREST)
            cells.append((colour_overlay(small, np.asarray(ids), classes), ""))
    columns = min(COLUMNS, len(cells))
    side = WIDTH / max(columns, 2)
    shapes = [picture.height / picture.width for picture in pictures for _ in range(len(cells) // len(pictures))]
    heights = [side * max(shapes[start : start + columns]) + 0.25 for start in range(0, len(cells), columns)]
    figure = NotebookFigure(figsize=(side * columns, sum(heights)))
    grid = figure.subplots(len(heights), columns, squeeze=False, height_ratios=heights).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (cell, name) in zip(grid, cells, strict=False):
        axes.imshow(cell)
        axes.set_axis_on()
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(printable(name[-MAX_NAME:]), fontsize=8)
        axes.spines[:].set_visible(False)
    return figure


def _drawn_size(picture: Image.Image) -> tuple[int, int]:
    factor = min(1, MAX_SIDE / max(picture.size))
    return max(1, round(factor * picture.width)), max(1, round(factor * picture.height))
