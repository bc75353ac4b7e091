"""Running what is left of a study, one run after another."""

import hashlib
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

from hfseg.errors import UserError
from hfseg.files import LockedError, locked, write_text, writing
from hfseg.metrics import unscored
from hfseg.publishing import missing_pages
from hfseg.run import run
from hfseg.runs import PATIENCE, check_same_run, read_history
from hfseg.study.plan import Job
from hfseg.study.process import run_process
from hfseg.training import checkpoints, damage

RUNNING = "running.lock"  # held by the study; the run that it has started holds one of its own
INIT = "init.sha256"  # in a run's folder: of the weights that it began from


@dataclass
class Outcome:
    """What did not finish of the runs that were asked for: run -> why."""

    reasons: dict[str, str] = field(default_factory=dict)


def is_finished(job: Job) -> bool:
    """Whether it has the scores of both splits, from which the study answers."""
    scores = job.folder / "metrics.json"
    return scores.exists() and not unscored(json.loads(scores.read_text(encoding="utf-8")))


def is_whole(job: Job) -> bool:
    """Whether it has all that a run leaves: a kill after the scores has left out pictures, card or page."""
    return is_finished(job) and not missing_pages(job.folder)


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
            problems += other_weights(job)
    if problems:
        raise UserError("\n".join([*problems, "Results of one study come from one config: see the keys above."]))


def other_weights(job: Job) -> list[str]:
    """Says so where a run began from a pretraining run's weights that have been replaced since."""
    weights = _weights(job)
    mark = job.folder / INIT
    if weights is None or not weights.exists() or not mark.exists():
        return []
    if mark.read_text(encoding="utf-8") == _checksum(weights):
        return []
    return [
        f"{job.folder} began from other weights than those in {weights.parent} now: delete the folder to train it "
        "anew, or restore the weights."
    ]


def _weights(job: Job) -> Path | None:
    return job.folder.parent / job.needs / "model" / "model.safetensors" if job.needs else None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_jobs(jobs: Sequence[Job], chosen: Sequence[Job], script: Path, console: Console, outcome: Outcome) -> None:
    """Runs what is not whole, each in a process of its own; a failure does not stop the rest.

    Args:
        jobs: all of the study.
        chosen: those to run.
        script: the command line of hfseg, `scripts/run_seg.py`.
        console: for progress.
        outcome: gets what does not finish.
    """
    waiting = [job for job in chosen if not is_whole(job)]
    if len(waiting) < len(chosen):
        say(console, f"{len(chosen) - len(waiting)} of {len(chosen)} runs are finished already.")
    for number, job in enumerate(waiting, 1):
        place, began = f"{number}/{len(waiting)} {job.name}", time.monotonic()
        with console.status(place) as status:
            progress = _Progress(job, place, best_so_far(jobs), status)
            problem = _attempt(job, jobs, script, progress, outcome)
        minutes = f"{(time.monotonic() - began) / 60:.1f} minutes"
        if problem is None:
            say(console, f"{place}: validation {_validation(job):.4f}, {minutes}; best so far {best_so_far(jobs)}")
        else:
            say(console, f"{place}: not finished, {minutes}; {problem}")


def say(console: Console, text: str) -> None:
    """A line as it is, also where it is longer than the terminal."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _attempt(job: Job, jobs: Sequence[Job], script: Path, progress: "_Progress", outcome: Outcome) -> str | None:
    """Runs one job; what went wrong, which goes into `outcome` too, or None."""
    missing = [each.name for each in jobs if each.name == job.needs and not is_finished(each)]
    if missing:
        outcome.reasons[job.name] = f"it needs {missing[0]}, which is not finished"
        return outcome.reasons[job.name]
    try:
        code = _run_one(job, script, progress)
    except LockedError:
        outcome.reasons[job.name] = "another process works on it"
        return outcome.reasons[job.name]
    if code == 0 and is_finished(job):
        return None
    outcome.reasons[job.name] = f"exit status {code}: {last_words(job, code)}"
    return outcome.reasons[job.name]


def run_here(job: Job) -> None:
    """The run in this very process, which is one of several under `accelerate launch`."""
    run(job.config, resume=prepare(job))


def prepare(job: Job) -> bool:
    """Whether there is something to go on from, scores or a whole checkpoint; if not, what is there is put away."""
    if is_finished(job) or any(damage(folder) is None for folder in checkpoints(job.folder)):
        return True
    for folder in checkpoints(job.folder):
        shutil.rmtree(folder)
    weights = _weights(job)
    if weights is not None and weights.exists():
        with writing(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
        write_text(job.folder / INIT, _checksum(weights))
    return False


def _run_one(job: Job, script: Path, progress: "_Progress") -> int:
    """The exit status of the real command line, on the run's own config file."""
    with locked(job.folder, "output_dir", RUNNING, PATIENCE):
        if is_whole(job):
            return 0  # by another process, a moment ago
        path = job.folder.parent / "configs" / f"{job.name}.yaml"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        job.config.save(path)
        with locked(job.folder, "output_dir", patience=PATIENCE):  # the run's own, which a killed study's may hold
            resume = ["--resume"] if prepare(job) else []
        command = [sys.executable, str(script), "--config", str(path), *resume]
        return run_process(command, job.folder / "log.txt", progress.show)


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
    metrics: dict[str, Any] = json.loads((job.folder / "metrics.json").read_text(encoding="utf-8"))
    score = metrics.get("eval_mean_iou")
    return float("nan") if score is None else float(score)


def best_so_far(jobs: Sequence[Job]) -> str:
    """The finished arm's run with the best validation score."""
    scores = {job.name: _validation(job) for job in jobs if job.arm is not None and is_finished(job)}
    scores = {name: score for name, score in scores.items() if score == score}
    best = max(scores, key=scores.__getitem__, default=None)
    return "none yet" if best is None else f"{best} with {scores[best]:.4f}"


def last_words(job: Job, code: int) -> str:
    """The end of a failed run's log, and where it is. The log has earlier attempts too, with errors of their own."""
    path = job.folder / "log.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if code == 2 and line.startswith("error: ")]
    return f"{(errors or lines or ['it said nothing'])[-1].removeprefix('error: ')} (see {path})"


def num_processes() -> int:
    """How many processes `accelerate launch` or `torchrun` has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
