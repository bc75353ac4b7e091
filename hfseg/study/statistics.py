"""How sure a study is: 95 % intervals over images and over training runs, for an arm and for the difference of two.

Images are drawn by the bootstrap, the same for all runs. Seeds are too few for that: drawing three of three runs with
replacement gives intervals that hold the truth in about 75 of 100 cases. So the spread between runs enters as what it
is, an estimate from few: each draw of images gets a draw of Student's t with the degrees of freedom of the runs
(Welch's for two arms), times the standard error of their mean. Where images are all that varies this is the
bootstrap, where seeds are all that varies it is the t interval. Two seeds say little, and so does their interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hfseg.metrics import Counts, Score, Scores, mean_iou, resamples, weighted_sums

FEW_IMAGES = 30  # below it, bootstrap intervals over images are too narrow
CONFIDENCE = 0.95


@dataclass(frozen=True)
class SeedInterval:
    """A mean over runs, or a difference of means, and its 95 % interval.

    Attributes:
        value: (...) the score's mean over the runs on all images.
        low: lower end, NaN with fewer than two images.
        high: upper end.
        has_seeds: whether the spread between runs is in it; otherwise it is of images alone.
    """

    value: Scores
    low: Scores
    high: Scores
    has_seeds: bool


def arm_interval(
    areas: Sequence[Counts], score: Score = mean_iou, num_resamples: int = 2000, seed: int = 0
) -> SeedInterval:
    """The mean score of an arm's runs, and what it might be on other images and with other seeds.

    Scores are shares, so the interval ends at 0 and 1.

    Args:
        areas: for each run (N, 3, K), hits, labelled and predicted pixels per class of each image. All runs have the
            same images in the same order.
        score: a function of areas (..., 3, K), such as those of `hfseg.metrics.scores`.
        num_resamples: how many sets of images are drawn.
        seed: of the draws.
    """
    interval = difference_interval(None, areas, score, num_resamples, seed)
    return replace(interval, low=np.clip(interval.low, 0, 1), high=np.clip(interval.high, 0, 1))


def difference_interval(
    first: Sequence[Counts] | None,
    second: Sequence[Counts],
    score: Score = mean_iou,
    num_resamples: int = 2000,
    seed: int = 0,
) -> SeedInterval:
    """How much better the second of two arms is on the same images: the difference of their means over runs.

    Each draw of images scores both arms, which takes out what the images have in common. The seeds of two arms are
    taken as independent, also where they are the same numbers. Simulated, with 3 runs of each arm and 60 images, the
    interval holds the true difference in 94 to 99 of 100 cases, the more the less seeds vary. With one
    run of either arm there is nothing to tell the spread between runs from: the interval is of images alone, and no
    claim about the method can rest on it.

    Args:
        first: for each run (N, 3, K) as in `arm_interval`; None for a plain mean.
        second: the same for the other arm; the number of runs may differ.
        score: as in `arm_interval`, as are the other arguments.
    """
    arms = [runs for runs in (first, second) if runs is not None]
    signs = (-1.0, 1.0) if first is not None else (1.0,)
    num_images, has_seeds = len(second[0]), all(len(runs) > 1 for runs in arms)
    totals = [score(np.stack([run.sum(0) for run in runs])) for runs in arms]  # (S, ...)
    value = sum(sign * total.mean(0) for sign, total in zip(signs, totals, strict=True))
    value = np.asarray(value, dtype=np.float64)
    if num_images < 2:
        return SeedInterval(value, np.full_like(value, np.nan), np.full_like(value, np.nan), has_seeds)
    draws = np.concatenate(
        [
            sum(sign * _mean_scores(weights, runs, score) for sign, runs in zip(signs, arms, strict=True))
            for weights in resamples(num_images, num_resamples, seed)
        ]
    )
    if has_seeds:
        error, freedom = _welch(totals)
        rng = np.random.default_rng([seed, 2])
        draws = draws + error * rng.standard_t(np.broadcast_to(freedom, draws.shape))
    tail = (1 - CONFIDENCE) / 2
    is_undefined = np.isnan(draws).all(0)  # such as a class that no image has; NumPy warns of it
    ends = np.nanquantile(np.where(is_undefined, 0, draws), [tail, 1 - tail], axis=0)
    low, high = np.where(is_undefined, np.nan, ends)
    return SeedInterval(value, low, high, has_seeds)


def _mean_scores(weights: Counts, runs: Sequence[Counts], score: Score) -> Scores:
    """(R, ...) for R draws of images: the mean over runs of the score of each."""
    return np.stack([score(weighted_sums(weights, run)) for run in runs]).mean(0)


def _welch(totals: Sequence[Scores]) -> tuple[Scores, Scores]:
    """Standard error and degrees of freedom of a sum or difference of means of runs (Welch, 1947)."""
    parts = [scores.var(0, ddof=1) / len(scores) for scores in totals]
    variance = np.asarray(sum(parts))
    weights = sum(part**2 / (len(scores) - 1) for part, scores in zip(parts, totals, strict=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        freedom = np.where(variance > 0, variance**2 / weights, 1.0)  # runs that are all equal: any will do
    return np.sqrt(variance), np.nan_to_num(freedom, nan=1.0)
