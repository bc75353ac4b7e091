"""A paired test of two runs on the same images, from their counts."""

from itertools import permutations
from pathlib import Path
from typing import Literal

import numpy as np

from hfseg.errors import UserError
from hfseg.metrics import SPLITS, PairedTest, Score, mean_iou, paired_test
from hfseg.runs.results import RunResults


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
    runs = [(folder, RunResults.read(Path(folder)).require_counts()) for folder in (first_dir, second_dir)]
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
