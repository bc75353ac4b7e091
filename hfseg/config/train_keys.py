"""What `train:` may hold, checked against the TrainingArguments that are installed. Imports no torch."""

import ast
import builtins
import difflib
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hfseg.errors import shown

# What `train:` may not set, because the run does or it would do nothing; and what to do instead.
RESERVED_TRAIN_KEYS = {
    "output_dir": "set `output_dir` at the top level",
    "overwrite_output_dir": "a run never overwrites another: set another `output_dir`, or delete the folder",
    "logging_dir": "set the variable TENSORBOARD_LOGGING_DIR",
    "seed": "set `seed` at the top level",
    "label_names": "leave it out, hfseg sets it",
    "remove_unused_columns": "leave it out, hfseg sets it",
    "do_train": "leave it out; `--eval-only` scores without training",
    "do_eval": "leave it out; to score at the end only, set `train.eval_strategy=no`, `train.save_strategy=no` and "
    "`train.load_best_model_at_end=false`",
    "do_predict": "leave it out, the test split is scored at the end",
    "resume_from_checkpoint": "use `--resume`",
    "warmup_ratio": "set `train.warmup_steps`, which below 1 is a share of all steps",
    "label_smoothing_factor": "set `loss.label_smoothing`",
    "prediction_loss_only": "leave it out, evaluation always counts",
    "bf16_full_eval": "leave it out, evaluation runs in the precision of the training",
    "fp16_full_eval": "leave it out, evaluation runs in the precision of the training",
    "neftune_noise_alpha": "leave it out, it is for language models",
    "use_liger_kernel": "leave it out, it is for language models",
    "liger_kernel_config": "leave it out, it is for language models",
    "use_cache": "leave it out, it is for language models",
    "hub_token": "log in with `hf auth login`; a token does not belong in a config",
    "hub_model_id": "set `hub.repo`",
    "hub_private_repo": "set `hub.private`",
    "hub_revision": "set `hub.revision`",
}
# What keys are called elsewhere, where the nearest name would be another key's.
OTHER_NAMES = {
    "batch_size": "train.per_device_train_batch_size",
    "train_batch_size": "train.per_device_train_batch_size",
    "eval_batch_size": "train.per_device_eval_batch_size",
    "epochs": "train.num_train_epochs",
    "num_epochs": "train.num_train_epochs",
    "max_epochs": "train.num_train_epochs",
    "steps": "train.max_steps",
    "max_iters": "train.max_steps",
    "lr": "train.learning_rate",
    "optimizer": "train.optim",
    "momentum": "train.optim_args",
    "scheduler": "train.lr_scheduler_type",
    "workers": "train.dataloader_num_workers",
    "num_workers": "train.dataloader_num_workers",
    "no_cuda": "train.use_cpu",
    "patience": "optim.early_stopping",
    "early_stopping_patience": "optim.early_stopping",
    "early_stopping": "optim.early_stopping",
    "ema": "optim.ema",
    "push_to_hub_model_id": "hub.repo",
}
# Defaults of `train:` where TrainingArguments' own would hide something or waste memory; a config may change them.
TRAIN_DEFAULTS: dict[str, Any] = {
    "batch_eval_metrics": True,  # counts are added batch by batch: memory does not grow with the data set
    "logging_nan_inf_filter": False,  # stock writes the running mean over a NaN loss
    "logging_steps": 50,
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 2,  # the best and the last
    "load_best_model_at_end": True,
    "restore_callback_states_from_checkpoint": True,  # early stopping goes on counting
    "metric_for_best_model": "mean_iou",
    "lr_scheduler_type": "polynomial",
}
# Values that would do something else than what they say here.
REFUSED_STRATEGIES = ("checkpoint", "all_checkpoints")
# Strict: a string that looks like a number would be checked as one and then passed on as a string.
TRAIN_TYPES = ConfigDict(arbitrary_types_allowed=True, strict=True, allow_inf_nan=False)
# Lower bounds that TrainingArguments itself does not check.
TRAIN_MINIMUM = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "weight_decay": 0,
    "dataloader_num_workers": 0,
    "dataloader_prefetch_factor": 1,
    "max_grad_norm": 0,
    "num_train_epochs": 0,
}


@cache
def train_types() -> dict[str, Any]:
    """The keys of the TrainingArguments that are installed, with their types.

    They are read from its source: to import it takes seconds, and a mistake in a config is to be said at once. Types
    of transformers' own, which are enumerations of words, are classes of text here.
    """
    (package,) = find_spec("transformers").submodule_search_locations  # type: ignore[union-attr, misc]
    tree = ast.parse((Path(package) / "training_args.py").read_text(encoding="utf-8"))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "TrainingArguments")
    types = {each.target.id: each.annotation for each in body if isinstance(each, ast.AnnAssign)}  # type: ignore[union-attr]
    words = {node.id for each in types.values() for node in ast.walk(each) if isinstance(node, ast.Name)}
    known = vars(builtins) | vars(typing)
    names = {word: known.get(word) or type(word, (str,), {}) for word in words}
    return {key: eval(ast.unparse(annotation), names) for key, annotation in types.items()}


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest right name, or at all of them if they are few; starts with a space if there is one."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" Did you mean `{close[0]}`?"
    return f" Known here: {', '.join(known)}." if len(known) < 20 else ""


def hint(word: str, section: str, known: Iterable[str]) -> str:
    """A hint at the key that people mean by an unknown one, or at the nearest; starts with a space if there is one.

    Args:
        word: the unknown key.
        section: where it stands, such as "train."; "" is the top level.
        known: the section's keys.
    """
    other = OTHER_NAMES.get(word)
    if other is None and not section and word in train_types().keys() - RESERVED_TRAIN_KEYS.keys():
        other = f"train.{word}"
    return nearest(word, known) if other is None else f" Did you mean `{other.removeprefix(section)}`?"


def without_nulls(train: Mapping[str, Any]) -> dict[str, Any]:
    """`train:` without keys that null takes back: those whose value cannot be None."""
    return {
        key: value
        for key, value in train.items()
        if value is not None or key not in train_types() or _finding(key, value) is None
    }


def train_problems(train: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with names and values of `train:`, a line for each."""
    for key, value in train.items():
        if key in RESERVED_TRAIN_KEYS:
            yield f"  train.{key}: may not be set here; {RESERVED_TRAIN_KEYS[key]}."
        elif key not in train_types():
            known = train_types().keys() - RESERVED_TRAIN_KEYS.keys()
            yield f"  train.{key}: not a key of transformers.TrainingArguments.{hint(str(key), 'train.', known)}"
        elif problem := _finding(key, value):
            yield f"  train.{key}: {problem}"


def _finding(key: str, value: Any) -> str | None:
    """What is wrong with a value."""
    try:
        checked = TypeAdapter(train_types()[key], config=TRAIN_TYPES).validate_python(value)
    except ValidationError as error:
        return f"{error.errors()[0]['msg']} (got {shown(value)})"
    if key == "hub_strategy" and value in REFUSED_STRATEGIES:
        return (
            f"{value!r} would send the optimizer, and `training_args.bin` with the token. Use `every_save` or `end`; "
            "to go on elsewhere, copy a checkpoint's folder."
        )
    if key in ("max_steps", "num_train_epochs") and checked == 0:
        return "0 trains nothing; `--eval-only` scores without training."
    if key in TRAIN_MINIMUM and checked is not None and checked < TRAIN_MINIMUM[key]:
        return f"must be at least {TRAIN_MINIMUM[key]} (got {shown(value)})"
    return None
