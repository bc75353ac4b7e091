"""run_study(config): run what is left, then write the answer. Read it top to bottom."""

import os
from collections.abc import Sequence

from filelock import FileLock
from rich.console import Console

from hfseg.config import RunConfig
from hfseg.doctor import check
from hfseg.errors import UserError
from hfseg.files import remove_leftovers, writing
from hfseg.study.plan import Job, choose, plan, undeclared
from hfseg.study.report import write_study
from hfseg.study.running import (
    check_unchanged,
    is_finished,
    is_whole,
    num_processes,
    other_weights,
    run_here,
    run_jobs,
    say,
)
from hfseg.study.tables import headline


def run_study(config: RunConfig, arm: str | None = None) -> None:
    """Runs a study, or one of its arms, and writes `study.md`, `study.json` and `report.html` from what is there.

    Finished runs are never repeated, unfinished ones go on from their last checkpoint. Each run is a process of its
    own, so that one that fails does not stop the rest; an interruption ends with the answer so far. Under
    `accelerate launch` the processes make one run together, which `arm` must name.

    Args:
        config: with a `study` section.
        arm: an arm's name, `<arm>-seed<seed>` or `pretrain.<name>`; None for everything.

    Raises:
        UserError: the config of a run is wrong or has changed, a pretraining run is missing, or runs have failed; the
            answer has been written by then.
    """
    assert config.study is not None
    jobs = plan(config)
    chosen = choose(jobs, arm)
    check_unchanged(jobs)
    check_pretrained(jobs, chosen)
    console = Console(stderr=True)
    warnings = undeclared(jobs, config.study.varies)
    is_main = os.environ.get("RANK", "0") == "0"
    for warning in warnings if is_main else []:
        say(console, f"warning: {warning}")
    failed: dict[str, str] = {}
    try:
        if num_processes() > 1:
            run_together(chosen)
        else:
            with writing(config.output_dir):
                config.output_dir.mkdir(parents=True, exist_ok=True)
            run_jobs(jobs, chosen, console, failed)
    except KeyboardInterrupt:
        if num_processes() == 1:
            write_answer(config, jobs, warnings, failed, console)
        raise
    if is_main:
        write_answer(config, jobs, warnings, failed, console)
    if failed:
        lines = [f"  {name}: {reason}" for name, reason in failed.items()]
        raise UserError("\n".join([f"{len(lines)} run(s) did not finish; start the study again:", *lines]))


def run_together(chosen: Sequence[Job]) -> None:
    """Makes the one run that is left in this process, as the others of `accelerate launch` do.

    Raises:
        UserError: more than one run is left.
    """
    waiting = [job for job in chosen if not is_whole(job)]
    if len(waiting) > 1:
        names = ", ".join(job.name for job in waiting)
        raise UserError(f"{num_processes()} processes make one run together: name it by --arm, one of {names}.")
    for job in waiting:
        run_here(job)


def write_answer(
    config: RunConfig, jobs: Sequence[Job], warnings: Sequence[str], failed: dict[str, str], console: Console
) -> None:
    """Writes the answer from what there is, and prints it."""
    remade = [problem for job in jobs for problem in other_weights(job)]  # a pretraining that was made anew just now
    with FileLock(config.output_dir / ".report.lock"):  # jobs of a scheduler's array may end at the same time
        remove_leftovers(config.output_dir)
        study = write_study(config, jobs, [*warnings, *remade], failed)
    for line in (headline(study), *(f"  {sentence}" for sentence in study["sentences"])):
        say(console, line)
    say(console, f"{config.output_dir}: study.md, study.json, report.html")


def check_pretrained(jobs: Sequence[Job], chosen: Sequence[Job]) -> None:
    """Raises UserError where a run needs a pretraining run that is neither finished nor to be made now."""
    names, finished = {job.name for job in chosen}, {job.name for job in jobs if is_finished(job)}
    missing = {job.needs for job in chosen if job.needs and job.name not in finished} - names - finished
    if missing:
        run_first = " and ".join(f"--arm pretrain.{name.removeprefix('pretrain-')}" for name in sorted(missing))
        raise UserError(f"{', '.join(sorted(missing))} is not finished, and the runs asked for need it: {run_first}.")


def check_study(config: RunConfig) -> None:
    """`--check`: looks for mistakes in all of the data that a study uses.

    Raises:
        UserError: some of it has errors.
    """
    data_sets: dict[str, Job] = {}
    for job in plan(config):
        data_sets.setdefault(job.config.data.model_dump_json(), job)
    problems = []
    for job in data_sets.values():
        try:
            check(job.config).raise_errors()
        except UserError as error:
            problems.append(f"{job.name}: {error}")
    if problems:
        raise UserError("\n".join(problems))
