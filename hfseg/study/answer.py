"""What a study has found so far: arms and their differences, as numbers and as one honest sentence each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hfseg.config import VARIES
from hfseg.errors import UserError
from hfseg.metrics import SPLITS, Counts, class_iou, none_if_nan
from hfseg.runs import DATA_SETS, RunResults, public_init, read_counts
from hfseg.study.plan import Job, differing_keys, is_free, model_name
from hfseg.study.running import is_finished
from hfseg.study.statistics import FEW_IMAGES, SeedInterval, arm_interval, difference_interval

STARTS = ("scratch", "fine-tuned", "frozen", "frozen, not pretrained")
WORDS = {
    (0, 1): ("pretraining helps by", "pretraining hurts by"),
    (1, 2): ("freezing the encoder helps by", "freezing the encoder costs"),
    (0, 2): ("a frozen pretrained encoder beats training from scratch by",
             "a frozen pretrained encoder falls behind training from scratch by"),
}  # fmt: skip


@dataclass
class Arm:
    """An arm of the study and its finished runs.

    Attributes:
        name: of the arm.
        job: its first run, finished or not, whose config says what the arm is.
        planned: how many runs it is to have.
        runs: seed -> what the finished run has left.
        counts: seed -> its `counts.npz`, with the images of both splits in the order of their names.
    """

    name: str
    job: Job
    planned: int = 0
    runs: dict[int, RunResults] = field(default_factory=dict)
    counts: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def start(self) -> int:
        """Which of STARTS it is."""
        model = self.job.config.model
        if model.init is None:
            return 0 if model.freeze == "none" else 3
        return 1 if model.freeze == "none" else 2

    def areas(self, split: str, key: str = "areas") -> list[Counts]:
        """(N, 3, K) of each run; `boundary` are those of Boundary IoU."""
        arrays = [counts[f"{split}_{key}"] for counts in self.counts.values()]
        return [array[:, 0] if key == "boundary" else array for array in arrays]

    @property
    def validation(self) -> float:
        """Mean over runs of the validation score; NaN without runs."""
        scores = [run.metrics.get("eval_mean_iou") for run in self.runs.values()]
        return float(np.mean([np.nan if score is None else score for score in scores])) if scores else float("nan")

    @property
    def best_seed(self) -> int:
        """Of the run with the highest validation score."""
        return max(self.runs, key=lambda seed: self.runs[seed].metrics.get("eval_mean_iou") or 0.0)


def collect(jobs: Sequence[Job]) -> tuple[list[Arm], list[str]]:
    """The arms with what their finished runs have left, and sentences about runs whose counts are of no use."""
    arms: dict[str, Arm] = {}
    problems = []
    for job in jobs:
        if job.arm is None:
            continue
        arm = arms.setdefault(job.arm, Arm(job.arm, job))
        arm.planned += 1
        if not is_finished(job):
            continue
        try:
            counts = _in_order(read_counts(job.folder))
        except UserError as error:
            problems.append(f"{job.name} is left out: {error}")
            continue
        if not all(_same_data(counts, others) for others in arm.counts.values()):
            problems.append(f"{job.name} is left out: it was scored on other images, labels or classes than its arm.")
            continue
        arm.runs[job.config.seed] = RunResults.read(job.folder)
        arm.counts[job.config.seed] = counts
    return list(arms.values()), problems


def _in_order(counts: Mapping[str, Any]) -> dict[str, Any]:
    ordered = dict(counts)
    for split in ("eval", "test"):
        places = np.argsort(counts[f"{split}_names"], kind="stable")
        for key in ("names", "areas", "boundary"):
            if f"{split}_{key}" in counts:
                ordered[f"{split}_{key}"] = counts[f"{split}_{key}"][places]
    return ordered


def _same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two runs were scored on the same data: it may have changed between them."""
    is_alike = np.array_equal(one["classes"], other["classes"])
    return is_alike and all(_same_labels(one, other, split) for split in SPLITS)


def _same_labels(one: Mapping[str, Any], other: Mapping[str, Any], split: str) -> bool:
    """Whether a split has the same images with the same labels in both."""
    names, areas = f"{split}_names", f"{split}_areas"
    return np.array_equal(one[names], other[names]) and np.array_equal(one[areas][:, 1], other[areas][:, 1])


def describe_arm(arm: Arm) -> dict[str, Any]:
    """Everything that the study says of an arm, for `study.json`."""
    config = arm.job.config
    tree: dict[str, Any] = {
        "model": model_name(config),
        "start": STARTS[arm.start],
        "init": arm.job.needs or (config.model.init and public_init(config.model.init)),
        "freeze": config.model.model_dump(mode="json")["freeze"],
        "seeds": list(arm.runs),
        "planned_runs": arm.planned,
    }
    if not arm.runs:
        return tree
    tree["best_seed"] = arm.best_seed
    for prefix in ("eval", "test"):
        tree[prefix] = {"runs": {str(seed): run.metrics.get(f"{prefix}_mean_iou") for seed, run in arm.runs.items()}}
        tree[prefix]["mean_iou"] = as_tree(arm_interval(arm.areas(prefix)))
        if all(f"{prefix}_boundary" in counts for counts in arm.counts.values()):
            tree[prefix]["boundary_iou"] = as_tree(arm_interval(arm.areas(prefix, "boundary")))
    per_class = as_tree(arm_interval(arm.areas("test"), class_iou))
    names = next(iter(arm.counts.values()))["classes"].tolist()
    tree["test"]["per_class"] = [
        {"name": name, "iou": per_class["value"][k], "iou_low": per_class["low"][k], "iou_high": per_class["high"][k]}
        for k, name in enumerate(names)
    ]
    made = [run.provenance for run in arm.runs.values()]
    tree |= {
        "parameters": made[0].get("num_parameters"),
        "trained_parameters": made[0].get("num_trained"),
        "minutes_per_run": mean_minutes(made),
        "peak_memory_mb": max((each.get("peak_memory_mb") or 0 for each in made), default=0) or None,
        "hardware": sorted({each["hardware"] for each in made if each}),
    }
    return tree


def as_tree(interval: SeedInterval) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: _defined(value.round(6).tolist()) for key, value in ends.items()} | {"over_seeds": interval.has_seeds}


def describe_pretraining(job: Job) -> dict[str, Any]:
    """What a finished pretraining run was, and how good on its own test images, for `study.json`."""
    run, data = RunResults.read(job.folder), job.config.data
    low, high = (run.metrics.get(f"test_mean_iou_{end}") for end in ("low", "high"))
    return {
        "model": model_name(job.config),
        "data": data.note or DATA_SETS[data.name].title,
        "init": job.config.model.init and public_init(job.config.model.init),
        "steps": run.provenance.get("steps"),
        "minutes": mean_minutes([run.provenance]),
        "num_images": run.provenance.get("num_images", {}).get("test"),
        "test_mean_iou": {"value": run.metrics.get("test_mean_iou"), "low": low, "high": high},
    }


def mean_minutes(made: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the trainings whose provenance tells their time."""
    seconds = [each["train_seconds"] for each in made if each.get("train_seconds")]
    return round(float(np.mean(seconds)) / 60, 3) if seconds else None


def _defined(value: Any) -> Any:
    return [none_if_nan(each) for each in value] if isinstance(value, list) else none_if_nan(value)


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
    is_same_model = model_name(first.job.config) == model_name(second.job.config)
    keys = differing_keys(first.job.config, second.job.config)
    tree: dict[str, Any] = {"first": first.name, "second": second.name, "same_model": is_same_model}
    tree["differ_in"] = list(keys)
    tree["runs"] = [len(first.runs), len(second.runs)]
    counts, others = (next(iter(arm.counts.values())) for arm in (first, second))
    if not _same_labels(counts, others, "test"):
        return tree | {"sentence": f"{second.name} and {first.name} were scored on other images: not compared."}
    one, other = first.areas("test"), second.areas("test")
    tree |= as_tree(difference_interval(one, other))
    tree["num_images"] = len(one[0])
    return tree | {"sentence": sentence(first, second, tree)}


def sentence(first: Arm, second: Arm, tree: Mapping[str, Any]) -> str:
    """What a difference means, and no more than its interval supports as it is shown.

    It is that of pretraining or freezing only where nothing else differs, and where all of the encoder is frozen.
    """
    models = first.job.config.model, second.job.config.model
    others = [key for key in tree["differ_in"] if not is_free(key, VARIES if tree["same_model"] else ("model",))]
    is_one_thing = tree["same_model"] and not others and models[1].freeze in ("none", "encoder")
    standard = is_one_thing and (first.start == 0 or models[0].init == models[1].init)
    helps, hurts = WORDS.get((first.start, second.start) if standard else (-1, -1), ("", ""))
    subject = f"{model_name(second.job.config)}: " if standard and helps else ""
    value, low, high = (None if tree[key] is None else 100 * tree[key] for key in ("value", "low", "high"))
    pair = f"{second.name} \N{MINUS SIGN} {first.name}"
    if value is None:
        return f"{second.name} and {first.name}: no score to compare."
    if low is None or high is None:
        return f"{pair}: {value:+.1f} points without an interval, which takes two test images."
    shown = f"{value:+.1f} points [{low:+.1f}, {high:+.1f}]"
    if not tree["over_seeds"]:
        return f"{pair}: {shown}; one seed: the interval is over images only; no claim about the method."
    if round(low, 1) <= 0 <= round(high, 1):
        return f"{subject}no difference can be told apart between {second.name} and {first.name} ({shown})."
    ends = (low, high) if value > 0 else (-high, -low)
    amount = f"{abs(value):.1f} points [{ends[0]:.1f}, {ends[1]:.1f}]"
    if helps:
        return f"{subject}{helps if value > 0 else hurts} {amount} ({second.name} against {first.name})."
    text = f"{second.name} is {'better' if value > 0 else 'worse'} than {first.name} by {amount}"
    if others and tree["same_model"]:
        return f"{text}; they differ in {', '.join(others)} too."
    return f"{text}, as recipes: they differ in more than the model." if others else f"{text}."


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
    missing = {job.name: failed.get(job.name, "not finished yet") for job in jobs if not is_finished(job)}
    images = {split: len(best.areas(prefix)[0]) for prefix, split in reversed(SPLITS.items())} if best else {}
    described = {arm.name: describe_arm(arm) for arm in arms}
    tree = {
        "name": name,
        "note": note,
        "num_runs": len(jobs),
        "missing": missing,
        "warnings": [*warnings, *problems, *few_images(fewest_images(scored))],
        "num_images": images,
        "best_arm": best.name if best else None,
        "best_run": f"{best.name}-seed{best.best_seed}" if best else None,
        "pretraining": {job.name: describe_pretraining(job) for job in jobs if job.arm is None and is_finished(job)},
        "num_intervals": sum("test" in each for each in described.values()) + sum("low" in d for d in differences),
        "arms": described,
        "differences": differences,
        "sentences": [each["sentence"] for each in differences],
    }
    return tree, arms


def fewest_images(arms: Sequence[Arm]) -> dict[str, int]:
    """Of each split, where arms were scored on different ones."""
    splits = reversed(SPLITS.items()) if arms else ()
    return {split: min(len(arm.areas(prefix)[0]) for arm in arms) for prefix, split in splits}


def few_images(images: Mapping[str, int]) -> list[str]:
    """Sentences about splits (name -> images) that are too small."""
    said = []
    for split, count in images.items():
        if count < 2:
            said.append(f"The {split} split has {count} image(s): too few for an interval.")
        elif count < FEW_IMAGES:
            said.append(f"The {split} split has only {count} images: intervals over so few are too narrow.")
    return said
