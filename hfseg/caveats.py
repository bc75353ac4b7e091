"""What a reader of a run's scores must know first: that the model is of no use, or that few images chose it."""

from collections.abc import Mapping
from typing import Any

WIDE = 0.2  # of a 95 % interval: a fifth of the whole scale, as much as lies between a usable model and a good one


def caveats(metrics: Mapping[str, Any]) -> list[str]:
    """Sentences on the scores in `metrics.json`, the worst first; none where there is nothing to say."""
    return [said for said in (useless(metrics), uncertain_choice(metrics)) if said]


def useless(metrics: Mapping[str, Any]) -> str:
    """Says so where the test score is not above that of the best constant answer."""
    score, constant = metrics.get("test_mean_iou"), metrics.get("test_constant_mean_iou")
    if score is None or constant is None or score > constant:
        return ""
    return (
        f"This model is of no use: its mean IoU on test is {score:.4f}, and answering "
        f"{metrics.get('test_constant_class')!r} everywhere scores {constant:.4f}."
    )


def uncertain_choice(metrics: Mapping[str, Any]) -> str:
    """Says so where what validation chose rests on too few images.

    Not their number decides but the width of the 95 % interval of validation's mean IoU over them: 20 images that are
    all alike can be enough, and 50 of which three hold the rarest class can be too few.
    """
    low, high = (metrics.get(f"eval_mean_iou_{end}") for end in ("low", "high"))
    number = metrics.get("eval_num_images")
    has_interval = low is not None and high is not None
    if high - low <= WIDE if has_interval else number is None:
        return ""
    images = {None: "few validation images", 1: "one validation image"}.get(number, f"{number} validation images")
    chosen = "The checkpoint" if metrics.get("eval_temperature") is None else "Checkpoint and temperature"
    rest = "rests" if metrics.get("eval_temperature") is None else "rest"
    if not has_interval:
        return f"{chosen} {rest} on {images}, too few for an interval: another choice may be as good. Label more."
    return (
        f"{chosen} {rest} on {images}, whose mean IoU has a 95 % interval from {low:.2f} to {high:.2f}, wider than "
        f"{WIDE}: another choice may be as good. Label more."
    )
