"""From rows of a `datasets.Dataset` to batches: augmented for training, as scored for evaluation."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import BaseImageProcessor

from hfseg.data.transforms import TrainTransform
from hfseg.errors import UserError
from hfseg.labels import LabelSet

Sample = dict[str, Any]


class TrainSet(Dataset[Sample]):
    """Augmented training samples: `pixel_values` (3, S, S), `labels` (S, S), `name`.

    Randomness comes from (seed, epoch, sample name) alone, so any number of workers, any order and any interruption
    give the same pixels.
    """

    def __init__(self, data: datasets.Dataset, transform: TrainTransform, seed: int = 0) -> None:
        self.data, self.transform, self.seed = data, transform, seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        row = self.data[index]
        rng = np.random.default_rng([self.seed, int(self.epoch), zlib.crc32(row["name"].encode())])
        pixel_values, labels = self.transform(row["image"], np.asarray(row["label"]), rng)
        return {"pixel_values": pixel_values, "labels": labels, "name": row["name"]}


class EvalSet(Dataset[Sample]):
    """Samples as they are scored: the image through the processor, the labels untouched at their native size."""

    def __init__(self, data: datasets.Dataset, processor: BaseImageProcessor) -> None:
        self.data, self.processor = data, processor

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Sample:
        row = self.data[index]
        pixel_values = self.processor(images=row["image"], return_tensors="pt")["pixel_values"][0]
        labels = torch.from_numpy(np.array(row["label"], dtype=np.int64))
        return {"pixel_values": pixel_values, "labels": labels, "name": row["name"]}


class SegCollator:
    """Makes a batch, and checks every label map before a model, possibly on a GPU, can choke on it.

    Label maps of different sizes are padded with the ignore index at the bottom and right; `sizes` (B, 2) keeps their
    height and width.

    Raises:
        UserError: labels that are not integer (H, W), or ids outside the classes; names the sample.
    """

    def __init__(self, labels: LabelSet) -> None:
        self.labels = labels

    def __call__(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        for sample in samples:
            self._check(sample["labels"], sample["name"])
        sizes = torch.tensor([tuple(sample["labels"].shape) for sample in samples])
        padded = torch.full((len(samples), *sizes.amax(0).tolist()), self.labels.ignore_index, dtype=torch.int64)
        for row, sample in zip(padded, samples, strict=True):
            row[: sample["labels"].shape[0], : sample["labels"].shape[1]] = sample["labels"]
        pixel_values = torch.stack([sample["pixel_values"] for sample in samples])
        return {"pixel_values": pixel_values, "labels": padded, "sizes": sizes}

    def _check(self, labels: torch.Tensor, name: str) -> None:
        if labels.ndim != 2 or labels.is_floating_point():
            raise UserError(
                f"The labels of sample {name!r} are {labels.dtype} of shape {tuple(labels.shape)}; they must be "
                "integer class ids of shape (height, width)."
            )
        outside = ((labels < 0) | (labels >= self.labels.num_labels)) & (labels != self.labels.ignore_index)
        if outside.any():
            raise UserError(
                f"Sample {name!r} has label ids {sorted(set(labels[outside].tolist()))[:8]}, but there are "
                f"{self.labels.num_labels} classes (0..{self.labels.num_labels - 1}) and the ignore index is "
                f"{self.labels.ignore_index}. Check the class list and how the masks are read."
            )
