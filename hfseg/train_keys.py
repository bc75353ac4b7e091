"""What `train:` may hold, checked against the TrainingArguments that are installed."""

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

# What `train:` may not set, because the run does.
RESERVED_TRAIN_KEYS = {
    "output_dir": "set `output_dir` at the top level",
    "seed": "set `seed` at the top level",
    "label_names": "hfseg sets it",
    "remove_unused_columns": "hfseg sets it",
    "do_train": "use --eval-only",
    "resume_from_checkpoint": "use --resume",
    "label_smoothing_factor": "set `loss.label_smoothing`",
    "prediction_loss_only": "evaluation always counts",
    "bf16_full_eval": "evaluation runs in the precision of the training",
    "fp16_full_eval": "evaluation runs in the precision of the training",
    "neftune_noise_alpha": "it is for language models",
    "use_liger_kernel": "it is for language models",
    "hub_token": "log in with `hf auth login`; a token does not belong in a config",
    "hub_model_id": "set `hub.repo`",
    "hub_private_repo": "set `hub.private`",
    "hub_revision": "set `hub.revision`",
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


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the nearest right name, or at all of them if they are few; starts with a space if there is one."""
    known = list(known)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f" Did you mean `{close[0]}`?"
    return f" Known here: {', '.join(known)}." if len(known) < 20 else ""


def train_problems(train: dict[str, Any]) -> list[str]:
    """Checks names and types of `train:` against the TrainingArguments that are installed."""
    from dataclasses import fields
    from typing import get_type_hints

    from transformers import TrainingArguments  # imports torch: here, and only for a tree that has this section

    hints = get_type_hints(TrainingArguments)
    known = {field.name: hints[field.name] for field in fields(TrainingArguments) if field.init}
    problems = []
    for key, value in train.items():
        if key in RESERVED_TRAIN_KEYS:
            problems.append(f"  train.{key}: may not be set here; {RESERVED_TRAIN_KEYS[key]}.")
        elif key not in known:
            problems.append(f"  train.{key}: not a key of transformers.TrainingArguments.{nearest(str(key), known)}")
        else:
            try:
                checked = TypeAdapter(known[key], config=TRAIN_TYPES).validate_python(value)
            except ValidationError as error:
                problems.append(f"  train.{key}: {error.errors()[0]['msg']} (got {value!r})")
            else:
                if key == "hub_strategy" and str(getattr(checked, "value", checked)) in REFUSED_STRATEGIES:
                    problems.append(
                        f"  train.{key}: {value!r} would send the optimizer, and `training_args.bin` with the token. "
                        "Use `every_save` or `end`; to go on elsewhere, copy a checkpoint's folder."
                    )
                elif key in ("max_steps", "num_train_epochs") and checked == 0:
                    problems.append(f"  train.{key}: 0 trains nothing; --eval-only scores without training.")
                elif key in TRAIN_MINIMUM and checked is not None and checked < TRAIN_MINIMUM[key]:
                    problems.append(f"  train.{key}: must be at least {TRAIN_MINIMUM[key]} (got {value!r})")
    return problems
