"""From the rows of a split to samples: augmented for training, as scored for evaluation, at once or as they stream by.

A stream has no length and no order to choose. Its pixels depend on (seed, epoch, name) alone too, but which samples
meet in a batch depends on the number of workers, so a resumed run is not the uninterrupted one bit for bit. `datasets`
deals a stream's files out to the workers of a loader: more workers than files are idle.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset
from transformers import BaseImageProcessor
from transformers.image_utils import ChannelDimension

from hfseg.data.cache import DecodedRow, DecodedRows
from hfseg.data.rows import EncodedRow, EncodedRows, Split, read_row, undecoded
from hfseg.data.transforms import TrainTransform, label_tensor
from hfseg.errors import UserError

SHUFFLE_BUFFER = 256  # encoded samples that are kept, in each worker, to draw the next from
Sample: TypeAlias = dict[str, Any]


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
        self.rows = DecodedRows(data) if cache else EncodedRows(data)
        self.transform, self.seed = transform, seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return augment(self.rows[index], self.transform, self.seed, int(self.epoch))


class StreamingTrainSet(IterableDataset[Sample]):
    """`TrainSet` for a stream: shuffled in a window, in another order every epoch."""

    def __init__(self, data: datasets.IterableDataset, transform: TrainTransform, seed: int = 0) -> None:
        self.data = undecoded_stream(data).shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        self.transform, self.seed = transform, seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self.epoch.fill_(epoch)
        self.data.set_epoch(epoch)

    def __iter__(self) -> Iterator[Sample]:
        for row in self.data:
            yield augment(read_row(row), self.transform, self.seed, int(self.epoch))


class EvalSet(Dataset[Sample]):
    """Samples as they are scored: the image through the processor, labels untouched (uint8 or int64, native size).

    Args:
        data: a split with columns `image`, `label` and `name`.
        processor: the model's image processor.
        cache: as in `TrainSet`.
        native: normalise only, at the image's own size, whatever size the processor knows.
    """

    def __init__(
        self, data: datasets.Dataset, processor: BaseImageProcessor, cache: bool = False, native: bool = False
    ) -> None:
        self.rows = DecodedRows(data) if cache else EncodedRows(data)
        self.processor, self.native = processor, native

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return prepare(self.rows[index], self.processor, self.native)


class StreamingEvalSet(IterableDataset[Sample]):
    """`EvalSet` for a stream."""

    def __init__(self, data: datasets.IterableDataset, processor: BaseImageProcessor, native: bool = False) -> None:
        self.data, self.processor, self.native = undecoded_stream(data), processor, native

    def __iter__(self) -> Iterator[Sample]:
        for row in self.data:
            yield prepare(read_row(row), self.processor, self.native)


def augment(row: EncodedRow | DecodedRow, transform: TrainTransform, seed: int, epoch: int) -> Sample:
    """One training sample; its randomness is that of (seed, epoch, sample name)."""
    rng = np.random.default_rng([seed, epoch, zlib.crc32(row.name.encode())])
    augmentation = transform.draw(row.label, rng)
    pixels = row.pixels(augmentation.crop.reduction)
    pixel_values, labels = transform.apply(augmentation, pixels, row.label)
    normalisation = transform.normalisation
    return {"pixel_values": pixel_values, "labels": labels, "name": row.name, "normalisation": normalisation}


def prepare(row: EncodedRow | DecodedRow, processor: BaseImageProcessor, native: bool = False) -> Sample:
    """One sample as it is scored."""
    inputs = processor(
        images=np.array(row.pixels()).transpose(2, 0, 1),
        input_data_format=ChannelDimension.FIRST,
        return_tensors="pt",
        do_resize=processor.do_resize and not native,
    )
    return {"pixel_values": inputs["pixel_values"][0], "labels": label_tensor(row.label), "name": row.name}


def undecoded_stream(data: datasets.IterableDataset) -> datasets.IterableDataset:
    """`undecoded` for a stream; raises UserError where its first row is not there or lacks a column."""
    rows = undecoded(data)
    try:
        first = next(iter(rows), None)
    except KeyError as error:
        raise UserError(
            f"A stream's rows have no column {error}; they must have `image`, `label` and `name`."
        ) from error
    if first is None:
        raise UserError("The stream is empty: no row comes out of it. Look at what filters, takes or skips its rows.")
    return rows


def train_set(data: Split, transform: TrainTransform, seed: int, cache: bool) -> TrainSet | StreamingTrainSet:
    """The training samples of a split, streamed or not."""
    if isinstance(data, datasets.IterableDataset):
        return StreamingTrainSet(data, transform, seed)
    return TrainSet(data, transform, seed, cache)


def eval_set(
    data: Split, processor: BaseImageProcessor, cache: bool = False, native: bool = False
) -> EvalSet | StreamingEvalSet:
    """The samples of a split as they are scored, streamed or not."""
    if isinstance(data, datasets.IterableDataset):
        return StreamingEvalSet(data, processor, native)
    return EvalSet(data, processor, cache, native)


def some_rows(data: Split, count: int) -> Sequence[Sample]:
    """A fixed handful of rows: spread over the split, or the first that a stream gives."""
    if isinstance(data, datasets.IterableDataset):
        return list(data.take(count))
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    return [data[int(index)] for index in chosen]
