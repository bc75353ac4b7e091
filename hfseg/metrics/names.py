"""The scores of `metrics.json` as people read them: one table for the console, the report, the card and the study."""

import re
from collections.abc import Mapping
from typing import Any

from hfseg.metrics.scores import SPLITS

# A pattern for the key without its split -> its name, in the order in which tables have them.
MAIN_SCORES = {
    "mean_iou": "mean IoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "mean_dice": "mean Dice",
}
REQUESTED_SCORES = {  # by `eval.boundary` and `eval.calibration`, or of a data set with categories
    "boundary_iou": "Boundary IoU",
    r"band_iou_(\d+)px": r"mean IoU within \1 px of a boundary",
    "category_iou": "mean IoU of the categories",
    "category_iou_(.+)": r"IoU of the category \1",
    "ece": "calibration error ECE (lower is better)",
    "ece_calibrated": "the same at the fitted temperature",
    "brier": "Brier score (lower is better)",
    "brier_calibrated": "the same at the fitted temperature",
}
OTHER_SCORES = {
    "loss": "cross-entropy (lower is better)",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_image_iou": "mean IoU of single images, averaged",
    "worst_image_iou": "mean IoU of the worst image",
    "mean_precision": "mean precision",
}
METRIC_NAMES = MAIN_SCORES | REQUESTED_SCORES | OTHER_SCORES
# The rest of metrics.json: single classes, ends of intervals, counts, times and names.
NO_SCORE = re.compile(
    r"iou_.*|num_.*|worst_image|constant_.*|temperature|runtime|.*_per_second|model_preparation.*|.*_(low|high)"
)


def metric_name(key: str) -> str:
    """The name of a score.

    Example:
        >>> metric_name("band_iou_3px"), metric_name("something_new")
        ('mean IoU within 3 px of a boundary', 'something new')
    """
    for pattern, name in METRIC_NAMES.items():
        if match := re.fullmatch(pattern, key):
            return match.expand(name).replace("_", " ")
    return key.replace("_", " ")


def score_keys(metrics: Mapping[str, Any]) -> list[str]:
    """The keys, without their split, of the scores that at least one split has; unknown ones last."""
    split_keys = (key.partition("_") for key, value in metrics.items() if isinstance(value, int | float))
    keys = dict.fromkeys(key for prefix, _, key in split_keys if prefix in SPLITS and not NO_SCORE.fullmatch(key))
    return sorted(keys, key=_place)


def _place(key: str) -> int:
    matching = (place for place, pattern in enumerate(METRIC_NAMES) if re.fullmatch(pattern, key))
    return next(matching, len(METRIC_NAMES))
