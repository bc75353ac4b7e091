"""What a reader of a run's scores must know first: that the model is of no use, or that few images chose it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from hfseg.metrics.scores import SPLITS, with_interval

WIDE = 0.2  # of a 95 % interval: a fifth of the whole scale, as much as lies between a usable model and a good one
Z = 1.96  # a normal distribution has 95 % within so many standard deviations


def caveats(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on the scores in `metrics.json`, the worst first; none where there is nothing to say."""
    return [sentence for sentence in (useless(metrics), uncertain_choice(metrics)) if sentence]


def unscored(metrics: Mapping[str, Any]) -> list[str]:
    """Says which splits could not be scored, and why."""
    reasons = {split: metrics.get(f"{prefix}_error") for prefix, split in SPLITS.items()}
    return [f"The {split} split could not be scored: {reason}" for split, reason in reasons.items() if reason]


def useless(metrics: Mapping[str, Any]) -> str:
    """Says so where the test score is not above that of the best constant answer."""
    score, constant = (_number(metrics, f"test_{key}") for key in ("mean_iou", "constant_mean_iou"))
    if score is None or constant is None or score > constant:
        return ""
    return (
        f"This model is of no use: its mean IoU on test is {score:.4f}, and answering "
        f"{metrics.get('test_constant_class')!r} everywhere scores {constant:.4f}."
    )


def verdict(metrics: Mapping[str, Any], per_class: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The result on test in words, from `metrics.json` and `per_class.json`; empty without one, or where `useless`."""
    score, constant, number = (_number(metrics, f"test_{k}") for k in ("mean_iou", "constant_mean_iou", "num_images"))
    if score is None or useless(metrics):
        return ""
    images = "the test images" if number is None else f"{number:g} test images"
    text = f"On {images} mean IoU is {with_interval(metrics, 'test_mean_iou')}"
    if constant is not None:
        text += f"; answering {metrics.get('test_constant_class')!r} everywhere would score {constant:.4f}"
    weakest = min((row["iou"], row["name"]) for row in per_class["test"] if row["iou"] is not None)
    return f"{text}. Its weakest class is {weakest[1]!r} with {weakest[0]:.4f}."


def uncertain_choice(metrics: Mapping[str, Any]) -> str:
    """Says so where what validation chose rests on too few images.

    Not their number decides but the width of the 95 % interval of validation's mean IoU: 20 images that are all alike
    can be enough, and 50 of which three hold the rarest class can be too few. The bootstrap's interval over few images
    is too narrow, so it is widened first, see `half_width`.
    """
    low, high, number = (_number(metrics, f"eval_{key}") for key in ("mean_iou_low", "mean_iou_high", "num_images"))
    if low is None or high is None:
        doubt = "" if number is None else "too few for an interval"
    else:
        half = (high - low) / 2
        if number is not None and number >= 2:  # older runs do not say it
            # Resampling N images gives sqrt((N - 1) / N) of a mean's standard deviation.
            half = half_width(half / Z * math.sqrt(number / (number - 1)), int(number))
        doubt = f"by which mean IoU is known to about +-{half:.2f} (95 %)" if 2 * half > WIDE else ""
    if not doubt:
        return ""
    images = "few validation images" if number is None else f"{number:g} validation image{'s' * (number != 1)}"
    has_temperature = _number(metrics, "eval_temperature") is not None
    chosen = "Checkpoint and temperature rest" if has_temperature else "The checkpoint rests"
    return f"{chosen} on {images}, {doubt}: another choice may be as good. Label more."


def _number(metrics: Mapping[str, Any], key: str) -> float | None:
    """None where the key is missing, undefined, or was edited to something else."""
    value = metrics.get(key)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def half_width(deviation: float, number: int) -> float:
    """Half of the 95 % interval of a mean, as Student's t has it where a deviation comes from few images.

    Hesterberg (2015, arXiv:1411.5279) widens bootstrap intervals so.

    Args:
        deviation: standard deviation of the mean.
        number: of images, from 2 on.
    """
    freedom = number - 1
    # Cornish and Fisher's expansion of the quantile: 12.7 is 9.7 for two images, and right to 1 % from four on
    terms = (Z, (Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96, (3 * Z**7 + 19 * Z**5 + 17 * Z**3 - 15 * Z) / 384)
    return min(1.0, deviation * sum(term / freedom**power for power, term in enumerate(terms)))
