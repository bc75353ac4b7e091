"""Any semantic segmentation model of transformers, and the image processor that belongs to it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    PreTrainedModel,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)
from transformers.utils import logging as transformers_logging

from hfseg.errors import UserError
from hfseg.labels import LabelSet
from hfseg.models.freezing import encoder_name
from hfseg.models.segformer import speed_up
from hfseg.models.sources import resolve

LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


def load_auto(folder: Path, labels: LabelSet, source: str) -> tuple[PreTrainedModel, str]:
    """A model of the class that its `config.json` names, in fp32, for this task's classes.

    Args:
        folder: config and safetensors, as `save_pretrained` writes them.
        labels: the classes of the task.
        source: where the folder comes from, for messages.

    Returns:
        The model, and a verdict: "exact", "all but the classifier" or "encoder only", and why.

    Raises:
        UserError: no semantic segmentation model of transformers, torn or missing files, weights that do not fit.
    """
    model, info = _load(folder, f"model.init={source!r}", id2label=labels.id2label, label2id=labels.label2id)
    return model, _verdict(model, info, source)


def load_trained(source: str) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A finished model in fp32 and evaluation mode, and its image processor; SegFormer in its fast form.

    Args:
        source: a folder or a Hub id.

    Raises:
        UserError: there is none, something of it is missing or torn, or it does no semantic segmentation.
    """
    folder = resolve(source, "model")
    model, info = _load(folder, f"model={source!r}")
    _check_complete(model, info, source)
    try:
        processor = AutoImageProcessor.from_pretrained(folder)
    except LOADING_ERRORS as error:
        raise UserError(
            f"model={source!r} has no image processor that can be loaded ({_first_line(error)}). Save the one that "
            "the model was trained with beside its weights: processor.save_pretrained(folder)."
        ) from error
    return speed_up(model) if isinstance(model, SegformerForSemanticSegmentation) else model, processor


def _load(folder: Path, called: str, **classes: dict[Any, Any]) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model and what transformers says of the loading; `called` names it in errors."""
    try:
        with _quiet():
            return AutoModelForSemanticSegmentation.from_pretrained(
                folder,
                **classes,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # each is looked at afterwards
                output_loading_info=True,
                use_safetensors=True,
            )
    except LOADING_ERRORS as error:
        raise UserError(f"{called} cannot be loaded as a semantic segmentation model: {_first_line(error)}") from error


def _check_complete(model: PreTrainedModel, info: dict[str, Any], source: str) -> None:
    """Raises UserError where weights are missing or are not those of the config, or classes do not count from 0."""
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("num_batches_tracked"))
    if missing:
        raise UserError(f"model={source!r} is not complete: {len(missing)} tensors such as {missing[0]} are missing.")
    misshapen = sorted(info["mismatched_keys"])
    if misshapen:
        name, found, expected = misshapen[0]
        raise UserError(
            f"model={source!r}: its weights are not those of its config: {name} is {tuple(found)}, and by the config "
            f"it is {tuple(expected)}. Compare `id2label` with the number of classes, or save the model again."
        )
    ids = sorted(model.config.id2label)
    if ids != list(range(len(ids))):
        raise UserError(
            f"model={source!r}: `id2label` in its config names the classes {ids}, not 0 to {len(ids) - 1}."
        )


def _verdict(model: PreTrainedModel, info: dict[str, Any], source: str) -> str:
    """What was loaded, from the report of `from_pretrained`; raises where it is less than the encoder."""
    missing = {name for name in info["missing_keys"] if not name.endswith("num_batches_tracked")}
    resized = {name: (old[0], new[0]) for name, old, new in info["mismatched_keys"] if old[1:] == new[1:]}
    misshapen = {name for name, _, _ in info["mismatched_keys"]} - resized.keys()
    counts = set(resized.values())
    encoder = encoder_name(model)
    # without a name for the encoder, nothing may be missing
    in_encoder = {name for name in missing | set(resized) if encoder and name.startswith(encoder + ".")}
    unknown = set() if encoder else missing
    foreign = {name for name in info["unexpected_keys"] if encoder and name.startswith(encoder + ".")}
    wrong = sorted(misshapen | in_encoder | unknown | foreign | set(info["error_msgs"]))
    if wrong or len(counts) > 1 or any(new != model.config.num_labels for _, new in counts):
        raise UserError(
            f"model.init={source!r} does not fit {type(model).__name__}: {len(wrong) or len(resized)} tensors are "
            f"missing, left over or of another shape, such as {(wrong or sorted(resized))[:3]}. "
            "Check where the checkpoint comes from."
        )
    if missing:
        return f"encoder only: {len(missing)} tensors of the head, such as {min(missing)}, are new"
    if resized:
        ((old, new),) = counts
        return f"all but the classifier, which is new: the checkpoint has {old} classes, this task {new}"
    return "exact: every tensor was loaded"


def reload(model: PreTrainedModel, folder: Path) -> None:
    """Fills a model from a checkpoint of itself, through `from_pretrained`.

    Some models of transformers have other names on disk than in memory. The stock Trainer does not translate them: it
    loads what happens to have the same name.

    Raises:
        UserError: a tensor is missing, left over or of another shape.
    """
    try:
        with _quiet():
            saved, info = type(model).from_pretrained(
                folder, ignore_mismatched_sizes=True, output_loading_info=True, use_safetensors=True
            )
    except LOADING_ERRORS as error:
        raise UserError(f"The checkpoint {folder} cannot be loaded: {_first_line(error)}") from error
    wrong = {key: names for key, names in info.items() if names}
    shapes = {name: x.shape for name, x in model.state_dict().items()}
    if wrong or shapes != {name: x.shape for name, x in saved.state_dict().items()}:
        raise UserError(f"The checkpoint {folder} does not fit the model: {wrong or 'it is another architecture'}.")
    model.load_state_dict(saved.state_dict())


def processor_beside(folder: Path, size: int | None, source: str, key: str = "model.init") -> SegformerImageProcessor:
    """The size and the normalisation of a model's own image processor, without its cropping and padding.

    A processor that crops or keeps the aspect ratio does not show the model the whole image in a known place, so the
    image is resized to the processor's size, both sides: what is scored, what is saved and what `pipeline` does agree.

    Args:
        folder: where the model's `preprocessor_config.json` is.
        size: side of the square that images are resized to, instead of the processor's own size.
        source: where the folder comes from, for messages.
        key: what the user calls it, for messages.

    Raises:
        UserError: there is no image processor, or it does more to the colours than scale and shift them.
    """
    try:
        with _quiet():
            own = AutoImageProcessor.from_pretrained(folder)
    except LOADING_ERRORS as error:
        raise UserError(
            f"{key}={source!r} has no image processor that can be loaded ({_first_line(error)}). Save the one "
            "that the model was trained with beside its weights: processor.save_pretrained(folder)."
        ) from error
    settings = json.loads(own.to_json_string())
    sides = settings.get("size") or {}
    side = size or sides.get("shortest_edge") or sides.get("longest_edge")
    if size is None and "height" in sides:
        chosen = {"height": sides["height"], "width": sides["width"]}
    elif side:
        chosen = {"height": side, "width": side}
    else:
        raise UserError(f"The image processor of {key}={source!r} has no size: set eval.size.")
    unit = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    is_normalised = settings.get("do_normalize") is not False and settings.get("image_mean") is not None
    processor = SegformerImageProcessor(
        size=chosen,
        resample=settings.get("resample", 2),
        do_resize=settings.get("do_resize", True),
        image_mean=[value / unit for value in (settings["image_mean"] if is_normalised else [0.0] * 3)],
        image_std=[value / unit for value in (settings["image_std"] if is_normalised else [1.0] * 3)],
    )
    _check_colours(own, processor, f"{key}={source!r}")
    return processor


def _check_colours(own: Any, processor: SegformerImageProcessor, which: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = own(images=image, do_resize=False, do_center_crop=False, do_pad=False, return_tensors="pt")
    found = processor(images=image, do_resize=False, return_tensors="pt")["pixel_values"]
    if expected["pixel_values"].shape != found.shape or not torch.allclose(
        expected["pixel_values"].float(), found, rtol=1e-4, atol=1e-4
    ):
        raise UserError(
            f"The image processor of {which}, {type(own).__name__}, does more to the colours than to "
            "scale and shift them, such as swapping channels: such a model cannot be trained or used here."
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the table and the bar of transformers: the verdict says it in one line."""
    verbosity, has_bar = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(transformers_logging.CRITICAL)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if has_bar:
            transformers_logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
