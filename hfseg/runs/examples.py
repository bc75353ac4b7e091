"""The validation images that a run keeps with their labels and predictions, to draw them again without the data."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hfseg.labels import LabelSet
from hfseg.runs.counts import load_arrays, write_arrays

MAX_SIDE = 640  # of the pictures that are kept


@dataclass(frozen=True)
class Example:
    """One image with its labels (H, W) and the model's classes (H, W), and the mean IoU between them.

    `title` says why it is shown, such as "best"; empty for one of a fixed handful.
    """

    name: str
    image: Image.Image
    label: NDArray[np.integer]
    prediction: NDArray[np.integer]
    mean_iou: float
    title: str = ""


def save_examples(examples: Sequence[Example], labels: LabelSet, path: Path) -> None:
    """Writes an `.npz` that `load_examples` reads, with pictures of at most 640 pixels."""
    assert labels.palette is not None
    arrays: dict[str, NDArray[Any]] = {
        "names": np.array([example.name for example in examples], dtype=np.str_),
        "titles": np.array([example.title for example in examples], dtype=np.str_),
        "mean_iou": np.array([example.mean_iou for example in examples], dtype=np.float64),
        "class_names": np.array(labels.names, dtype=np.str_),
        "palette": np.array(labels.palette, dtype=np.uint8),
        "ignore_index": np.array(labels.ignore_index),
    }
    for number, example in enumerate(examples):
        factor = min(1, MAX_SIDE / max(example.image.size))
        width, height = (max(1, round(side * factor)) for side in example.image.size)
        arrays[f"image_{number}"] = np.asarray(example.image.resize((width, height), Image.Resampling.LANCZOS))
        for kind, ids in (("label", example.label), ("prediction", example.prediction)):
            resized = Image.fromarray(ids.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
            arrays[f"{kind}_{number}"] = np.asarray(resized).astype(ids.dtype)
    write_arrays(path, arrays)


def load_examples(path: Path) -> tuple[list[Example], LabelSet]:
    """The examples of a file that `save_examples` wrote, with the classes and their colours.

    Raises:
        OSError, ValueError or KeyError: there is no such file, or it is damaged.
    """
    file = load_arrays(path)
    palette = [(int(red), int(green), int(blue)) for red, green, blue in file["palette"]]
    labels = LabelSet(file["class_names"].tolist(), int(file["ignore_index"]), palette)
    examples = [
        Example(
            str(name),
            Image.fromarray(file[f"image_{number}"]),
            file[f"label_{number}"],
            file[f"prediction_{number}"],
            float(file["mean_iou"][number]),
            str(file["titles"][number]),
        )
        for number, name in enumerate(file["names"])
    ]
    return examples, labels
