"""How far a model's confidence can be trusted: calibration error, Brier score, and the temperature that mends it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hfseg.errors import UserError
from hfseg.metrics.scores import Counts, Scores

NUM_BINS = 15
# Confidences and squared errors are added up as integers, in units of fp32's resolution just below 1: the sums are the
# same in any order, for any batch size and number of processes, and on a GPU.
UNIT = 1 << 24
# 1/16 to 16, a factor of sqrt(2) apart. The slope of the cross-entropy at each of them is enough to find its minimum.
OCTAVES = np.linspace(-4, 4, 17)
INVERSE_TEMPERATURES = 2.0**OCTAVES
NUM_STEPS = 257  # of the integral over a slope
# The slopes take every fifth pixel of every fifth row. Five has no factor in common with the models' strides, so that
# all places between the small logits' pixels occur alike.
STRIDE = 5


class CalibrationCounter:
    """Counts the confidence of images, band by band of rows from the top; `observe` of `segmentation_loss`.

    Args:
        ignore_index: label of pixels that do not count.
        temperature: also count the confidence of logits divided by it; without one, what `fit_temperature` needs.

    Attributes:
        bins: int64 (B, V, 15, 4), V the logits as they are and, where given, divided by the temperature. For each bin
            of the winning class's confidence, (m/15, (m+1)/15], its pixels, their confidences, hits, and their squared
            errors sum_k (p_k - y_k)^2; confidences and errors in units of 2^-24.
        slopes: float64 (B, 17, 2): the cross-entropy's first and second derivative by the inverse temperature.
    """

    def __init__(self, ignore_index: int, temperature: float | None = None) -> None:
        self.ignore_index, self.temperature = ignore_index, temperature
        self.bins, self.slopes = torch.zeros(()), torch.zeros(())
        self.row = 0

    def __call__(self, logits: torch.Tensor, predicted: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds the next rows: logits (B, K, rows, W), at least fp32, their argmax and the labels (B, rows, W)."""
        if self.row == 0:
            self.bins = labels.new_zeros(len(labels), 1 if self.temperature is None else 2, NUM_BINS, 4)
            self.slopes = logits.new_zeros(len(labels), len(INVERSE_TEMPERATURES), 2, dtype=torch.float64)
        valid = labels != self.ignore_index
        labels = labels * valid
        self.bins[:, 0] += _bin_counts(logits.softmax(dim=1), predicted, labels, valid)
        if self.temperature is not None:
            self.bins[:, 1] += _bin_counts((logits / self.temperature).softmax(dim=1), predicted, labels, valid)
        else:
            rows = slice(-self.row % STRIDE, None, STRIDE)
            self.slopes += _slopes(logits[:, :, rows, ::STRIDE], labels[:, rows, ::STRIDE], valid[:, rows, ::STRIDE])
        self.row += labels.shape[1]


def _bin_counts(
    probabilities: torch.Tensor, predicted: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor
) -> torch.Tensor:
    """Int64 (B, 15, 4), see `CalibrationCounter.bins`."""
    confidence = probabilities.amax(dim=1)
    own = probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)
    error = probabilities.square().sum(dim=1) - 2 * own + 1
    bins = (confidence * NUM_BINS).ceil_().long().sub_(1).clamp_(0, NUM_BINS - 1).masked_fill_(~valid, NUM_BINS)
    bins += torch.arange(len(labels), device=bins.device).view(-1, 1, 1) * (NUM_BINS + 1)
    columns = (valid.long(), (confidence.double() * UNIT).round_().long(), (predicted == labels).long(),
               (error.double() * UNIT).round_().long())  # fmt: skip
    counts = bins.new_zeros(4, len(labels) * (NUM_BINS + 1))
    for total, column in zip(counts, columns, strict=True):
        total.scatter_add_(0, bins.flatten(), column.flatten())
    return counts.T.reshape(len(labels), NUM_BINS + 1, 4)[:, :-1]


def _slopes(logits: torch.Tensor, labels: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Float64 (B, 17, 2), see `CalibrationCounter.slopes`."""
    margins = (logits - logits.gather(1, labels.unsqueeze(1))) * valid.unsqueeze(1)  # zero where it does not count
    squares = margins.square()
    sums = []
    for inverse in INVERSE_TEMPERATURES.tolist():
        probabilities = (margins * inverse).softmax(dim=1)
        mean = (probabilities * margins).sum(dim=1)
        variance = (probabilities * squares).sum(dim=1) - mean.square()
        sums.append(torch.stack([mean.double().sum((1, 2)), variance.double().sum((1, 2))], dim=1))
    return torch.stack(sums, dim=1)


class Calibration:
    """What `SegMetrics` adds up of it, and the scores.

    Args:
        temperature: as for `CalibrationCounter`.

    Attributes:
        bins: int64 (V, 15, 4).
        slopes: float64 (2, 17, 2), of the images with even and with odd numbers: what is fitted to one half is tried
            on the other.
    """

    def __init__(self, temperature: float | None = None) -> None:
        if temperature is not None and not (0 < temperature < float("inf")):
            raise UserError(f"temperature={temperature}: logits can be divided by positive, finite numbers only.")
        self.temperature = temperature
        self.bins: Counts = np.zeros((1 if temperature is None else 2, NUM_BINS, 4), dtype=np.int64)
        self.slopes: Scores = np.zeros((2, len(INVERSE_TEMPERATURES), 2))
        self.num_images = 0

    def add(self, bins: NDArray[Any], slopes: NDArray[Any] | None) -> None:
        """Adds counts of images, (B, V, 15, 4) and (B, 17, 2)."""
        self.bins += bins.sum(0)
        if slopes is not None:
            even, odd = (slopes[start::2].sum(0) for start in (self.num_images % 2, 1 - self.num_images % 2))
            self.slopes += np.stack([even, odd])
        self.num_images += len(bins)

    def merge(self, other: "Calibration") -> None:
        """Adds what another one has counted.

        Raises:
            UserError: it was counted with another temperature.
        """
        if other.temperature != self.temperature:
            raise UserError(f"Cannot merge confidence at temperature {other.temperature} into {self.temperature}.")
        self.bins += other.bins
        self.slopes += other.slopes if self.num_images % 2 == 0 else other.slopes[::-1]
        self.num_images += other.num_images

    def compute(self) -> dict[str, float]:
        """`ece` and `brier`, and with a temperature `ece_calibrated` and `brier_calibrated`; NaN without pixels."""
        results = {}
        for suffix, bins in zip(("", "_calibrated"), self.bins, strict=False):
            pixels, confidence, hits, error = bins.T.astype(np.float64)
            total = pixels.sum() or np.nan
            results[f"ece{suffix}"] = float(np.abs(hits - confidence / UNIT).sum() / total)
            results[f"brier{suffix}"] = float(error.sum() / UNIT / total)
        return results

    def fit_temperature(self) -> float:
        """The temperature that minimises the cross-entropy, see `SegMetrics.fit_temperature`."""
        if self.temperature is not None:
            raise UserError("A temperature is fitted from logits as they are: use SegMetrics(calibration=True).")
        return float(2.0 ** -_best_octave(self.slopes.sum(0)))

    def temperature_helps(self) -> bool:
        """Whether a temperature that is fitted to half of the images lowers the cross-entropy of the other half.

        Twofold, over images with even and with odd numbers: the two changes are added. False with a single image.
        """
        if self.num_images < 2:
            return False
        first, second = self.slopes
        return _change(second, _best_octave(first)) + _change(first, _best_octave(second)) < 0


def _best_octave(slopes: Scores) -> float:
    """The logarithm, to base 2, of the inverse temperature with the least cross-entropy, from slopes (17, 2)."""
    slope, curvature = slopes.T
    if not curvature.any():  # no pixel, or nothing but equal logits: any temperature is as good
        return 0.0
    # Convex in the inverse temperature: the slope changes its sign once, if at all.
    if slope[0] >= 0 or slope[-1] <= 0:
        return float(OCTAVES[0 if slope[0] >= 0 else -1])
    low, high = OCTAVES[int((slope > 0).argmax()) - 1 :][:2]
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope_at(slopes, np.array([middle]))[0] <= 0 else (low, middle)
    return float(low)


def _change(slopes: Scores, octave: float) -> float:
    """What the cross-entropy, summed over pixels, changes by from temperature 1 to 2 ** -octave."""
    octaves = np.linspace(0, octave, NUM_STEPS)
    return float(np.trapezoid(_slope_at(slopes, octaves), 2.0**octaves))


def _slope_at(slopes: Scores, octaves: Scores) -> Scores:
    """The slope (P,) between the 17 that were counted: the cubic with their values and curvatures at both ends."""
    left = np.clip(np.searchsorted(OCTAVES, octaves) - 1, 0, len(OCTAVES) - 2)
    width = OCTAVES[1] - OCTAVES[0]
    t = (octaves - OCTAVES[left]) / width
    values, tangents = slopes[:, 0], slopes[:, 1] * INVERSE_TEMPERATURES * np.log(2) * width
    ends = (1 + 2 * t) * (1 - t) ** 2 * values[left] + t * t * (3 - 2 * t) * values[left + 1]
    return ends + t * (1 - t) ** 2 * tangents[left] + t * t * (t - 1) * tangents[left + 1]
