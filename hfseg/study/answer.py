"""What a study has found so far: arms and their differences, as numbers and as one honest sentence each."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hfseg.config import VARIES
from hfseg.metrics import SPLITS
from hfseg.study.arms import Arm, as_tree, collect, describe_arm, describe_pretraining, same_labels
from hfseg.study.plan import Job, differing_keys, is_free, model_name
from hfseg.study.running import is_finished
from hfseg.study.statistics import FEW_IMAGES, difference_interval

# Which of `arms.STARTS` are compared -> what a better and a worse second arm mean.
WORDS = {
    (0, 1): ("pretraining helps by", "pretraining hurts by"),
    (1, 2): ("freezing the encoder helps by", "freezing the encoder costs"),
    (0, 2): ("a frozen pretrained encoder beats training from scratch by",
             "a frozen pretrained encoder falls behind training from scratch by"),
}  # fmt: skip


def answer(
    name: str, note: str | None, jobs: Sequence[Job], warnings: Sequence[str], failed: Mapping[str, str]
) -> tuple[dict[str, Any], list[Arm]]:
    """The whole of `study.json`, and the arms behind it.

    Args:
        name: of the study.
        note: what its data is, from `data.note`.
        jobs: all runs.
        warnings: about undeclared differences.
        failed: runs that have just failed -> why.
    """
    arms, problems = collect(jobs)
    differences = [compare(first, second) for first, second in pairs(arms)]
    scored = [arm for arm in arms if not np.isnan(arm.validation)]
    best = max(scored, key=lambda arm: arm.validation, default=None)
    images = [{split: len(arm.areas(prefix)[0]) for prefix, split in reversed(SPLITS.items())} for arm in scored]
    fewest = {split: min(each[split] for each in images) for split in (images[0] if images else ())}
    described = {arm.name: describe_arm(arm) for arm in arms}
    tree = {
        "name": name,
        "note": note,
        "num_runs": len(jobs),
        "missing": {job.name: failed.get(job.name, "not finished yet") for job in jobs if not is_finished(job)},
        "warnings": [*warnings, *problems, *few_images(fewest)],
        "num_images": images[scored.index(best)] if best else {},
        "best_arm": best.name if best else None,
        "best_run": f"{best.name}-seed{best.best_seed}" if best else None,
        "pretraining": {job.name: describe_pretraining(job) for job in jobs if job.arm is None and is_finished(job)},
        "num_intervals": sum("test" in each for each in described.values()) + sum("low" in d for d in differences),
        "arms": described,
        "differences": differences,
        "sentences": [each["sentence"] for each in differences],
    }
    return tree, arms


def few_images(images: Mapping[str, int]) -> list[str]:
    """Sentences about splits (name -> images) that are too small."""
    sentences = []
    for split, count in images.items():
        if count < 2:
            sentences.append(f"The {split} split has {count} image(s): too few for an interval.")
        elif count < FEW_IMAGES:
            sentences.append(f"The {split} split has only {count} images: intervals over so few are too narrow.")
    return sentences


def pairs(arms: Sequence[Arm]) -> list[tuple[Arm, Arm]]:
    """Which arms are compared: all of one model, then those of different models that start alike."""
    same, across = [], []
    for place, one in enumerate(arms):
        for other in arms[place + 1 :]:
            first, second = sorted((one, other), key=lambda arm: arm.start)
            if model_name(one.job.config) == model_name(other.job.config):
                same.append((first, second))
            elif one.start == other.start:
                across.append((one, other))
    return [pair for pair in (*same, *across) if all(arm.runs for arm in pair)]


def compare(first: Arm, second: Arm) -> dict[str, Any]:
    """The difference of two arms on the test images, for `study.json`."""
    tree: dict[str, Any] = {
        "first": first.name,
        "second": second.name,
        "same_model": model_name(first.job.config) == model_name(second.job.config),
        "differ_in": list(differing_keys(first.job.config, second.job.config)),
        "runs": [len(first.runs), len(second.runs)],
    }
    if not same_labels(next(iter(first.counts.values())), next(iter(second.counts.values())), "test"):
        return tree | {"sentence": f"{second.name} and {first.name} were scored on other images: not compared."}
    one, other = first.areas("test"), second.areas("test")
    tree |= as_tree(difference_interval(one, other))
    tree["num_images"] = len(one[0])
    return tree | {"sentence": sentence(first, second, tree)}


def sentence(first: Arm, second: Arm, tree: Mapping[str, Any]) -> str:
    """What a difference means, and no more than its interval supports as it is shown.

    It is that of pretraining or freezing only where nothing else differs, and where all of the encoder is frozen.
    """
    value, low, high = (None if tree[key] is None else 100 * tree[key] for key in ("value", "low", "high"))
    pair = f"{second.name} \N{MINUS SIGN} {first.name}"
    if value is None:
        return f"{second.name} and {first.name}: no score to compare."
    if low is None or high is None:
        return f"{pair}: {value:+.1f} points without an interval, which takes two test images."
    shown = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if not tree["over_seeds"]:
        return f"{pair}: {shown}; one seed: the interval is over images only; no claim about the method."
    others = [key for key in tree["differ_in"] if not is_free(key, VARIES if tree["same_model"] else ("model",))]
    better, worse = ("", "") if others or not tree["same_model"] else _meaning(first, second)
    subject = f"{model_name(second.job.config)}: " if better else ""
    if round(low, 1) <= 0 <= round(high, 1):
        return f"{subject}no difference can be told apart between {second.name} and {first.name} ({shown})."
    ends = (low, high) if value > 0 else (-high, -low)
    amount = f"{abs(value):.1f} points [{ends[0]:.1f}, {ends[1]:.1f}]"
    if better:
        return f"{subject}{better if value > 0 else worse} {amount} ({second.name} against {first.name})."
    text = f"{second.name} is {'better' if value > 0 else 'worse'} than {first.name} by {amount}"
    if others and tree["same_model"]:
        return f"{text}; they differ in {', '.join(others)} too."
    return f"{text}, as recipes: they differ in more than the model." if others else f"{text}."


def _meaning(first: Arm, second: Arm) -> tuple[str, str]:
    """What makes two arms differ that differ in nothing but start and freezing; empty where that has no name."""
    models = first.job.config.model, second.job.config.model
    is_standard = models[1].freeze in ("none", "encoder") and (first.start == 0 or models[0].init == models[1].init)
    return WORDS.get((first.start, second.start) if is_standard else (-1, -1), ("", ""))
