"""`counts.npz` of a run's folder: the integers behind its scores, and a paired test of two runs from them."""

import zipfile
import zlib
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hfseg.errors import UserError
from hfseg.files import written_whole
from hfseg.metrics import SPLITS, PairedTest, Score, mean_iou, paired_test

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


def read_counts(run_dir: Path) -> dict[str, NDArray[Any]]:
    """Reads `counts.npz`, see `write_counts`.

    Raises:
        UserError: it is missing or damaged, or has not both splits.
    """
    path = run_dir / COUNTS
    try:
        counts = load_arrays(path)
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: is this the folder of a finished run? --eval-only writes it.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}). Write it anew with --eval-only.") from error
    missing = sorted({"classes", *(f"{split}_{key}" for split in SPLITS for key in KEYS)} - counts.keys())
    if missing:
        raise UserError(f"{path} has no {', '.join(missing)}: it is no run's. Write it anew with --eval-only.")
    return counts


def compare_runs(
    first_dir: str | Path,
    second_dir: str | Path,
    split: Literal["eval", "test"] = "test",
    score: Score = mean_iou,
) -> PairedTest:
    """How much better the second of two runs is on the same images, and whether chance alone would do as much.

    Args:
        first_dir: the folder of a finished run.
        second_dir: the folder of another one, on the same images and classes.
        split: `test`, or `eval` for validation.
        score: a function of areas (..., 3, K), such as those of `hfseg.metrics.scores`.

    Returns:
        Second minus first, see `paired_test`.

    Raises:
        UserError: a folder without counts; other classes, images or labels in the two.
    """
    if split not in SPLITS:
        raise UserError(f"split={split!r}: a run's splits are 'eval' (validation) and 'test'.")
    runs = [(folder, read_counts(Path(folder))) for folder in (first_dir, second_dir)]
    for what, key in (("classes", "classes"), (f"{split} images", f"{split}_names")):
        for (here, own), (elsewhere, other) in permutations(runs, 2):
            alone = sorted(set(own[key].tolist()) - set(other[key].tolist()))
            if alone:
                shown = ", ".join(alone[:3]) + (", ..." if len(alone) > 3 else "")
                raise UserError(
                    f"A paired test needs the same {what} in both runs: {len(alone)} of {here} are not in {elsewhere} "
                    f"({shown}). Score both on the same data with --eval-only."
                )
    if runs[0][1]["classes"].tolist() != runs[1][1]["classes"].tolist():
        raise UserError(f"{first_dir} and {second_dir} have their classes in another order: they cannot be compared.")
    first, second = (run[f"{split}_areas"][np.argsort(run[f"{split}_names"], kind="stable")] for _, run in runs)
    return paired_test(first, second, score)
