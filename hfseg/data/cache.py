"""`data.cache`: every image decoded once, into an Arrow file that is mapped into memory and not read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from hfseg.data.images import REDUCTIONS
from hfseg.data.rows import read_row, undecoded
from hfseg.files import writing

CACHE_VERSION = 1  # rises whenever what is written changes
TEMPORARY = "tmp*"  # what `datasets` calls an Arrow file that is not whole yet
DECODED = datasets.Features(
    {
        "name": datasets.Value("string"),
        "height": datasets.Value("int32"),
        "width": datasets.Value("int32"),
        "label": datasets.Value("large_binary"),
        "label_type": datasets.Value("string"),
        # at full size and, of a JPEG, at a half, a quarter and an eighth
        "pixels": datasets.List(datasets.Value("large_binary")),
    }
)


@dataclass(frozen=True)
class DecodedRow:
    """A row whose arrays lie in the mapped file: only what is touched is read from the disk."""

    name: str
    label: NDArray[np.integer]
    levels: Mapping[int, NDArray[np.uint8]]  # by reduction

    def pixels(self, reduction: int = 1) -> NDArray[np.uint8]:
        return self.levels.get(reduction, self.levels[1])


class DecodedRows:
    """A split as `EncodedRows` reads it, from a copy that is decoded when it is first asked for.

    The copy lies beside the split's own Arrow file and belongs to its fingerprint, so other data means another copy.
    `datasets` writes it under a temporary name first; a second process waits for the first one's. It takes 3 bytes a
    pixel, 4 for a JPEG, and those of the labels: 25 GB and about three minutes for the training images of Cityscapes.
    """

    def __init__(self, data: datasets.Dataset) -> None:
        files = data.cache_files  # none for a data set in memory, whose copy stays there too
        path = Path(files[0]["filename"]).with_suffix(".decoded") if files else Path("memory")
        lock = FileLock(path.with_suffix(".decoded.lock")) if files else nullcontext()
        options = {"fn_kwargs": {"version": CACHE_VERSION}, "features": DECODED, "desc": "Decoding images once"}
        with lock, writing(path), _no_leftovers(path.parent):
            copy = undecoded(data).map(_decode, remove_columns=data.column_names, writer_batch_size=16, **options)
        self.data = copy.with_format("arrow")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> DecodedRow:
        row = self.data[index]  # a table of one row, without a copy
        height, width, name, label_type = (row[key][0].as_py() for key in ("height", "width", "name", "label_type"))
        label = _mapped(row["label"].chunk(0), 0).view(label_type).reshape(height, width)
        encoded = row["pixels"].chunk(0).flatten()
        levels = {}
        for position, reduction in enumerate((1, *reversed(REDUCTIONS))[: len(encoded)]):
            shape = (-(-height // reduction), -(-width // reduction), 3)
            levels[reduction] = _mapped(encoded, position).reshape(shape)
        return DecodedRow(name, label, levels)


@contextmanager
def _no_leftovers(folder: Path) -> Iterator[None]:
    """Removes the temporary file that `datasets` forgets where it cannot write all of it: it would fill the disk."""
    before = set(folder.glob(TEMPORARY))
    try:
        yield
    except OSError:
        for path in set(folder.glob(TEMPORARY)) - before:
            path.unlink(missing_ok=True)
        raise


def _mapped(array: Any, index: int) -> NDArray[np.uint8]:
    """One value of an Arrow array of large binaries where it lies; Arrow's own scalars are copies."""
    _, offsets, values = array.buffers()
    start, stop = np.frombuffer(offsets, np.int64)[array.offset + index : array.offset + index + 2]
    return np.frombuffer(values, np.uint8)[start:stop]


def _decode(row: Mapping[str, Any], version: int) -> dict[str, Any]:
    """One row of the copy; `version` is there for the fingerprint."""
    encoded = read_row(row)
    full = encoded.pixels()
    smaller = [encoded.pixels(reduction) for reduction in reversed(REDUCTIONS)]
    levels = [full, *(level for level in smaller if level.shape != full.shape)]
    height, width = encoded.label.shape
    return {
        "name": encoded.name,
        "height": height,
        "width": width,
        "label": encoded.label.tobytes(),
        "label_type": encoded.label.dtype.str,
        "pixels": [level.tobytes() for level in levels],
    }
