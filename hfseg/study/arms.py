"""The arms of a study with what their finished runs have left, and what each arm has found as numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hfseg.errors import UserError
from hfseg.metrics import SPLITS, Counts, class_iou, none_if_nan
from hfseg.runs import DATA_SETS, RunResults, public_init
from hfseg.study.plan import Job, model_name
from hfseg.study.running import is_finished
from hfseg.study.statistics import SeedInterval, arm_interval

STARTS = ("scratch", "fine-tuned", "frozen", "frozen, not pretrained")


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
            run = RunResults.read(job.folder)
            counts = _in_order(run.require_counts())
        except UserError as error:
            problems.append(f"{job.name} is left out: {error}")
            continue
        if all(_same_data(counts, others) for others in arm.counts.values()):
            arm.runs[job.config.seed], arm.counts[job.config.seed] = run, counts
        else:
            problems.append(f"{job.name} is left out: it was scored on other images, labels or classes than its arm.")
    return list(arms.values()), problems


def _in_order(counts: Mapping[str, Any]) -> dict[str, Any]:
    ordered = dict(counts)
    for split in SPLITS:
        places = np.argsort(counts[f"{split}_names"], kind="stable")
        for key in (f"{split}_names", f"{split}_areas", f"{split}_boundary"):
            if key in counts:
                ordered[key] = counts[key][places]
    return ordered


def _same_data(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    is_alike = np.array_equal(one["classes"], other["classes"])
    return is_alike and all(same_labels(one, other, split) for split in SPLITS)


def same_labels(one: Mapping[str, Any], other: Mapping[str, Any], split: str) -> bool:
    """Whether a split has the same images with the same labels in the counts of two runs."""
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
    interval = as_tree(arm_interval(arm.areas("test"), class_iou))
    names = next(iter(arm.counts.values()))["classes"].tolist()
    rows = zip(names, interval["value"], interval["low"], interval["high"], strict=True)
    tree["test"]["per_class"] = [
        {"name": name, "iou": value, "iou_low": low, "iou_high": high} for name, value, low, high in rows
    ]
    made = [run.provenance for run in arm.runs.values()]
    return tree | {
        "parameters": made[0].get("num_parameters"),
        "trained_parameters": made[0].get("num_trained"),
        "minutes_per_run": _mean_minutes(made),
        "peak_memory_mb": max((each.get("peak_memory_mb") or 0 for each in made), default=0) or None,
        "hardware": sorted({each["hardware"] for each in made if each}),
    }


def describe_pretraining(job: Job) -> dict[str, Any]:
    """What a finished pretraining run was, and how good on its own test images, for `study.json`."""
    run, data = RunResults.read(job.folder), job.config.data
    return {
        "model": model_name(job.config),
        "data": data.note or DATA_SETS[data.name].title,
        "init": job.config.model.init and public_init(job.config.model.init),
        "steps": run.provenance.get("steps"),
        "minutes": _mean_minutes([run.provenance]),
        "num_images": run.provenance.get("num_images", {}).get("test"),
        "test_mean_iou": {
            key: run.metrics.get(f"test_mean_iou{end}")
            for key, end in (("value", ""), ("low", "_low"), ("high", "_high"))
        },
    }


def as_tree(interval: SeedInterval) -> dict[str, Any]:
    """For JSON, which has no NaN."""
    ends = {"value": interval.value, "low": interval.low, "high": interval.high}
    return {key: _defined(value.round(6).tolist()) for key, value in ends.items()} | {"over_seeds": interval.has_seeds}


def _defined(value: Any) -> Any:
    return [none_if_nan(each) for each in value] if isinstance(value, list) else none_if_nan(value)


def _mean_minutes(made: Sequence[Mapping[str, Any]]) -> float | None:
    """Of the trainings whose provenance has their time."""
    seconds = [each["train_seconds"] for each in made if each.get("train_seconds")]
    return round(float(np.mean(seconds)) / 60, 3) if seconds else None
