"""From rows of a `datasets.Dataset` to batches: augmented for training, as scored for evaluation.

Training samples are bytes, and `normalise` turns their batch into the model's input on the device.
"""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset, default_collate
from transformers import BaseImageProcessor
from transformers.image_utils import ChannelDimension

from hfseg.data.cache import DecodedRows
from hfseg.data.decoding import EncodedRows, Row, Rows
from hfseg.data.transforms import TrainTransform, label_tensor
from hfseg.errors import UserError
from hfseg.labels import LabelSet

Sample = dict[str, Any]


class TrainSet(Dataset[Sample]):
    """Augmented training samples: `pixel_values` (3, S, S) uint8, `labels` (S, S), `name`, `normalisation` (2, 3).

    Randomness comes from (seed, epoch, sample name) alone, so any number of workers, any order and any interruption
    give the same pixels.

    Args:
        data: a split with columns `image`, `label` and `name`.
        transform: the augmentation.
        seed: of all randomness.
        cache: decode every image once and for all, see `DecodedRows`; the samples are the same.
    """

    def __init__(self, data: datasets.Dataset, transform: TrainTransform, seed: int = 0, cache: bool = False) -> None:
        self.rows: Rows = DecodedRows(data) if cache else EncodedRows(data)
        self.transform, self.seed = transform, seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return augment(self.rows[index], self.transform, self.seed, int(self.epoch))


class EvalSet(Dataset[Sample]):
    """Samples as they are scored: the image through the processor, the labels untouched at their native size, uint8 or
    int64.

    Args:
        data: a split with columns `image`, `label` and `name`.
        processor: the model's image processor.
        cache: as in `TrainSet`.
        native: normalise only, at the image's own size, whatever size the processor knows.
    """

    def __init__(
        self, data: datasets.Dataset, processor: BaseImageProcessor, cache: bool = False, native: bool = False
    ) -> None:
        self.rows: Rows = DecodedRows(data) if cache else EncodedRows(data)
        self.processor, self.native = processor, native

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return prepare(self.rows[index], self.processor, self.native)


def augment(row: Row, transform: TrainTransform, seed: int, epoch: int) -> Sample:
    """One training sample; its randomness is that of (seed, epoch, sample name)."""
    rng = np.random.default_rng([seed, epoch, zlib.crc32(row.name.encode())])
    augmentation = transform.draw(row.label, rng)
    pixels = row.pixels(augmentation.crop.reduction)
    pixel_values, labels = transform.apply(augmentation, pixels, row.label)
    return {
        "pixel_values": pixel_values,
        "labels": labels,
        "name": row.name,
        "normalisation": transform.normalisation,
    }


def prepare(row: Row, processor: BaseImageProcessor, native: bool = False) -> Sample:
    """One sample as it is scored."""
    image = np.array(row.pixels()).transpose(2, 0, 1)
    inputs = processor(
        images=image,
        input_data_format=ChannelDimension.FIRST,
        return_tensors="pt",
        do_resize=processor.do_resize and not native,
    )
    return {"pixel_values": inputs["pixel_values"][0], "labels": label_tensor(row.label), "name": row.name}


class SegCollator:
    """Makes a batch, and checks every label map before a model, possibly on a GPU, can choke on it.

    Label maps of different sizes are padded with the ignore index at the bottom and right; `sizes` (B, 2) keeps their
    height and width, and `names` their names. They stay uint8 if all are, and become int64 otherwise. Images are never
    padded, which would change what a model says of them: `pixel_values` of different sizes are a list of
    (1, 3, H, W), to be taken one by one.

    Raises:
        UserError: labels that are not integer (H, W), or ids outside the classes; names the sample. Training images of
            different sizes.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        for sample in samples:
            self._check(sample["labels"], sample["name"])
        sizes = torch.tensor([tuple(sample["labels"].shape) for sample in samples])
        height, width = sizes.amax(0).tolist()
        is_small = all(each["labels"].dtype == torch.uint8 for each in samples)
        is_small = is_small and 0 <= self.labels.ignore_index <= 255
        # In a worker, default_collate writes straight into the memory that it shares with the training process.
        labels = default_collate([self._pad(sample["labels"], height, width, is_small) for sample in samples])
        images = [sample["pixel_values"] for sample in samples]
        # labels come first: the Trainer counts the rows of the first tensor that it finds
        batch = {"labels": labels, "sizes": sizes, "names": [sample["name"] for sample in samples]}
        is_even = len({image.shape for image in images}) == 1
        # accelerate cuts every tensor of a streamed batch along its first dimension, which must not be the channels
        batch["pixel_values"] = default_collate(images) if is_even else [image.unsqueeze(0) for image in images]
        if all("normalisation" in sample for sample in samples):
            if isinstance(batch["pixel_values"], list):
                found = sorted({tuple(image.shape[-2:]) for image in images})
                raise UserError(f"Training images of one batch have sizes {found[:4]}: the transform must crop them.")
            batch["normalisation"] = torch.stack([sample["normalisation"] for sample in samples])
        return batch

    def _pad(self, labels: torch.Tensor, height: int, width: int, is_small: bool) -> torch.Tensor:
        labels = labels if is_small else labels.long()
        if labels.shape == (height, width):
            return labels
        missing = (0, width - labels.shape[1], 0, height - labels.shape[0])
        return F.pad(labels, missing, value=self.labels.ignore_index)

    def _check(self, labels: torch.Tensor, name: str) -> None:
        if labels.ndim != 2 or labels.is_floating_point():
            raise UserError(
                f"The labels of sample {name!r} are {labels.dtype} of shape {tuple(labels.shape)}; they must be "
                "integer class ids of shape (height, width)."
            )
        ids = labels.numpy()  # which compares bytes ten times as fast
        outside = ((ids < 0) | (ids >= self.labels.num_labels)) & (ids != self.labels.ignore_index)
        if outside.any():
            raise UserError(
                f"Sample {name!r} has label ids {np.unique(ids[outside]).tolist()[:8]}, but there are "
                f"{self.labels.num_labels} classes (0..{self.labels.num_labels - 1}) and the ignore index is "
                f"{self.labels.ignore_index}. Check the class list and how the masks are read."
            )


def normalise(batch: dict[str, Any]) -> dict[str, Any]:
    """What a model takes: `pixel_values` as (bytes - mean) / std in float32, `labels` as int64, on their device.

    Args:
        batch: from `SegCollator`; its `normalisation` (B, 2, 3: mean and std) is used up. Without it `pixel_values`
            are what they should be.
    """
    batch = batch | {"labels": batch["labels"].long()}
    normalisation = batch.pop("normalisation", None)
    if normalisation is not None:
        mean, std = normalisation[..., None, None].unbind(1)
        batch["pixel_values"] = batch["pixel_values"].float().sub_(mean).div_(std)
    return batch
