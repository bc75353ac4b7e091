"""The image processor that belongs to a model, and ours with its size and colours."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoImageProcessor, BaseImageProcessor, SegformerImageProcessor

from hfseg.config import RunConfig
from hfseg.errors import UserError, shown
from hfseg.models.model_files import (
    ModelConfigSchema,
    ProcessorConfigSchema,
    check_config,
    loading,
    read_config_file,
    resolve,
)
from hfseg.models.remote_code import code_options, remedy

FILES: dict[str, type[ProcessorConfigSchema] | type[ModelConfigSchema]] = {
    "preprocessor_config.json": ProcessorConfigSchema,
    "processor_config.json": ModelConfigSchema,
}
AS_IT_IS = {"do_resize": False, "do_center_crop": False, "do_pad": False}
NORMALISATION = (("image_mean", [0.0] * 3), ("image_std", [1.0] * 3))


def load_processor(config: RunConfig, source: str | None = None) -> SegformerImageProcessor:
    """The image processor of a run, to evaluate with and to save beside the weights.

    Its size is what evaluation uses; it does not resize where evaluation takes images as they are. For `type: auto`
    size and normalisation are those of the model's own processor, unless `eval.size` says another size.

    Args:
        config: of the run.
        source: overrides `config.model.init`.

    Raises:
        UserError: there is no processor beside the weights, or it cannot be reproduced.
    """
    source = source or config.model.init
    if config.model.type == "auto" and source is not None:
        trust = config.model.trust_remote_code
        processor = processor_beside(resolve(source), config.eval.size, source, trust=trust)
    else:
        processor = SegformerImageProcessor(size={"height": config.eval_size, "width": config.eval_size})
    processor.do_resize = not config.eval.is_native
    return processor


def own_processor(source: str | Path, name_in_errors: str, trust: bool = False) -> BaseImageProcessor:
    """The image processor in a model's folder or repository.

    Args:
        source: where its `preprocessor_config.json` is; or a Hub id, of which nothing else is downloaded.
        name_in_errors: what the user calls it, for messages.
        trust: whether code that comes with the model may be run.

    Raises:
        UserError: there is none, or what it is told to do cannot be done.
    """
    folder = Path(source)
    trees = [read_config_file(folder / name, kind) for name, kind in FILES.items() if (folder / name).is_file()]
    described = trees[0] if trees else {}
    helps = (
        " Save the one that the model was trained with beside its weights: processor.save_pretrained(folder)."
        + remedy(described, trust)
    )
    with loading(f"{name_in_errors} has no image processor that can be loaded", helps):
        processor: BaseImageProcessor = AutoImageProcessor.from_pretrained(
            source, **code_options(described, folder, name_in_errors, trust)
        )
        settings = json.loads(processor.to_json_string())
        check_config(settings, ProcessorConfigSchema, f"The image processor of {name_in_errors}")
        processor(images=[np.zeros((8, 8, 3), np.uint8)], return_tensors="pt", **AS_IT_IS)
    return processor


def processor_beside(
    folder: Path, size: int | None, source: str, key: str = "model.init", trust: bool = False
) -> SegformerImageProcessor:
    """The size and the normalisation of a model's own image processor, without its cropping and padding.

    A processor that crops or keeps the aspect ratio does not show the model the whole image in a known place, so the
    image is resized to the processor's size, both sides: what is scored, what is saved and what `pipeline` does agree.

    Args:
        folder: where the model's `preprocessor_config.json` is.
        size: side of the square that images are resized to, instead of the processor's own size.
        source: where the folder comes from, for messages.
        key: what the user calls it, for messages.
        trust: whether code that comes with the model may be run.

    Raises:
        UserError: there is no image processor, or it does more to the colours than scale and shift them.
    """
    own = own_processor(folder, f"{key}={shown(source)}", trust)
    settings = json.loads(own.to_json_string())
    given = settings.get("size") or {}
    sides = given if isinstance(given, dict) else {"shortest_edge": given}
    side = size or sides.get("shortest_edge") or sides.get("longest_edge")
    if size is None and "height" in sides:
        chosen = {"height": sides["height"], "width": sides["width"]}
    elif side:
        chosen = {"height": side, "width": side}
    else:
        raise UserError(f"The image processor of {key}={shown(source)} has no size: set eval.size.")
    unit = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 255.0
    is_normalised = settings.get("do_normalize") is not False and settings.get("image_mean") is not None
    mean, std = ((settings[name] if is_normalised else default) for name, default in NORMALISATION)
    processor = SegformerImageProcessor(
        size=chosen,
        resample=settings.get("resample", 2),
        do_resize=settings.get("do_resize", True),
        image_mean=[value / unit for value in (mean if isinstance(mean, list) else [mean] * 3)],
        image_std=[value / unit for value in (std if isinstance(std, list) else [std] * 3)],
    )
    _check_colours(own, processor, f"{key}={shown(source)}")
    return processor


def _check_colours(own: Any, processor: SegformerImageProcessor, which: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    with loading(f"The image processor of {which} fails on an image"):
        expected = own(images=image, return_tensors="pt", **AS_IT_IS)
        found = processor(images=image, do_resize=False, return_tensors="pt")["pixel_values"]
    if expected["pixel_values"].shape != found.shape or not torch.allclose(
        expected["pixel_values"].float(), found, rtol=1e-4, atol=1e-4
    ):
        raise UserError(
            f"The image processor of {which}, {type(own).__name__}, does more to the colours than to "
            "scale and shift them, such as swapping channels: such a model cannot be trained or used here."
        )
