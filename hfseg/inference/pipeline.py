"""SegmentationPipeline: transformers' image segmentation pipeline, with scores and for images of any size."""

import base64
import os
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any, cast
from urllib.request import Request, urlopen

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import (
    BaseImageProcessor,
    ImageSegmentationPipeline,
    PreTrainedModel,
    SegformerForSemanticSegmentation,
)

from hfseg.config import EvalConfig
from hfseg.data import as_rgb, open_image
from hfseg.errors import UserError, shown
from hfseg.inference.predict import WHOLE_IMAGE, image_strips, processor_of, read_image
from hfseg.models import inference_copy, load_trained, speed_up, temperature_of

TIMEOUT = 30.0  # seconds for one image from the web
PASS_A_FILE = "Check the address, or pass a file."
# what __init__ and __call__ take besides the arguments of every pipeline
OPTIONS = ("eval", "return_probabilities", "subtask", "timeout")


class SegmentationPipeline(ImageSegmentationPipeline):
    """Segments images at their native size, as `hfseg.predict` does, and says how sure it is.

    It gives what the stock pipeline gives, one dictionary with `label`, `mask` and `score` for each class in the
    image, ordered by class id, and differs in three ways:

    * `score` is not None: it is the mean probability of the class over the pixels of its mask, calibrated by the
      temperature in the model's config (`hfseg: {temperature: ...}`) where there is one.
    * `eval=hfseg.EvalConfig(mode="slide", crop=1024, stride=768)` looks at large images in windows, `mode="whole"`
      takes them as they are, `scales` and `flip` average views; images of different sizes may share a batch.
    * `return_probabilities=True` adds `probability`, the calibrated map (H, W) of each class found, float32.

    A stock SegFormer runs in its fast form. The image processor, where none is given, is the one in the folder or the
    repository that the model came from.

    Args:
        model: a semantic segmentation model, or a folder (of a run, or with a model) or Hub id.
        image_processor: of the model.
        arguments: those of every pipeline (`device`, `batch_size`, `num_workers`), and those of a call.

    Raises:
        UserError: there is no model or image processor, an image cannot be had, an option does not exist, the model
            gives no numbers.

    Example:
        >>> from transformers import SegformerImageProcessor
        >>> from hfseg import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation, LabelSet
        >>> labels = LabelSet(["pet", "background", "boundary"])
        >>> model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size("b0", labels))
        >>> processor = SegformerImageProcessor(size={"height": 64, "width": 64})
        >>> segment = SegmentationPipeline(model, processor, device="cpu")
        >>> parts = segment(Image.new("RGB", (60, 40)))
        >>> parts[0]["mask"].size, 0 < parts[0]["score"] <= 1
        ((60, 40), True)
    """

    _load_image_processor = None  # `pipeline(model=our_object)` finds none; this class does

    def __init__(
        self, model: PreTrainedModel | str | Path, image_processor: BaseImageProcessor | None = None, **arguments: Any
    ) -> None:
        if isinstance(model, str | Path):
            model, found = load_trained(str(model))
            image_processor = image_processor or found
        if isinstance(model, SegformerForSemanticSegmentation):
            model = cast(PreTrainedModel, speed_up(model))
        processor = image_processor or processor_of(model)
        arguments = {"task": "image-segmentation"} | arguments
        super().__init__(model=model.eval(), image_processor=processor, **arguments)
        self.network = inference_copy(model) or model
        self.temperature = temperature_of(model.config)

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(options.keys() - set(OPTIONS))
        if unknown:
            raise UserError(
                f"{shown(unknown[0])} is no option of SegmentationPipeline; there are {', '.join(OPTIONS)}."
            )
        if options.get("subtask") not in (None, "semantic"):
            raise UserError(f"subtask={shown(options['subtask'])}: the model does semantic segmentation only.")
        if not isinstance(options.get("eval"), EvalConfig | None):
            raise UserError(
                f"eval={shown(options['eval'])} must be an hfseg.EvalConfig, such as EvalConfig(mode='whole')."
            )

        def chosen(*names: str) -> dict[str, Any]:
            return {name: options[name] for name in names if name in options}

        return chosen("eval", "timeout"), chosen("eval", "return_probabilities"), {}

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Segments one or several images.

        Args:
            inputs: a PIL image, a path, an http(s) or data URL, a file's content as base64 text, or a uint8 array
                (H, W, 3); or a list, a generator or a dataset of them.
            options: `eval` (an `EvalConfig`; by default one pass at the processor's size), `return_probabilities`,
                `timeout` (seconds, 30 by default), and `batch_size` and `num_workers` as in every pipeline.

        Returns:
            A list of {"score", "label", "mask"} for one image, a list of such lists for a list.

        Raises:
            UserError: an image cannot be had, an option does not exist.
        """
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **options)

    def preprocess(self, image: Any, eval: EvalConfig | None = None, timeout: float | None = None) -> dict[str, Any]:
        picture = read_any(image, TIMEOUT if timeout is None else timeout)
        is_native = eval is not None and eval.is_native
        resizing = {"do_resize": False} if is_native else {}
        options = resizing | WHOLE_IMAGE
        pixels = self.image_processor(images=[picture], return_tensors="pt", **options)["pixel_values"][0]
        # In lists, because batching joins tensors, and images of different sizes cannot be joined.
        return {"pixel_values": [pixels.to(self.dtype)], "size": [(picture.height, picture.width)]}

    def _forward(
        self, model_inputs: dict[str, Any], eval: EvalConfig | None = None, return_probabilities: bool = False
    ) -> dict[str, Any]:
        images, sizes = list(flat(model_inputs["pixel_values"])), list(flat(model_inputs["size"]))
        same_size = len({image.shape for image in images}) == 1
        batches = [slice(0, len(images))] if same_size else [slice(i, i + 1) for i in range(len(images))]
        found: list[dict[str, Any]] = []
        for batch in batches:
            pixel_values = torch.stack(images[batch])
            sources = image_strips(self.network, pixel_values, sizes[batch], eval or EvalConfig())
            found += [summarise(strips, self.temperature, return_probabilities) for strips in sources]
        return {"segmentation": found}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        (found,) = flat([model_outputs["segmentation"]])
        segmentation, scores = found["segmentation"], found["scores"]
        parts = []
        for label in np.unique(segmentation):
            mask = Image.fromarray((segmentation == label).astype(np.uint8) * 255)
            name = self.model.config.id2label[int(label)]
            part = {"score": float(scores[label]), "label": name, "mask": mask}
            if found["probabilities"] is not None:
                part["probability"] = found["probabilities"][label]
            parts.append(part)
        return parts


def summarise(strips: Iterable[torch.Tensor], temperature: float, with_probabilities: bool) -> dict[str, Any]:
    """Class ids, each class's mean probability where it was chosen, and on request all probabilities.

    Args:
        strips: logits (K, rows, width) of one image, from the top.
        temperature: what they are divided by before the softmax.
        with_probabilities: whether to keep the maps.
    """
    ids: list[NDArray[np.int64]] = []
    kept: list[NDArray[np.float32]] = []
    sums = counts = torch.zeros(())
    for strip in strips:
        chosen = strip.max(dim=0).indices
        probabilities = (strip / temperature).softmax(dim=0)
        sure = probabilities.gather(0, chosen[None]).flatten().double()
        sums = sums.to(sure) + torch.bincount(chosen.flatten(), sure, minlength=len(strip))
        counts = counts.to(chosen.device) + torch.bincount(chosen.flatten(), minlength=len(strip))
        ids.append(chosen.cpu().numpy())
        if with_probabilities:
            kept.append(probabilities.float().cpu().numpy())
    return {
        "segmentation": np.concatenate(ids),
        "scores": (sums / counts.clamp(min=1)).cpu().numpy(),
        "probabilities": np.concatenate(kept, axis=1) if with_probabilities else None,
    }


def flat(values: Iterable[Any]) -> Iterator[Any]:
    """The items of a list, and of the lists in it: a batch of one is not wrapped, a larger one is."""
    for value in values:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def read_any(image: Any, timeout: float) -> Image.Image:
    """An RGB image, the right way up, from wherever it is.

    Args:
        image: what `hfseg.predict` takes, an http(s) or data URL, or a file's content as base64 text.
        timeout: seconds for the download.

    Raises:
        UserError: it cannot be had, or is no image.
    """
    if not isinstance(image, str) or os.path.isfile(image):
        return read_image(image)
    content = download(image, timeout) if image.startswith(("http://", "https://", "data:")) else decode(image)
    return as_rgb(open_image(BytesIO(content), shown(image)), shown(image))


def download(address: str, timeout: float) -> bytes:
    """What an http(s) or data URL holds; raises UserError where it cannot be had."""
    try:
        with urlopen(Request(address, headers={"User-Agent": "hfseg"}), timeout=timeout) as response:
            content: bytes = response.read()
    except (OSError, HTTPException, ValueError) as error:
        raise UserError(f"{shown(address)} could not be downloaded: {shown(error)}. {PASS_A_FILE}") from error
    return content


def decode(text: str) -> bytes:
    """The bytes that base64 text stands for; raises UserError where it is none, as a name of a missing file is."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError as error:
        raise UserError(f"{shown(text)} is missing: no such file, and no address or base64 text. Check it.") from error
