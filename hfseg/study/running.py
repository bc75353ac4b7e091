"""Running what is left of a study, one run after another."""

import hashlib
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from hfseg.errors import UserError
from hfseg.files import LockedError, locked, write_text, writing
from hfseg.metrics import unscored
from hfseg.publishing import missing_pages
from hfseg.run import run
from hfseg.runs import PATIENCE, check_same_run, read_history
from hfseg.study.plan import Job
from hfseg.study.process import run_process
from hfseg.training import checkpoints, find_damage

RUNNING = "running.lock"  # held by the study; the run that it has started holds one of its own
INIT = "init.sha256"  # in a run's folder: of the weights that it began from


def is_finished(job: Job) -> bool:
    """Whether it has the scores of both splits, from which the study answers."""
    metrics = _metrics(job)
    return bool(metrics) and not unscored(metrics)


def is_whole(job: Job) -> bool:
    """Whether it has all that a run leaves: a kill after the scores has left out pictures, card or page."""
    return is_finished(job) and not missing_pages(job.folder)


def _metrics(job: Job) -> dict[str, Any]:
    path = job.folder / "metrics.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


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
    weights, recorded = _weights(job), job.folder / INIT
    if weights is None or not recorded.exists() or recorded.read_text(encoding="utf-8") == _checksum(weights):
        return []
    return [
        f"{job.folder} began from other weights than those in {weights.parent} now: delete the folder to train it "
        "anew, or restore the weights."
    ]


def _weights(job: Job) -> Path | None:
    """The pretrained weights that a run begins from, if they are there."""
    path = job.folder.parent / job.needs / "model" / "model.safetensors" if job.needs else None
    return path if path is not None and path.exists() else None


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run_jobs(jobs: Sequence[Job], chosen: Sequence[Job], console: Console, failed: dict[str, str]) -> None:
    """Runs what is not whole, each in a process of its own; a failure does not stop the rest.

    Args:
        jobs: all of the study.
        chosen: those to run.
        console: for progress.
        failed: gets the names of the runs that do not finish, with the reason.
    """
    waiting = [job for job in chosen if not is_whole(job)]
    if len(waiting) < len(chosen):
        say(console, f"{len(chosen) - len(waiting)} of {len(chosen)} runs are finished already.")
    for number, job in enumerate(waiting, 1):
        place, began = f"{number}/{len(waiting)} {job.name}", time.monotonic()
        progress = partial(_progress, job, place, best_so_far(jobs))
        with Live(get_renderable=progress, console=console, refresh_per_second=1, transient=True):
            reason = _attempt(job, jobs)
        minutes = f"{(time.monotonic() - began) / 60:.1f} minutes"
        if reason is None:
            say(console, f"{place}: validation {_validation(job):.4f}, {minutes}; best so far {best_so_far(jobs)}")
        else:
            failed[job.name] = reason
            say(console, f"{place}: not finished, {minutes}; {reason}")


def say(console: Console, text: str) -> None:
    """A line as it is, also where it is longer than the terminal."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _progress(job: Job, place: str, best: str) -> Text:
    lines = read_history(job.folder / "history.jsonl")
    scores = [line["eval_mean_iou"] for line in lines if line.get("eval_mean_iou") is not None]
    parts = [place]
    if lines:
        parts.append(f"step {lines[-1].get('step')} of {job.config.train.get('max_steps', '?')}")
    if scores:
        parts.append(f"validation {scores[-1]:.4f}")
    return Text(f"{', '.join(parts)}; best so far: {best}")


def _attempt(job: Job, jobs: Sequence[Job]) -> str | None:
    """Runs one job; why it did not finish, or None."""
    if any(each.name == job.needs and not is_finished(each) for each in jobs):
        return f"it needs {job.needs}, which is not finished"
    try:
        code = _run_one(job)
    except LockedError:
        return "another process works on it"
    return None if code == 0 and is_finished(job) else f"exit status {code}: {last_words(job, code)}"


def run_here(job: Job) -> None:
    """The run in this very process, which is one of several under `accelerate launch`."""
    run(job.config, resume=prepare(job))


def prepare(job: Job) -> bool:
    """Whether there is something to go on from, scores or a whole checkpoint; if not, removes torn checkpoints."""
    folders = checkpoints(job.folder)
    if is_finished(job) or any(find_damage(folder) is None for folder in folders):
        return True
    for folder in folders:
        shutil.rmtree(folder)
    weights = _weights(job)
    if weights is not None:
        with writing(job.folder):
            job.folder.mkdir(parents=True, exist_ok=True)
        write_text(job.folder / INIT, _checksum(weights))
    return False


def _run_one(job: Job) -> int:
    """The exit status of `hfseg train`, on the run's own config file."""
    with locked(job.folder, "output_dir", RUNNING, PATIENCE):
        if is_whole(job):
            return 0  # by another process, a moment ago
        path = job.folder.parent / "configs" / f"{job.name}.yaml"
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        job.config.save(path)
        with locked(job.folder, "output_dir", patience=PATIENCE):  # the run's own, which a killed study's may hold
            resume = ["--resume"] if prepare(job) else []
        # modules are looked for in the working directory where they are here, too
        safe_path = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
        command = [sys.executable, *safe_path, "-m", "hfseg", "train", str(path), *resume]
        return run_process(command, job.folder / "log.txt")


def _validation(job: Job) -> float:
    score = _metrics(job).get("eval_mean_iou")
    return math.nan if score is None else float(score)


def best_so_far(jobs: Sequence[Job]) -> str:
    """The finished arm's run with the best validation score."""
    scores = {job.name: _validation(job) for job in jobs if job.arm is not None and is_finished(job)}
    scores = {name: score for name, score in scores.items() if not math.isnan(score)}
    best = max(scores, key=scores.__getitem__, default=None)
    return "none yet" if best is None else f"{best} with {scores[best]:.4f}"


def last_words(job: Job, code: int) -> str:
    """The end of a failed run's log, and where it is. The log has earlier attempts too, with errors of their own."""
    path = job.folder / "log.txt"
    text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if code == 2 and line.startswith("error: ")]
    return f"{(errors or lines or ['it printed nothing'])[-1].removeprefix('error: ')} (see {path})"


def num_processes() -> int:
    """How many processes `accelerate launch` or `torchrun` has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))
