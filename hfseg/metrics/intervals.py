"""How sure a score is: bootstrap intervals over images, and a paired test between two models on the same images."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfseg.errors import UserError
from hfseg.html import html_table
from hfseg.metrics.scores import Counts, Scores, mean_iou

Score = Callable[[NDArray[Any]], Scores]
CHUNK = 250  # resamples at a time: memory is bounded whatever their number


@dataclass(frozen=True)
class Interval:
    """A score of a data set and its 95 % interval; `low` and `high` are NaN with fewer than two images."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"


@dataclass(frozen=True)
class PairedTest(Interval):
    """A difference of scores, second minus first, with its interval and the p-value of "there is no difference"."""

    p_value: float

    def __repr__(self) -> str:
        return f"PairedTest({self.value:+.4f} [{self.low:+.4f}, {self.high:+.4f}], p = {self.p_value:.4f})"

    def _repr_html_(self) -> str:
        cells = f"{self.value:+.4f}", f"{self.low:+.4f} to {self.high:+.4f}", f"{self.p_value:.4f}", self.verdict
        return html_table("Second minus first", ["difference", "95 % interval", "p-value", ""], [cells])

    @property
    def verdict(self) -> str:
        """What the interval says, in words."""
        if self.low > 0 or self.high < 0:
            return f"the {'second' if self.low > 0 else 'first'} is better: the interval does not hold 0"
        return "no difference is shown: the interval holds 0" if self.low <= 0 <= self.high else "too few images"


def bootstrap_interval(
    areas: Counts, score: Score = mean_iou, num_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The percentile bootstrap over images: what the score might have been on other images of the same kind.

    It says nothing of another training run: that variation takes several seeds. Images are taken as independent;
    frames of one video are not. Few images make it too narrow: simulated, 95 % intervals hold the population's score
    in 94 to 95 of 100 cases from 100 images on, in 93 with 30 images and in 88 with 10.

    Args:
        areas: (N, 3, K), the hits, labelled and predicted pixels per class of each image.
        score: a function of areas (..., 3, K), such as those of `hfseg.metrics.scores`.
        num_resamples: how many data sets are drawn, each of N images with replacement.
        seed: of the draws; the same seed gives the same interval.
        confidence: share of the draws inside of the interval.

    Returns:
        The score of all images, and the interval.
    """
    value = float(score(areas.sum(0)))
    draws = [score(weighted_sums(weights, areas)) for weights in resamples(len(areas), num_resamples, seed)]
    return Interval(value, *_percentiles(draws, len(areas), confidence))


def paired_test(
    first: Counts,
    second: Counts,
    score: Score = mean_iou,
    num_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> PairedTest:
    """Whether the second of two models is better than the first on the same images.

    The interval is the bootstrap's, with both models scored on each draw of images, which takes out what the images
    have in common. The p-value is two-sided, of the permutation test that exchanges the two models' counts image by
    image at random: how often chance alone gives a difference as large as this one.

    Args:
        first: (N, 3, K), areas of one model.
        second: (N, 3, K), areas of the other, of the same images in the same order.
        score: as in `bootstrap_interval`, as are the other arguments.

    Raises:
        UserError: the images are not the same; names the first one that differs.
    """
    _check_same_images(first, second)
    value = float(score(second.sum(0)) - score(first.sum(0)))
    draws = [
        score(weighted_sums(weights, second)) - score(weighted_sums(weights, first))
        for weights in resamples(len(first), num_resamples, seed)
    ]
    low, high = _percentiles(draws, len(first), confidence)
    return PairedTest(value, low, high, _permutation_p_value(first, second, score, value, num_resamples, seed))


def _permutation_p_value(
    first: Counts, second: Counts, score: Score, observed: float, num_resamples: int, seed: int
) -> float:
    rng = np.random.default_rng([seed, 1])
    change, as_large = second - first, 0
    for start in range(0, num_resamples, CHUNK):
        exchanged = rng.integers(0, 2, (min(CHUNK, num_resamples - start), len(first)))
        moved = weighted_sums(exchanged, change)
        differences = score(second.sum(0) - moved) - score(first.sum(0) + moved)
        as_large += int((np.abs(differences) >= abs(observed) - 1e-12).sum())  # equal up to rounding is as large
    return (as_large + 1) / (num_resamples + 1)  # the observed assignment is one of the possible ones


def resamples(num_images: int, num_resamples: int, seed: int) -> Iterator[Counts]:
    """How often each draw contains each image: (R, N), in chunks."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_resamples if num_images else 0, CHUNK):
        size = min(CHUNK, num_resamples - start)
        yield rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=size)


def weighted_sums(weights: Counts, areas: Counts) -> Scores:
    """Areas (R, 3, K) of R weighted sums of images. Float matrix products are fast, and exact up to 2^53 pixels."""
    flat = areas.reshape(len(areas), -1).astype(np.float64)
    return (weights.astype(np.float64) @ flat).reshape(len(weights), *areas.shape[1:])


def _percentiles(draws: list[Scores], num_images: int, confidence: float) -> tuple[float, float]:
    scores = np.concatenate(draws) if draws else np.array([np.nan])
    scores = scores[~np.isnan(scores)]
    if num_images < 2 or not len(scores):
        return float("nan"), float("nan")
    tail = (1 - confidence) / 2
    low, high = np.quantile(scores, [tail, 1 - tail])
    return float(low), float(high)


def _check_same_images(first: Counts, second: Counts) -> None:
    if first.shape != second.shape:
        raise UserError(
            f"A paired test needs two models on the same images and classes; got {first.shape[0]} images of "
            f"{first.shape[-1]} classes and {second.shape[0]} images of {second.shape[-1]} classes."
        )
    differs = (first[:, 1] != second[:, 1]).any(1)
    if differs.any():
        raise UserError(
            f"A paired test needs two models on the same images in the same order: image {int(differs.argmax())} has "
            "other labelled pixels in the second one. Score both on the same split."
        )
