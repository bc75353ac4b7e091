"""What happens at the events of a training."""

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from transformers import EarlyStoppingCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from hfseg.config import ModelConfig
from hfseg.errors import UserError
from hfseg.files import write_text, writing
from hfseg.models import Frozen, freeze_encoder


class Training(Protocol):
    """What `TrainingStateCallback` tells of."""

    def begin_training(self) -> None: ...
    def begin_epoch(self) -> None: ...
    def weights_changed(self) -> None: ...
    def end_training(self) -> None: ...


class TrainingStateCallback(TrainerCallback):
    """Calls the trainer's own methods at the events that `Trainer` has for callbacks only.

    A training of which nothing is left stops at once.
    """

    def __init__(self, trainer: Training) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.begin_training()
        if state.global_step >= state.max_steps:
            control.should_training_stop = True

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.begin_epoch()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.weights_changed()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.trainer.end_training()


def best_metric_key(args: TrainingArguments) -> str:
    """What evaluations call `metric_for_best_model`."""
    return f"eval_{str(args.metric_for_best_model).removeprefix('eval_')}"


def best_metric_is_undefined(args: TrainingArguments, metrics: Mapping[str, float | None]) -> bool:
    """Whether an evaluation has no number for `metric_for_best_model`: it says None or NaN."""
    value = metrics.get(best_metric_key(args), 0.0)
    return value is None or math.isnan(value)


class EarlyStopping(EarlyStoppingCallback):
    """Stock's, which after a resume from the checkpoint at which it stopped would train on.

    An evaluation whose metric is undefined does not count, neither for nor against, nor do those of an earlier
    training, such as the trial before.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        super().on_train_begin(args, state, control, **kwargs)
        if state.global_step == 0:
            self.early_stopping_patience_counter = 0
        if self.early_stopping_patience_counter >= self.early_stopping_patience:
            control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        **kwargs: Any,
    ) -> None:
        if not best_metric_is_undefined(args, metrics):
            super().on_evaluate(args, state, control, metrics, **kwargs)


def early_stopping(patience: int | None, args: TrainingArguments) -> list[TrainerCallback]:
    """The callback for `optim.early_stopping`, if it is wanted.

    Raises:
        UserError: there is nothing to stop by.
    """
    if patience is None:
        return []
    if args.eval_strategy == "no" or not args.load_best_model_at_end:
        raise UserError(
            f"optim.early_stopping={patience} needs evaluations and the best weights at the end: leave "
            "train.eval_strategy and train.load_best_model_at_end at their defaults."
        )
    return [EarlyStopping(patience)]


class ScheduledUnfreezing(TrainerCallback):
    """Freezes the encoder, or its first stages, for the first so many optimizer steps.

    It does so when the optimizer and DistributedDataParallel have taken all parameters in, both of which leave alone
    what has no gradient: from the step on, the parameters learn at the rates and decays of their groups, where the
    schedule is then. There is no state to save: a resumed training is on the same side of the step.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self.frozen: Frozen | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        step = self.config.unfreeze_at or 0
        if step >= state.max_steps:
            raise UserError(
                f"model.unfreeze_at={step}: the training has {state.max_steps} steps. Give a smaller number, or leave "
                "it out to keep the encoder frozen."
            )
        finds_unused = args.ddp_find_unused_parameters is not False and not args.ddp_static_graph
        if args.world_size > 1 and (args.gradient_checkpointing or not finds_unused):
            raise UserError(
                f"model.unfreeze_at={step} with {args.world_size} processes: DistributedDataParallel must look for "
                "the parameters that have no gradient yet. Leave train.ddp_find_unused_parameters, "
                "train.ddp_static_graph and train.gradient_checkpointing at their defaults."
            )
        if self.frozen is not None:  # the training begins again, with a smaller batch
            self.frozen.release()
            self.frozen = None
        if state.global_step < step:
            self.frozen = freeze_encoder(kwargs["model"], self.config.num_frozen_stages)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.frozen is not None and state.global_step >= (self.config.unfreeze_at or 0):
            self.frozen.release()
            self.frozen = None


class HistoryCallback(TrainerCallback):
    """Writes every log of the training as a line of JSON; a resumed run first goes back to those of its checkpoint.

    Evaluations after the training, of the best weights, are results and not history.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_training = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.is_training = True
        if not state.is_world_process_zero:
            return
        # Not the file's lines up to this step: those of the end of a training have the last checkpoint's step too.
        write_text(self.path, "".join(_as_line(logs, logs["step"]) for logs in state.log_history))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if self.is_training and state.is_world_process_zero and logs:
            # "a" would begin a new file where the folder has been removed and a checkpoint has made it again
            with writing(self.path), self.path.open("r+", encoding="utf-8") as file:
                file.seek(0, os.SEEK_END)
                file.write(_as_line(logs, state.global_step))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.is_training = False


def _as_line(logs: dict[str, Any], step: int) -> str:
    # JSON has neither NaN nor infinity
    finite = {key: None if _is_not_finite(value) else value for key, value in logs.items()}
    return json.dumps(finite | {"step": step}, allow_nan=False, ensure_ascii=False) + "\n"


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
