"""predict(model, images): class ids at the images' own size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import BaseImageProcessor, PreTrainedModel

from hfseg.config import EvalConfig
from hfseg.data import as_rgb, is_image, open_image, reading, upright
from hfseg.errors import UserError, shown
from hfseg.inference.predictor import Predictor, Segmentation, with_processor

ImageLike = str | Path | Image.Image | NDArray[np.uint8]


def predict(
    model: PreTrainedModel | str | Path,
    images: ImageLike | Sequence[ImageLike] | None = None,
    processor: BaseImageProcessor | None = None,
    batch_size: int = 8,
    return_probabilities: bool = False,
    eval: EvalConfig | None = None,
) -> Any:
    """Segments images as the evaluation does.

    Args:
        model: any semantic segmentation model, such as `hfseg.load_model` gives, which is put into evaluation mode;
            or a folder (of a run, or with a model) or a Hub id.
        images: paths, PIL images or uint8 arrays (H, W, 3), one or several.
        processor: the image processor; by default the one in the folder or repository that the model came from.
        batch_size: images per forward pass, where the processor makes them one size.
        return_probabilities: also return the softmax over classes, of logits divided by the temperature in the model's
            config, if there is one (`config.hfseg["temperature"]`, which a run fits on validation): as confident as
            the model is right. The class ids do not depend on it.
        eval: the mode, as in the evaluation; by default one pass. In `resize` the size is the processor's, and a
            processor that does not resize makes it `whole`. `whole` and `slide` take the images one by one.

    Returns:
        A list of class id arrays (H, W), uint8 (uint16 for more than 256 classes), one for each image. With
        `return_probabilities`, that list and a list of float32 arrays (K, H, W).

    Raises:
        UserError: no images or no model, an image that cannot be read, or there is no processor to be found, or the
            temperature is no positive number, or the model's class scores are not finite.
    """
    images = _check_arguments(model, images)
    if isinstance(images, str | Path | Image.Image | np.ndarray):
        images = [images]
    predictor = Predictor.of(*with_processor(model, processor), eval, needs_temperature=return_probabilities)
    batch_size = 1 if predictor.is_native else batch_size
    found: list[Segmentation] = []
    for start in range(0, len(images), batch_size):
        batch = [predictor.prepare(read_image(image)) for image in images[start : start + batch_size]]
        found += predictor.segment(batch, probabilities=return_probabilities)
    masks = [segmentation.ids for segmentation in found]
    return (masks, [segmentation.probabilities for segmentation in found]) if return_probabilities else masks


def _check_arguments(model: object, images: object) -> Any:
    """The images; raises UserError where they are missing, are a folder, or stand where the model belongs."""
    call = "Write hfseg.predict(model, images), such as hfseg.predict('runs/quickstart', ['street.jpg'])."
    if isinstance(images, PreTrainedModel) or not isinstance(model, PreTrainedModel | str | Path):
        raise UserError(f"The model comes first; got an object of type {type(model).__name__}. {call}")
    if isinstance(model, str | Path) and is_image(Path(model)):
        raise UserError(f"The model comes first; got the image {shown(str(model))}. {call}")
    if images is None:
        taken = f"{shown(str(model))} is taken for the model. " if isinstance(model, str | Path) else ""
        raise UserError(f"There are no images to predict. {taken}{call}")
    if isinstance(images, str | Path) and Path(images).is_dir():
        raise UserError(
            f"images={shown(str(images))} is a folder. {call} All images of a folder are segmented by "
            "hfseg.predict_images(folder, model, output)."
        )
    return images


def read_image(image: ImageLike) -> Image.Image:
    """An RGB image, the right way up.

    Raises:
        UserError: the file cannot be read, the array is not (H, W, 3) of uint8, values do not fit into 8 bits, or it
            is something else.
    """
    if isinstance(image, str | Path):
        return as_rgb(open_image(Path(image)), image)
    if isinstance(image, Image.Image):
        with reading("The image"):
            return as_rgb(upright(image), "The image")
    if not isinstance(image, np.ndarray):
        raise UserError(
            "An image must be a path, a PIL image or a uint8 array (height, width, 3); got an object of type "
            f"{type(image).__name__}."
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UserError(
            f"An image array must be uint8 (height, width, 3) of 0..255; got {image.dtype} {image.shape}. "
            "Scale other values yourself, such as (image * 255).astype(np.uint8) for 0..1."
        )
    return Image.fromarray(image)
