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
    number = metrics.get("eval_num_images")  # older runs have none
    if low is not None and high is not None and high - low > WIDE:
        width = f"whose mean IoU has a 95 % interval from {low:.2f} to {high:.2f}, wider than {WIDE}"
    elif low is None and number is not None:
        width = "too few for an interval"
    else:
        return ""
    images = {None: "few validation images", 1: "one validation image"}.get(number, f"{number} validation images")
    has_temperature = metrics.get("eval_temperature") is not None
    chosen = "Checkpoint and temperature rest" if has_temperature else "The checkpoint rests"
    return f"{chosen} on {images}, {width}: another choice may be as good. Label more."
