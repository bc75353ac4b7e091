"""A trained model as it looks at images: loaded, on its device, and with a name for all that it depends on."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel, SegformerImageProcessor

from hfseg.config import EvalConfig
from hfseg.data import cityscapes_labels, pet_labels
from hfseg.errors import UserError, printable
from hfseg.inference.predict import image_strips
from hfseg.inference.view import load_view
from hfseg.labels import LabelSet
from hfseg.models import (
    Rows,
    inference_copy,
    load_trained,
    processor_beside,
    provenance_of,
    resolve,
    temperature_of,
    weight_files,
)


@dataclass(frozen=True)
class Predictor:
    """A trained model as it looks at images, and what its predictions depend on."""

    network: nn.Module
    processor: SegformerImageProcessor
    view: EvalConfig
    labels: LabelSet
    temperature: float
    device: torch.device
    settings: Mapping[str, Any]


def load_predictor(
    source: str, overrides: Sequence[str], device: torch.device, trust_remote_code: bool = False
) -> Predictor:
    """The model, ready on its device; see `predict_images` for what is raised."""
    folder = resolve(source, "--model")
    model, stored = load_trained(str(folder), trust_remote_code)
    run_config = next((file for file in run_configs(folder) if file.is_file()), None)
    does_resize = json.loads(stored.to_json_string()).get("do_resize", True)
    view = load_view(run_config, overrides, "resize" if does_resize else "whole")
    processor = processor_beside(folder, view.size, source, "--model", trust_remote_code)
    processor.do_resize = not view.is_native
    labels = labels_of(model)
    settings = {
        "model": source,
        "weights": digest(folder),
        "classes": labels.names,
        "eval": view.model_dump(mode="json", exclude={"boundary", "calibration"}),
    }
    model = model.to(device).eval()
    network = inference_copy(model) or model
    return Predictor(
        network, processor, view, labels, temperature_of(model.config), device, json.loads(json.dumps(settings))
    )


def run_configs(folder: Path) -> list[Path]:
    """Where the config of the run that made a model may be: beside a published one, above one in a run's folder."""
    return [folder / "run_config.yaml", *([folder.parent / "run_config.yaml"] if folder.name == "model" else [])]


def digest(folder: Path) -> str:
    """Of everything in a model's folder that its predictions depend on."""
    described = [folder / name for name in ("config.json", "preprocessor_config.json") if (folder / name).is_file()]
    total = hashlib.sha256()
    for path in (*described, *weight_files(folder)):
        with path.open("rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def labels_of(model: PreTrainedModel) -> LabelSet:
    """The classes of a model, in the colours that it was trained with, or that its data set is known by."""
    names = [printable(str(model.config.id2label[index])) for index in range(model.config.num_labels)]
    names = [name if names.count(name) == 1 else f"{name} ({index})" for index, name in enumerate(names)]
    palette = provenance_of(model.config).get("palette")
    if palette is not None and len(palette) != len(names):
        raise UserError(
            f"{model.name_or_path or 'The model'}: `hfseg.palette` in its config has {len(palette)} colours for "
            f"{len(names)} classes. Remove the key, or save the model again."
        )
    for known in (cityscapes_labels(), pet_labels("class"), pet_labels("ignore")):
        if palette is None and list(known.names) == names:
            palette = known.palette
    return LabelSet(names, ignore_index=-1, palette=palette)


@torch.no_grad()
def segment(
    predictor: Predictor, pixel_values: torch.Tensor | Sequence[Rows], sizes: Sequence[tuple[int, int]]
) -> Iterator[tuple[NDArray[Any], float]]:
    """Class ids (H, W) at native size, uint8 or uint16, and the mean confidence of each image.

    Raises:
        UserError: the model does not take images of that size, or the memory does not, or it gives no numbers.
    """
    try:
        if isinstance(pixel_values, torch.Tensor):
            pixel_values = pixel_values.to(predictor.device)
        for strips in image_strips(predictor.network, pixel_values, sizes, predictor.view):
            yield class_ids(strips, predictor.temperature)
    except torch.OutOfMemoryError as error:
        raise UserError(f"The GPU's memory does not hold {len(sizes)} images; lower --batch-size.") from error


def class_ids(strips: Iterable[torch.Tensor], temperature: float) -> tuple[NDArray[Any], float]:
    """The class of each pixel, and the mean over pixels of its probability.

    Args:
        strips: logits (K, rows, W) from the top.
        temperature: what they are divided by before the softmax.
    """
    ids, total = [], 0.0
    for strip in strips:
        best = strip.max(dim=0)
        ids.append(best.indices.cpu().numpy().astype(np.uint8 if len(strip) <= 256 else np.uint16))
        # the largest term of the softmax, without the others
        total += float(torch.exp(best.values / temperature - (strip / temperature).logsumexp(dim=0)).sum())
    whole = np.concatenate(ids)
    return whole, total / whole.size
