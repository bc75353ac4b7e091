"""`counts.npz` of a run's folder: the integers behind its scores."""

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfseg.files import written_whole

COUNTS = "counts.npz"
KEYS = ("names", "areas", "confusion")  # of each split
# What `np.load` raises for bytes that are not what was written.
DAMAGED = (ValueError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an `.npz`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except DAMAGED as error:
        raise ValueError(f"{path.name} is damaged: {error}") from error


def write_arrays(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes an `.npz` that `load_arrays` reads."""
    with written_whole(path) as partial, partial.open("wb") as file:
        # without `allow_pickle`, which NumPy 2.0 takes for an array
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def write_counts(run_dir: Path, arrays: dict[str, NDArray[Any]]) -> None:
    """Writes `counts.npz`.

    Args:
        run_dir: the run's folder.
        arrays: `classes` (K,) str and, with the prefix `eval_` for validation and `test_`: `names` (N,) str of the
            images in the order of the rest, `areas` (N, 3, K) int64 (hits, labelled and predicted pixels), `confusion`
            (K, K) int64; where scored, `boundary` (N, 5, 3, K) int64 and `calibration` (V, 15, 4) int64, which is
            `bins` of `hfseg.metrics.calibration.Calibration`.
    """
    write_arrays(run_dir / COUNTS, arrays)
