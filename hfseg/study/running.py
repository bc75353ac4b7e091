"""Running what is left of a study, one run after another."""

import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.status import Status

from hfseg.callbacks import read_history
from hfseg.checkpoints import checkpoints, damage
from hfseg.errors import UserError
from hfseg.run import check_same_run, run
from hfseg.study.plan import Job
from hfseg.study.process import RunningElsewhereError, run_process


@dataclass
class Outcome:
    """What became of the runs that were asked for, and why it failed where it did."""

    failed: dict[str, str] = field(default_factory=dict)
    elsewhere: list[str] = field(default_factory=list)


def is_finished(job: Job) -> bool:
    return (job.folder / "metrics.json").exists()


def check_unchanged(jobs: Sequence[Job]) -> None:
    """What is finished or begun must have been made with the config of today.

    Raises:
        UserError: lists each run whose config differs, with the keys.
    """
    problems = []
    for job in jobs:
        if is_finished(job) or checkpoints(job.folder):  # anything else starts over
            try:
                check_same_run(job.config, eval_only=False)
            except UserError as error:
                problems.append(str(error))
    if problems:
        raise UserError("\n".join([*problems, "Results of one study come from one config: see the keys above."]))


def run_jobs(jobs: Sequence[Job], chosen: Sequence[Job], script: Path, console: Console) -> Outcome:
    """Runs what is not finished, each in a process of its own; a failure does not stop the rest.

    Args:
        jobs: all of the study.
        chosen: those to run.
        script: the command line of hfseg, `scripts/run_seg.py`.
        console: for progress.
    """
    outcome = Outcome()
    by_name = {job.name: job for job in jobs}
    waiting = [job for job in chosen if not is_finished(job)]
    if len(waiting) < len(chosen):
        console.print(f"{len(chosen) - len(waiting)} of {len(chosen)} runs are finished already.", highlight=False)
    for number, job in enumerate(waiting, 1):
        needed = by_name[job.needs] if job.needs else None
        if needed is not None and not is_finished(needed):
            outcome.failed[job.name] = f"it needs {needed.name}, which is not finished"
            console.print(f"{number}/{len(waiting)} {job.name}: skipped, {outcome.failed[job.name]}", highlight=False)
            continue
        began = time.monotonic()
        try:
            with console.status(f"{number}/{len(waiting)} {job.name}") as status:
                code = _run_one(job, script, _Progress(job, f"{number}/{len(waiting)}", best_so_far(jobs), status))
        except RunningElsewhereError:
            outcome.elsewhere.append(job.name)
            console.print(f"{number}/{len(waiting)} {job.name}: left alone, another process works on it")
            continue
        minutes = (time.monotonic() - began) / 60
        if code or not is_finished(job):
            outcome.failed[job.name] = f"exit status {code}: {last_words(job)}"
            words = f"failed after {minutes:.1f} minutes, {outcome.failed[job.name]}"
        else:
            words = f"validation {_validation(job):.4f}, {minutes:.1f} minutes; best so far {best_so_far(jobs)}"
        console.print(f"{number}/{len(waiting)} {job.name}: {words}", highlight=False, markup=False)
    return outcome


def run_here(job: Job) -> None:
    """The run in this very process, which is one of several under `accelerate launch`."""
    run(job.config, resume=prepare(job))


def prepare(job: Job) -> bool:
    """Whether there is a checkpoint to go on from; without a whole one, what is there of the run is put away."""
    if any(damage(folder) is None for folder in checkpoints(job.folder)):
        return True
    for folder in checkpoints(job.folder):
        shutil.rmtree(folder)
    return False


def _run_one(job: Job, script: Path, progress: "_Progress") -> int:
    """The exit status of the real command line, on the run's own config file."""
    path = job.folder.parent / "configs" / f"{job.name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    job.config.save(path)
    resume = ["--resume"] if prepare(job) else []
    return run_process([sys.executable, str(script), "--config", str(path), *resume], job.folder, progress.show)


@dataclass
class _Progress:
    job: Job
    place: str
    best: str
    status: Status

    def show(self) -> None:
        lines = read_history(self.job.folder / "history.jsonl")
        scores = [line["eval_mean_iou"] for line in lines if line.get("eval_mean_iou") is not None]
        parts = [f"{self.place} {self.job.name}"]
        if lines:
            parts.append(f"step {lines[-1].get('step')} of {self.job.config.train.get('max_steps', '?')}")
        if scores:
            parts.append(f"validation {scores[-1]:.4f}")
        self.status.update(f"{', '.join(parts)}; best so far: {self.best}")


def _validation(job: Job) -> float:
    metrics: dict[str, Any] = json.loads((job.folder / "metrics.json").read_text())
    score = metrics.get("eval_mean_iou")
    return float("nan") if score is None else float(score)


def best_so_far(jobs: Sequence[Job]) -> str:
    """The finished arm's run with the best validation score."""
    scores = {job.name: _validation(job) for job in jobs if job.arm is not None and is_finished(job)}
    scores = {name: score for name, score in scores.items() if score == score}
    best = max(scores, key=scores.__getitem__, default=None)
    return "none yet" if best is None else f"{best} with {scores[best]:.4f}"


def last_words(job: Job) -> str:
    """The end of a failed run's log, and where it is."""
    path = job.folder / "log.txt"
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()] if path.exists() else []
    errors = [line for line in lines if line.startswith("error: ")]
    return f"{(errors or lines or ['it said nothing'])[-1].removeprefix('error: ')} (see {path})"


def num_processes() -> int:
    """How many processes `accelerate launch` or `torchrun` has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
