"""The folder of a run, before it starts: it must be free, or hold the very run that goes on or is scored again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfseg.checkpoints import checkpoints, last_whole_checkpoint
from hfseg.config import RunConfig
from hfseg.errors import UserError, WriteError
from hfseg.folder_lock import locked
from hfseg.labels import LabelSet
from hfseg.whole_files import remove_leftovers

PATIENCE = 6.0  # seconds; workers of a killed process hold its lock until they see that it is gone, within 5
EVAL_ONLY_KEYS = ("train.", "eval.boundary", "eval.calibration")  # may differ when a run is only scored again


@contextmanager
def writing_run(output_dir: Path) -> Iterator[None]:
    """Holds the folder of a run against a second process, and says how a run goes on that the disk has stopped.

    Raises:
        LockedError: another process is writing to it.
        WriteError: it cannot be written to.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"output_dir={output_dir} is a file; give a folder.")
    try:
        with locked(output_dir, "output_dir", patience=PATIENCE):
            for folder in (output_dir, output_dir / "model", output_dir / "figures"):
                remove_leftovers(folder)
            yield
    except WriteError as error:
        raise WriteError(f"{error} {next_step(output_dir)}") from error


def next_step(output_dir: Path) -> str:
    """How a run goes on whose files could not be written."""
    if (output_dir / "metrics.json").exists():
        return "Then score the run again with --eval-only."
    if checkpoints(output_dir):
        return "Then go on with --resume: the last checkpoint is whole."
    return "Then start again, or choose another output_dir."


def check_output_dir(config: RunConfig, resume: bool, eval_only: bool) -> str | None:
    """Keeps one run from overwriting another; returns the checkpoint to resume from, if that is wanted.

    Raises:
        UserError: the folder holds a run already, or nothing to resume or to score.
    """
    output_dir = config.output_dir
    if eval_only and config.model.init is None and not (output_dir / "model").is_dir():
        raise UserError(
            f"There is nothing to score: {output_dir}/model does not exist. Train first or set model.init."
        )
    if resume and (output_dir / "metrics.json").exists():
        raise UserError(f"{output_dir} holds a finished run: there is nothing to resume. --eval-only scores it again.")
    if resume:
        return str(last_whole_checkpoint(output_dir))
    if not eval_only and (checkpoints(output_dir) or (output_dir / "metrics.json").exists()):
        raise UserError(
            f"{output_dir} already holds a run. Continue it with --resume, score it with --eval-only, delete the "
            "folder, or give this run another `name` or `output_dir`."
        )
    return None


def check_same_run(config: RunConfig, eval_only: bool) -> None:
    """A run that is continued or scored again must be the one that was started.

    Raises:
        UserError: keys differ from the saved `run_config.yaml`; lists them.
    """
    saved = config.output_dir / "run_config.yaml"
    if not saved.exists():
        return
    before, now = (flatten(each.model_dump(mode="json")) for each in (RunConfig.load(saved), config))
    free = ("output_dir", "name", "data.root", "data.note", *(EVAL_ONLY_KEYS if eval_only else ()))
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    changed = [key for key in changed if not key.startswith(free)]
    if changed:
        lines = [f"  {key}: {before.get(key)!r} then, {now.get(key)!r} now" for key in changed]
        raise UserError("\n".join([f"{saved} differs from this config; restore it or start another run:", *lines]))


def check_same_classes(folder: Path, labels: LabelSet) -> None:
    """Raises UserError where the weights in a folder are those of other classes, or of another order of them."""
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        then, now = [saved[str(index)] for index in range(len(saved))], list(labels.names)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}/config.json is missing or torn ({error!r}): start another run.") from error
    if then != now:
        raise UserError(
            f"The weights in {folder} were trained for the classes {then}; the data has {now} now. Restore the class "
            "list, or start another run."
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
