"""From samples to batches, and from bytes to a model's input on its device."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import default_collate

from hfseg.errors import UserError, shown
from hfseg.labels import LabelSet


class SegCollator:
    """Makes a batch, and checks every label map before a model, possibly on a GPU, can choke on it.

    A sample has `pixel_values` (3, H, W), and may have `labels` (H, W), a `name`, and the `normalisation` of
    `TrainSet`: tensors, arrays or nested lists. Nothing else of it is taken.

    Label maps of different sizes are padded with the ignore index at the bottom and right; `sizes` (B, 2) keeps their
    height and width, and `names` the samples' names. They stay uint8 if all are, and become int64 otherwise. Images
    are never padded, which would change what a model says of them: `pixel_values` of different sizes are a list of
    (1, 3, H, W), to be taken one by one.

    Raises:
        UserError: a sample without `pixel_values`; labels that are not integer (H, W), or ids outside the classes;
            names the sample. Training images of different sizes.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        if not all("pixel_values" in sample for sample in samples):
            without = next(sample for sample in samples if "pixel_values" not in sample)
            raise UserError(
                f"A sample has no `pixel_values`, only {shown(sorted(without))}. Where a transform makes them, set "
                "remove_unused_columns=False in TrainingArguments: Trainer removes what a model does not take first."
            )
        batch: dict[str, Any] = {}
        if all(sample.get("labels") is not None for sample in samples):
            # labels come first: the Trainer counts the rows of the first tensor that it finds
            batch |= self._labels([torch.as_tensor(sample["labels"]) for sample in samples], samples)
        if all("name" in sample for sample in samples):
            batch["names"] = [sample["name"] for sample in samples]
        images = [torch.as_tensor(sample["pixel_values"]) for sample in samples]
        shapes = {tuple(image.shape[-2:]) for image in images}
        # accelerate cuts every tensor of a streamed batch along its first dimension, which must not be the channels
        batch["pixel_values"] = default_collate(images) if len(shapes) == 1 else [image[None] for image in images]
        if all("normalisation" in sample for sample in samples):
            if len(shapes) > 1:
                found = sorted(shapes)[:4]
                raise UserError(f"Training images of one batch have sizes {found}: the transform must crop them.")
            batch["normalisation"] = torch.stack([sample["normalisation"] for sample in samples])
        return batch

    def _labels(self, maps: Sequence[torch.Tensor], samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        for number, (labels, sample) in enumerate(zip(maps, samples, strict=True)):
            self._check(labels, repr(sample.get("name", f"number {number} of the batch")))
        sizes = torch.tensor([tuple(labels.shape) for labels in maps])
        height, width = sizes.amax(0).tolist()
        is_small = all(labels.dtype == torch.uint8 for labels in maps) and 0 <= self.labels.ignore_index <= 255
        # In a worker, default_collate writes straight into the memory that it shares with the training process.
        padded = default_collate([self._pad(labels, height, width, is_small) for labels in maps])
        return {"labels": padded, "sizes": sizes}

    def _pad(self, labels: torch.Tensor, height: int, width: int, is_small: bool) -> torch.Tensor:
        labels = labels if is_small else labels.long()
        if labels.shape == (height, width):
            return labels
        missing = (0, width - labels.shape[1], 0, height - labels.shape[0])
        return F.pad(labels, missing, value=self.labels.ignore_index)

    def _check(self, labels: torch.Tensor, name: str) -> None:
        if labels.ndim != 2 or labels.is_floating_point():
            raise UserError(
                f"The labels of sample {name} are {labels.dtype} of shape {tuple(labels.shape)}; they must be "
                "integer class ids of shape (height, width)."
            )
        ids = labels.numpy()  # which compares bytes ten times as fast
        outside = ((ids < 0) | (ids >= self.labels.num_labels)) & (ids != self.labels.ignore_index)
        if outside.any():
            raise UserError(
                f"Sample {name} has label ids {np.unique(ids[outside]).tolist()[:8]}, but there are "
                f"{self.labels.num_labels} classes (0..{self.labels.num_labels - 1}) and the ignore index is "
                f"{self.labels.ignore_index}. Check the class list and how the masks are read."
            )


def normalise(batch: dict[str, Any]) -> dict[str, Any]:
    """What a model takes: `pixel_values` as (bytes - mean) / std in float32, `labels` as int64, on their device.

    The `normalisation` (B, 2, 3: mean and std) of a batch is used up; without it `pixel_values` stay as they are.
    """
    batch = dict(batch)
    labels = batch.get("labels")
    if isinstance(labels, torch.Tensor) and not labels.is_floating_point():
        batch["labels"] = labels.long()
    normalisation = batch.pop("normalisation", None)
    if normalisation is not None:
        mean, std = normalisation[..., None, None].unbind(1)
        batch["pixel_values"] = batch["pixel_values"].float().sub_(mean).div_(std)
    return batch
