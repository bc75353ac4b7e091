"""Figures of a run: curves and predictions. Matplotlib without a display."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

from hfseg.labels import LabelSet

# Two of the Okabe-Ito colours: training and validation in every figure.
TRAINING, VALIDATION = "#0072B2", "#D55E00"
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
    assert labels.palette is not None
    handles = [
        Patch(color=np.divide(colour, 255), label=name)
        for name, colour in zip(labels.names, labels.palette, strict=True)
    ]
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
