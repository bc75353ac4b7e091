"""The folder of a run, before it starts: it must be free, or hold the very run that goes on or is scored again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hfseg.config import RunConfig
from hfseg.errors import UserError, WriteError, shown
from hfseg.files import LOCK, locked, remove_leftovers
from hfseg.labels import LabelSet
from hfseg.training import checkpoints, last_whole_checkpoint

# Keys, or sections, in which a run that goes on may differ from the one that was started: with any value of these the
# same steps are made and the same scores come out. Every other key is part of what the run is.
FREE_KEYS = (
    # names and places
    "name", "output_dir", "data.root", "data.note",
    # what reaches the Hub, and when
    "hub", "train.push_to_hub", "train.hub_strategy", "train.hub_always_push",
    # how samples come: each is augmented by its name and the epoch, whoever does it and wherever its pixels are kept
    "data.cache", "data.max_pixels",
    "train.dataloader_num_workers", "train.dataloader_pin_memory", "train.dataloader_persistent_workers",
    "train.dataloader_prefetch_factor", "train.dataloader_multiprocessing_context",
    # memory and time: evaluation counts per image, whatever its batch; losses and confidences are equal to rounding
    "train.per_device_eval_batch_size", "train.eval_accumulation_steps", "train.torch_empty_cache_steps",
    "train.gradient_checkpointing", "train.activation_checkpointing", "train.ddp_timeout", "train.skip_memory_metrics",
    # what is logged and kept on the way; the best and the last checkpoint are always kept
    "train.logging_strategy", "train.logging_steps", "train.logging_first_step", "train.disable_tqdm",
    "train.log_level", "train.log_level_replica", "train.log_on_each_node", "train.report_to", "train.run_name",
    "train.project", "train.trackio_space_id", "train.trackio_bucket_id", "train.trackio_static_space_id",
    "train.save_total_limit", "train.save_on_each_node",
)  # fmt: skip
# When a run is only scored again, also those that say how its weights came about, and what is scored besides.
FREE_WHEN_SCORED = (
    *FREE_KEYS, "seed", "train", "loss", "optim", "transforms", "model.init", "model.freeze", "model.unfreeze_at",
    "model.lora", "eval.boundary", "eval.calibration",
)  # fmt: skip

PATIENCE = 6.0  # seconds; workers of a killed process hold its lock until they see that it is gone, within 5


@contextmanager
def writing_run(output_dir: Path) -> Iterator[None]:
    """Holds the folder of a run against a second process, and says how a run goes on that the disk has stopped.

    Raises:
        LockedError: another process is writing to it.
        WriteError: it cannot be written to.
    """
    if output_dir.exists() and not output_dir.is_dir():
        raise UserError(f"output_dir={output_dir} is a file; give a folder.")
    is_new = not output_dir.exists()
    try:
        with locked(output_dir, "output_dir", patience=PATIENCE):
            for folder in (output_dir, output_dir / "model", output_dir / "figures"):
                remove_leftovers(folder)
            yield
    except WriteError as error:
        raise WriteError(f"{error} {next_step(output_dir)}") from error
    finally:
        if is_new and [path.name for path in output_dir.glob("*")] == [LOCK]:  # refused before anything was written
            with suppress(OSError):
                (output_dir / LOCK).unlink()
                output_dir.rmdir()


def next_step(output_dir: Path) -> str:
    """How a run goes on whose files could not be written."""
    if (output_dir / "metrics.json").exists():
        return "Then score the run again with --eval-only."
    if checkpoints(output_dir):
        return "Then go on with --resume: the last checkpoint is whole."
    return "Then start again."


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
    is_finished = (output_dir / "metrics.json").exists()
    if resume and is_finished:
        raise UserError(f"{output_dir} holds a finished run: there is nothing to resume. --eval-only scores it again.")
    if resume:
        return str(last_whole_checkpoint(output_dir))
    if not eval_only and (checkpoints(output_dir) or is_finished):
        way_on = "Score it again with --eval-only" if is_finished else "Continue it with --resume"
        raise UserError(
            f"{output_dir} already holds a run. {way_on}, delete the folder, or give this run another `name` or "
            "`output_dir`."
        )
    return None


def check_same_run(config: RunConfig, eval_only: bool) -> str | None:
    """A run that is continued or scored again must be the one that was started.

    Returns:
        A sentence with the keys that differ and may; None where there is none, or no run.

    Raises:
        UserError: keys that change the results differ from the saved `run_config.yaml`, or it is damaged.
    """
    saved = config.output_dir / "run_config.yaml"
    if not saved.exists():
        return None
    try:
        before, now = _keys(RunConfig.load(saved)), _keys(config)
    except UserError as error:
        raise UserError(f"{error}\nRestore {saved}, or start another run under another name.") from error
    changed = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    may_differ = FREE_WHEN_SCORED if eval_only else FREE_KEYS
    free = [key for key in changed if any(key == each or key.startswith(f"{each}.") for each in may_differ)]
    values = {key: (shown(before.get(key)), shown(now.get(key))) for key in changed}
    lines = [f"  {key}: {then} then, {today} now" for key, (then, today) in values.items() if key not in free]
    if lines:
        raise UserError("\n".join([f"{saved} differs from this config; restore it or start another run:", *lines]))
    changes = ", ".join(f"{key} {today} (was {then})" for key, (then, today) in values.items())
    if eval_only:
        return f"Scored with other settings than it was made with: {changes}." if changes else None
    return f"Goes on with other settings, none of which changes a result: {changes}." if changes else None


def _keys(config: RunConfig) -> dict[str, Any]:
    """The tree with whole keys, `eval.size` as it is used."""
    keys = flatten(config.model_dump(mode="json"))
    return keys if config.eval.is_native or config.model.type == "auto" else keys | {"eval.size": config.eval_size}


def check_same_classes(folder: Path, labels: LabelSet) -> None:
    """Raises UserError where the weights in a folder are those of other classes, or of another order of them."""
    try:
        saved = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        then, now = [saved[str(index)] for index in range(len(saved))], list(labels.names)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{folder}/config.json is missing or torn ({shown(error)}): start another run.") from error
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
