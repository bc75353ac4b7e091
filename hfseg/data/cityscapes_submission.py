"""Predictions as the Cityscapes benchmark server wants them: label ids, not train ids, under the official names."""

import re
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from hfseg.data.cityscapes import CLASSES
from hfseg.errors import UserError
from hfseg.files import complete_folder

SIZE = (2048, 1024)
TO_LABEL_ID = np.array([label_id for _, label_id, *_ in CLASSES], np.uint8)


def export_submission(predictions: Iterable[ArrayLike], names: Iterable[str], folder: Path) -> None:
    """Writes one 8-bit PNG per image, `<city>_<sequence>_<frame>_pred_labelIds.png`, ready to be zipped and sent.

    Args:
        predictions: train ids 0..18, each of shape (1024, 2048); taken one at a time, so a generator will do.
        names: `<city>_<sequence>_<frame>` of each, the column `name` of the data set.
        folder: where to; must not exist or be empty, and appears only when complete.

    Raises:
        UserError: an id that is no class, such as 255; another size; a name that is not official or comes twice; not
            as many names as predictions; a folder that holds something.

    Example:
        >>> data, _ = load_dataset(DataConfig(name="cityscapes", root="~/data/cityscapes"))  # doctest: +SKIP
        >>> export_submission(masks, data["predict"]["name"], Path("submission"))  # doctest: +SKIP
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} holds something already, and the server takes one prediction per image. Empty it.")
    with complete_folder(folder) as building:
        for prediction, name in zip_longest(predictions, names):
            if prediction is None or name is None:
                raise UserError("There are not as many names as predictions. Give one name for each.")
            _write(np.asarray(prediction), name, building)


def _write(prediction: NDArray[np.integer], name: str, folder: Path) -> None:
    path = folder / f"{name}_pred_labelIds.png"
    if not re.fullmatch(r"[a-z-]+_\d{6}_\d{6}", name):
        raise UserError(f"{name!r} is not an official name like berlin_000000_000019; the server would not find it.")
    if path.exists():
        raise UserError(f"{name} comes twice. Give one prediction per image.")
    if prediction.shape != SIZE[::-1]:
        raise UserError(
            f"The prediction for {name} has shape {prediction.shape}; the server wants {SIZE[::-1]}, the native size. "
            "Predict at native size."
        )
    if prediction.dtype.kind not in "iu" or prediction.min() < 0 or prediction.max() >= len(CLASSES):
        raise UserError(
            f"The prediction for {name} is {prediction.dtype} of {prediction.min()}..{prediction.max()}; it must hold "
            f"train ids, whole numbers of 0..{len(CLASSES) - 1}. Every pixel needs a class: there is none to ignore."
        )
    Image.fromarray(TO_LABEL_ID[prediction]).save(path)
