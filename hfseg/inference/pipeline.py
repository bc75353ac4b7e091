"""SegmentationPipeline: transformers' image segmentation pipeline, with scores and for images of any size."""

import base64
import os
from dataclasses import replace
from http.client import HTTPException
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
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
from hfseg.inference.predict import read_image
from hfseg.inference.predictor import Predictor, with_processor
from hfseg.labels import LabelSet
from hfseg.models import speed_up

TIMEOUT = 30.0  # seconds for one image from the web
# what __init__ and __call__ take besides the arguments of every pipeline
OPTIONS = ("eval", "return_probabilities", "subtask", "timeout")
# of stock, for models that find instances: it takes them for every model, and reads them for those only
FOR_INSTANCES = ("threshold", "mask_threshold", "overlap_mask_area_threshold")


class SegmentationPipeline(ImageSegmentationPipeline):
    """Segments images at their native size, as `hfseg.predict` does, and says how sure it is.

    It gives what the stock pipeline gives, one dictionary with `label`, `mask` and `score` for each class in the
    image, ordered by class id, and differs in three ways:

    * `score` is not None: it is the mean probability of the class over the pixels of its mask, calibrated by the
      temperature in the model's config (`hfseg: {temperature: ...}`) where there is one.
    * `eval=hfseg.EvalConfig(mode="slide", crop=1024, stride=768)` looks at large images in windows, `mode="whole"`
      takes them as they are, `scales` and `flip` average over resized and mirrored images; images of different sizes
      may share a batch.
    * `return_probabilities=True` adds `probability`, the calibrated map (H, W) of each class found, float32.

    A stock SegFormer runs in its fast form. The image processor, where none is given, is the one in the folder or the
    repository that the model came from.

    Args:
        model: a semantic segmentation model, or a folder (of a run, or with a model) or Hub id.
        image_processor: of the model.
        arguments: those of every pipeline (`device`, `batch_size`, `num_workers`), and those of a call.

    Raises:
        UserError: there is no model or image processor, an image cannot be had, an option does not exist, the model's
            class scores are not finite.

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
        model, processor = with_processor(model, image_processor)
        if isinstance(model, SegformerForSemanticSegmentation):
            model = speed_up(model)
        super().__init__(model=model, image_processor=processor, **({"task": "image-segmentation"} | arguments))
        self.predictor = Predictor.of(model, processor, None)
        self.names = LabelSet.of_config(model.config).names

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        unknown = sorted(options.keys() - {*OPTIONS, *FOR_INSTANCES})
        if unknown:
            raise UserError(
                f"{shown(unknown[0])} is no option of SegmentationPipeline; there are "
                f"{', '.join((*OPTIONS, *FOR_INSTANCES))}."
            )
        if options.get("subtask") not in (None, "semantic"):
            raise UserError(f"Subtask {options['subtask']} is not supported for model {type(self.model)}")  # as stock
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
                `timeout` (seconds, 30 by default), and `batch_size` and `num_workers` as in every pipeline. Stock's
                `threshold`, `mask_threshold` and `overlap_mask_area_threshold` are taken, and change nothing: stock
                reads them for models that find instances. `subtask` can be "semantic".

        Returns:
            A list of {"score", "label", "mask"} for one image, a list of such lists for a list.

        Raises:
            UserError: an image cannot be had, an option does not exist.
        """
        if isinstance(inputs, list) and not inputs:
            return []
        return super().__call__(inputs, **options)

    def _predictor(self, eval: EvalConfig | None) -> Predictor:
        return replace(self.predictor, options=eval or EvalConfig())

    def preprocess(self, image: Any, eval: EvalConfig | None = None, timeout: float | None = None) -> dict[str, Any]:
        picture = load_image(image, TIMEOUT if timeout is None else timeout)
        return {"image": self._predictor(eval).prepare(picture)}

    def _forward(
        self, model_inputs: dict[str, Any], eval: EvalConfig | None = None, return_probabilities: bool = False
    ) -> dict[str, Any]:
        image = model_inputs["image"]  # or a list of them: a batch, of which transformers takes one result each
        images = image if isinstance(image, list) else [image]
        found = list(self._predictor(eval).segment(images, confidence=True, probabilities=return_probabilities))
        return {"segmentation": found if isinstance(image, list) else found[0]}

    def postprocess(self, model_outputs: dict[str, Any]) -> list[dict[str, Any]]:
        found = model_outputs["segmentation"]
        parts = []
        for index in np.flatnonzero(found.num_pixels).tolist():
            mask = Image.fromarray((found.ids == index).astype(np.uint8) * 255)
            part = {"score": float(found.confidences[index]), "label": self.names[index], "mask": mask}
            if found.probabilities is not None:
                part["probability"] = found.probabilities[index]
            parts.append(part)
        return parts


def load_image(image: Any, timeout: float) -> Image.Image:
    """An RGB image, the right way up, from wherever it is.

    Args:
        image: what `hfseg.predict` takes, an http(s) or data URL, or a file's content as base64 text.
        timeout: seconds for the download.

    Raises:
        UserError: it cannot be had, or is no image.
    """
    if not isinstance(image, str) or os.path.isfile(image):
        return read_image(image)
    if image.startswith(("http://", "https://", "data:")):
        try:
            with urlopen(Request(image, headers={"User-Agent": "hfseg"}), timeout=timeout) as response:
                content = response.read()
        except (OSError, HTTPException, ValueError) as error:
            raise UserError(
                f"{shown(image)} could not be downloaded: {shown(error)}. Check the address, or pass a file."
            ) from error
    else:
        try:
            content = base64.b64decode("".join(image.split()), validate=True)
        except ValueError as error:
            raise UserError(
                f"{shown(image)} is missing: no such file, and no address or base64 text. Check it."
            ) from error
    return as_rgb(open_image(BytesIO(content), shown(image)), shown(image))
