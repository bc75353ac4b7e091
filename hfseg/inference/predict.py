"""predict(model, images): class ids at the images' own size."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.data import as_rgb, open_image, reading, upright
from hfseg.errors import UserError
from hfseg.models import (
    Rows,
    Whole,
    forward_logits,
    inference_copy,
    load_trained,
    logit_strips,
    own_processor,
    temperature_of,
    views,
)

# A crop or a margin would be stretched over the image with its classes; without them the model sees all of it.
WHOLE_IMAGE = {"do_center_crop": False, "do_pad": False}

ImageLike = str | Path | Image.Image | NDArray[np.uint8]


@torch.no_grad()
def predict(
    model: PreTrainedModel | str | Path,
    images: ImageLike | Sequence[ImageLike],
    processor: BaseImageProcessor | None = None,
    batch_size: int = 8,
    return_probabilities: bool = False,
    eval: EvalConfig | None = None,
) -> Any:
    """Segments images as the evaluation does.

    Args:
        model: any semantic segmentation model, which is put into evaluation mode; or a folder (of a run, or with a
            model) or a Hub id.
        images: paths, PIL images or uint8 arrays (H, W, 3), one or several.
        processor: the image processor; by default the one in the folder or repository that the model came from.
        batch_size: images per forward pass, where the processor makes them one size.
        return_probabilities: also return the softmax over classes, of logits divided by the temperature in the model's
            config, if there is one (`config.hfseg["temperature"]`, which a run fits on validation): as confident as
            the model is right. The class ids do not depend on it.
        eval: the mode, as in the evaluation; by default one pass. In `resize` the size is the processor's, and a
            processor that does not resize makes it `whole`. `whole` and `slide` take the images one by one.

    Returns:
        A list of class id arrays (H, W), uint8 (int32 for more than 256 classes), one for each image. With
        `return_probabilities`, that list and a list of float32 arrays (K, H, W).

    Raises:
        UserError: an image cannot be read, or there is no processor to be found, or the temperature is no
            positive number, or the model gives no numbers.
    """
    if isinstance(images, str | Path | Image.Image | np.ndarray):
        images = [images]
    if isinstance(model, str | Path):
        model, found = load_trained(str(model))
        processor = processor or found
    processor = processor or processor_of(model)
    model.eval()
    network = inference_copy(model) or model
    temperature = temperature_of(model.config) if return_probabilities else None
    masks: list[NDArray[Any]] = []
    probabilities: list[NDArray[np.float32]] = []
    options = eval or EvalConfig()
    is_native = options.is_native or not processor.do_resize
    batch_size = batch_size if not is_native and makes_one_size(processor) else 1
    for start in range(0, len(images), batch_size):
        batch = [read_image(image) for image in images[start : start + batch_size]]
        sizes = [(image.height, image.width) for image in batch]
        pixel_values: torch.Tensor | list[Rows]
        if options.mode == "slide":
            pixel_values = [PixelRows(image, processor, model.device, model.dtype) for image in batch]
        else:
            inputs = processor(images=batch, return_tensors="pt", do_resize=not is_native, **WHOLE_IMAGE)
            pixel_values = inputs["pixel_values"].to(model.device, model.dtype)
        for strips in image_strips(network, pixel_values, sizes, options):
            parts = [_ids_and_probabilities(strip, temperature) for strip in strips]
            masks.append(np.concatenate([ids for ids, _ in parts]))
            if return_probabilities:
                probabilities.append(np.concatenate([values for _, values in parts], axis=1))
    return (masks, probabilities) if return_probabilities else masks


def image_strips(
    network: nn.Module,
    pixel_values: torch.Tensor | Sequence[Rows],
    sizes: Sequence[tuple[int, int]],
    options: EvalConfig,
) -> Iterator[Iterator[torch.Tensor]]:
    """For each image of a batch its logits at native size, from the top, in strips (K, rows, width).

    Args:
        network: in evaluation mode.
        pixel_values: what the image processor made, (B, 3, h, w); or, to look at them in windows, `PixelRows`.
        sizes: height and width of the images themselves.
        options: how they are looked at.

    Raises:
        UserError: the model does not take images of that size, or it gives no numbers.
    """
    if not isinstance(pixel_values, torch.Tensor):
        sources: Iterable[list[Rows]] = (views(network, pixels, options) for pixels in pixel_values)
    elif options.is_plain:
        sources = ([Whole(small)] for small in forward_logits(network, pixel_values))
    else:
        sources = (views(network, pixels[None], options) for pixels in pixel_values)
    return (finite(logit_strips(rows, size)) for rows, size in zip(sources, sizes, strict=True))


def finite(strips: Iterator[torch.Tensor]) -> Iterator[torch.Tensor]:
    """The same strips of logits; raises UserError where one is NaN or infinite, as a class would be chosen anyway."""
    for strip in strips:
        if not math.isfinite(strip.sum(dtype=torch.float32)):  # one pass without memory, where `isfinite` makes a mask
            raise UserError(
                "The model's class scores are not finite: its training has diverged. Choose other weights."
            )
        yield strip


class PixelRows:
    """An image as sliding windows read it: the processor normalises strips, as all of it would take 12 bytes a pixel.

    Args:
        image: RGB, at its native size.
        processor: of the model; its resizing and cropping are left out, so that no pixel depends on another.
        device: of the model.
        dtype: of the model.
    """

    def __init__(
        self, image: Image.Image, processor: BaseImageProcessor, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.image, self.processor, self.device, self.dtype = image, processor, device, dtype
        self.height, self.width = image.height, image.width

    def read(self, top: int, bottom: int) -> torch.Tensor:
        """Normalised pixels (3, bottom - top, width)."""
        strip = self.image.crop((0, top, self.width, bottom))
        inputs = self.processor(images=[strip], return_tensors="pt", do_resize=False, **WHOLE_IMAGE)
        pixels: torch.Tensor = inputs["pixel_values"][0]
        return pixels.to(self.device, self.dtype)


def _ids_and_probabilities(
    logits: torch.Tensor, temperature: float | None
) -> tuple[NDArray[Any], NDArray[np.float32] | None]:
    """Of one strip (K, rows, width); probabilities where a temperature is given."""
    ids = logits.max(dim=0).indices.cpu().numpy().astype(np.uint8 if len(logits) <= 256 else np.int32)
    return ids, None if temperature is None else (logits / temperature).softmax(dim=0).float().cpu().numpy()


def read_image(image: ImageLike) -> Image.Image:
    """An RGB image, the right way up.

    Raises:
        UserError: the file cannot be read, the array is not (H, W, 3) of uint8, values do not fit into 8 bits, or it
            is something else.
    """
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
            raise UserError(
                f"An image array must be uint8 (height, width, 3) of 0..255; got {image.dtype} {image.shape}. "
                "Scale other values yourself, such as (image * 255).astype(np.uint8) for 0..1."
            )
        return Image.fromarray(image)
    if isinstance(image, str | Path):
        return as_rgb(open_image(Path(image)), image)
    if not isinstance(image, Image.Image):
        raise UserError(
            "An image must be a path, a PIL image or a uint8 array (height, width, 3); got an object of type "
            f"{type(image).__name__}."
        )
    with reading("The image"):
        return as_rgb(upright(image), "The image")


def makes_one_size(processor: BaseImageProcessor) -> bool:
    """Whether images of all sizes become one, so that they can share a batch."""
    settings = processor.to_dict()
    return {"height", "width"} <= (settings.get("size") or {}).keys() and not settings.get("keep_aspect_ratio")


def processor_of(model: PreTrainedModel) -> BaseImageProcessor:
    """The image processor in the folder or the repository that a model came from.

    Raises:
        UserError: the model came from nowhere, or there is none.
    """
    if not model.name_or_path:
        raise UserError("This model was not loaded from a folder or the Hub: pass its image `processor` to predict.")
    return own_processor(model.name_or_path, model.name_or_path)
