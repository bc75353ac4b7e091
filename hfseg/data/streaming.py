"""Samples of a streamed data set, which has no length and no order to choose.

The pixels of a sample depend on (seed, epoch, name) alone, as with `TrainSet`. Which samples meet in a batch depends
on the number of workers too, so a resumed run is not the uninterrupted one bit for bit. `datasets` deals a stream's
files out to the workers of a loader: more workers than files are idle.
"""

from collections.abc import Iterator, Sequence

import datasets
import numpy as np
import torch
from torch.utils.data import IterableDataset
from transformers import BaseImageProcessor

from hfseg.data.decoding import read_row, undecoded
from hfseg.data.samples import EvalSet, Sample, TrainSet, augment, prepare
from hfseg.data.transforms import TrainTransform
from hfseg.errors import UserError

SHUFFLE_BUFFER = 256  # encoded samples that are kept, in each worker, to draw the next from


class StreamingTrainSet(IterableDataset[Sample]):
    """`TrainSet` for a stream: shuffled in a window, in another order every epoch."""

    def __init__(self, data: datasets.IterableDataset, transform: TrainTransform, seed: int = 0) -> None:
        self.data = stored_stream(data).shuffle(seed=seed, buffer_size=SHUFFLE_BUFFER)
        self.transform, self.seed = transform, seed
        self.epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # shared: persistent workers see it change

    def set_epoch(self, epoch: int) -> None:
        """Called at the start of every epoch."""
        self.epoch.fill_(epoch)
        self.data.set_epoch(epoch)

    def __iter__(self) -> Iterator[Sample]:
        for row in self.data:
            yield augment(read_row(row), self.transform, self.seed, int(self.epoch))


class StreamingEvalSet(IterableDataset[Sample]):
    """`EvalSet` for a stream."""

    def __init__(self, data: datasets.IterableDataset, processor: BaseImageProcessor, native: bool = False) -> None:
        self.data, self.processor, self.native = stored_stream(data), processor, native

    def __iter__(self) -> Iterator[Sample]:
        for row in self.data:
            yield prepare(read_row(row), self.processor, self.native)


def stored_stream(data: datasets.IterableDataset) -> datasets.IterableDataset:
    """`undecoded` for a stream, of which the first row is looked at.

    Raises:
        UserError: it has none, or none with the columns `image`, `label` and `name`.
    """
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


def train_set(
    data: datasets.Dataset | datasets.IterableDataset, transform: TrainTransform, seed: int, cache: bool
) -> TrainSet | StreamingTrainSet:
    """The training samples of a split, streamed or not."""
    if isinstance(data, datasets.IterableDataset):
        return StreamingTrainSet(data, transform, seed)
    return TrainSet(data, transform, seed, cache)


def eval_set(
    data: datasets.Dataset | datasets.IterableDataset,
    processor: BaseImageProcessor,
    cache: bool = False,
    native: bool = False,
) -> EvalSet | StreamingEvalSet:
    """The samples of a split as they are scored, streamed or not."""
    if isinstance(data, datasets.IterableDataset):
        return StreamingEvalSet(data, processor, native)
    return EvalSet(data, processor, cache, native)


def some_rows(data: datasets.Dataset | datasets.IterableDataset, count: int) -> Sequence[Sample]:
    """A fixed handful of rows: spread over the split, or the first that a stream gives."""
    if isinstance(data, datasets.IterableDataset):
        return list(data.take(count))
    chosen = np.linspace(0, len(data) - 1, min(count, len(data))).astype(int)
    return [data[int(index)] for index in chosen]
