"""Predictor: the one way from images to class ids, their mean confidence and, on request, probabilities."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.errors import UserError, shown
from hfseg.models import (
    Rows,
    Whole,
    augmented_scores,
    forward_logits,
    inference_copy,
    load_model,
    logit_bands,
    own_processor,
    temperature_of,
)

# A crop or a margin would be stretched over the image with its classes; without them the model sees all of it.
WHOLE_IMAGE = {"do_center_crop": False, "do_pad": False}


@dataclass(frozen=True)
class PixelRows:
    """An image that sliding windows read by rows, as normalised it would take 12 bytes a pixel.

    Attributes:
        image: RGB, at its native size.
        processor: of the model; it normalises the rows, and neither resizes nor crops.
    """

    image: Image.Image
    processor: BaseImageProcessor
    device: torch.device
    dtype: torch.dtype

    @property
    def height(self) -> int:
        return self.image.height

    @property
    def width(self) -> int:
        return self.image.width

    def read(self, top: int, bottom: int) -> torch.Tensor:
        """Normalised pixels (3, bottom - top, width)."""
        rows = self.image.crop((0, top, self.width, bottom))
        pixels: torch.Tensor = self.processor(rows, return_tensors="pt", do_resize=False, **WHOLE_IMAGE).pixel_values
        return pixels[0].to(self.device, self.dtype)


@dataclass(frozen=True)
class Prepared:
    """An image as the model takes it.

    Attributes:
        pixels: normalised, (3, h, w) at the size that the model sees, or for sliding windows as they read it.
        size: height and width of the image itself.
    """

    pixels: torch.Tensor | PixelRows
    size: tuple[int, int]


@dataclass(frozen=True)
class Segmentation:
    """What a model finds in one image.

    Attributes:
        ids: the class of each pixel (H, W), uint8 or, of more than 256 classes, uint16.
        num_pixels: of each class (K,).
        confidences: of each class (K,), the mean probability over its pixels; 0 without pixels, or if not asked for.
        probabilities: (K, H, W) float32, if asked for.
    """

    ids: NDArray[np.unsignedinteger]
    num_pixels: NDArray[np.int64]
    confidences: NDArray[np.float64]
    probabilities: NDArray[np.float32] | None

    @property
    def confidence(self) -> float:
        """The mean over all pixels of the probability of the class chosen."""
        return float(self.num_pixels @ self.confidences) / self.ids.size


@dataclass(frozen=True)
class Predictor:
    """A trained model, and how it is shown images.

    Attributes:
        network: in evaluation mode, on its device.
        processor: of the model.
        options: the mode as in the evaluation. In `resize` the size is the processor's; a processor that does not
            resize makes it `whole`.
        temperature: what logits are divided by before the softmax.
    """

    network: PreTrainedModel
    processor: BaseImageProcessor
    options: EvalConfig
    temperature: float

    @classmethod
    def of(
        cls,
        model: PreTrainedModel,
        processor: BaseImageProcessor,
        options: EvalConfig | None,
        needs_temperature: bool = True,
    ) -> "Predictor":
        """Puts a model into evaluation mode.

        Raises:
            UserError: the temperature in its config is not a positive number. Class ids do not need it.
        """
        model.eval()
        temperature = temperature_of(model.config) if needs_temperature else 1.0
        return cls(inference_copy(model) or model, processor, options or EvalConfig(), temperature)

    @property
    def is_native(self) -> bool:
        """Whether images keep their own size on the way to the model."""
        return self.options.is_native or not self.processor.do_resize

    def prepare(self, image: Image.Image) -> Prepared:
        """An RGB image as the model takes it. Needs no device, so that threads and processes can do it ahead."""
        size = (image.height, image.width)
        if self.options.mode == "slide":
            return Prepared(PixelRows(image, self.processor, self.network.device, self.network.dtype), size)
        inputs = self.processor(image, return_tensors="pt", do_resize=not self.is_native, **WHOLE_IMAGE)
        return Prepared(inputs.pixel_values[0], size)

    @torch.no_grad()
    def segment(
        self, images: Sequence[Prepared], confidence: bool = False, probabilities: bool = False
    ) -> Iterator[Segmentation]:
        """Segments images at their native size; those that the model sees at one size share a forward pass.

        Raises:
            UserError: the model does not take images of that size, its logits are not finite, or the GPU's memory
                does not hold so many images.
        """
        try:
            for scores, image in zip(self._class_scores(images), images, strict=True):
                yield classify_bands(logit_bands(scores, image.size), self.temperature, confidence, probabilities)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"The GPU's memory does not hold {len(images)} of these images at once. Lower the batch size, or "
                "choose eval.mode=slide."
            ) from error

    def _class_scores(self, images: Sequence[Prepared]) -> Iterator[Sequence[Rows]]:
        pixels = [self._on_device(image.pixels) for image in images]
        tensors = [each for each in pixels if isinstance(each, torch.Tensor)]
        if self.options.is_plain and len({each.shape for each in tensors}) == 1:
            yield from ([Whole(logits)] for logits in forward_logits(self.network, torch.cat(tensors)))
        else:
            yield from (augmented_scores(self.network, each, self.options) for each in pixels)

    def _on_device(self, pixels: torch.Tensor | PixelRows) -> torch.Tensor | PixelRows:
        return pixels if isinstance(pixels, PixelRows) else pixels[None].to(self.network.device, self.network.dtype)


def with_processor(
    model: PreTrainedModel | str | Path, processor: BaseImageProcessor | None = None, trust_remote_code: bool = False
) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A model and its image processor, by default the one in the folder or repository that the model came from.

    Args:
        model: a model, or a folder (of a run, or with a model) or a Hub id.
        processor: the one that the user gave.
        trust_remote_code: run the code that comes with the model, if there is some.

    Raises:
        UserError: there is no such model, or no processor.
    """
    source = model.name_or_path if isinstance(model, PreTrainedModel) else f"model={shown(str(model))}"
    if not isinstance(model, PreTrainedModel):
        model = load_model(model, trust_remote_code)
    elif processor is None and not source:
        raise UserError("This model was not loaded from a folder or the Hub: pass its image `processor` to predict.")
    return model, processor or own_processor(model.name_or_path, source, trust_remote_code)


def classify_bands(
    logits: Iterable[torch.Tensor], temperature: float, confidence: bool = False, probabilities: bool = False
) -> Segmentation:
    """The classes of one image, from its logits in bands of rows (K, rows, W) from the top.

    Raises:
        UserError: a logit is NaN or infinite: a class would be chosen anyway.
    """
    ids: list[NDArray[np.unsignedinteger]] = []
    maps: list[NDArray[np.float32]] = []
    counts, sums = np.zeros(1, np.int64), np.zeros(1)
    for band in logits:
        if not math.isfinite(band.sum(dtype=torch.float32)):  # one pass without memory, where `isfinite` makes a mask
            raise UserError(
                "The model's class scores are not finite: its training has diverged. Choose other weights."
            )
        best = band.max(dim=0)
        ids.append(best.indices.cpu().numpy().astype(np.uint8 if len(band) <= 256 else np.uint16))
        counts = counts + np.bincount(ids[-1].ravel(), minlength=len(band))
        if confidence:  # the largest term of the softmax, without the others
            chosen = torch.exp(best.values / temperature - (band / temperature).logsumexp(dim=0))
            sums = sums + np.bincount(ids[-1].ravel(), chosen.flatten().double().cpu().numpy(), len(band))
        if probabilities:
            maps.append((band / temperature).softmax(dim=0).float().cpu().numpy())
    return Segmentation(
        np.concatenate(ids), counts, sums / counts.clip(min=1), np.concatenate(maps, axis=1) if maps else None
    )
