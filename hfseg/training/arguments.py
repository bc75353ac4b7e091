"""`train:` as TrainingArguments; those that would fail later or do nothing are refused before the training."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import fields
from importlib.util import find_spec

import torch
from accelerate.utils import DynamoBackend
from torch.optim.lr_scheduler import LambdaLR, LRScheduler
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.integrations.integration_utils import get_reporting_integration_callbacks
from transformers.trainer_utils import HubStrategy

from hfseg.config import TRAIN_DEFAULTS, RunConfig
from hfseg.data import check_shared_memory, num_cores
from hfseg.errors import UserError, shown
from hfseg.training.sharding import CONFIG, check_sharding


def default_workers() -> int:
    """2 to 8 processes to load data, by the cores that each of this machine's training processes has."""
    cores = num_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun and accelerate set it
    return min(max(cores - 1, 2), 8)


# Defaults of `train:` that depend on the machine.
# A GPU must not wait: a sample takes a worker 2 to 4 ms, so 2 to 8 workers, as the process has cores, feed several
# hundred a second. On a CPU, training itself takes every core and a sample is a hundredth of its step.
LOADING_DEFAULTS = {
    "dataloader_num_workers": default_workers() if torch.cuda.is_available() else 0,
    "dataloader_pin_memory": torch.cuda.is_available(),
}
LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")

# How transformers, accelerate and torch refuse a value, or say that a package is missing.
REFUSALS = (ValueError, TypeError, ImportError, KeyError, OSError, RuntimeError)


@contextmanager
def as_user_error(setting: str) -> Iterator[None]:
    """Around a call that only fails for what a setting says.

    Raises:
        UserError: it has failed; names the setting.
    """
    try:
        yield
    except UserError:
        raise
    except REFUSALS as error:
        raise UserError(f"{setting} is refused: {shown(error)}") from error


def training_arguments(config: RunConfig) -> TrainingArguments:
    """`train:` as it stands, over our defaults.

    Raises:
        UserError: TrainingArguments refuses the combination.
    """
    chosen = TRAIN_DEFAULTS | LOADING_DEFAULTS | config.train
    # Workers that stay from epoch to epoch; without workers it would be refused.
    chosen.setdefault("dataloader_persistent_workers", chosen["dataloader_num_workers"] > 0)
    fixed = {
        "output_dir": str(config.output_dir),
        "seed": config.seed,
        "label_names": ["labels"],
        "remove_unused_columns": False,  # the samples' columns are not the data set's
        "hub_model_id": config.hub.repo,
        "hub_private_repo": config.hub.private,
        "hub_revision": config.hub.revision,
    }
    with as_user_error("`train:` (transformers.TrainingArguments)"):
        return TrainingArguments(**(chosen | fixed))


def check_streaming(config: RunConfig, args: TrainingArguments) -> None:
    """Raises UserError for what a data set without a length cannot do."""
    if config.data.streaming and args.max_steps <= 0:
        raise UserError("data.streaming=true: a stream has no length, so train.max_steps must say how long to train.")
    if config.data.streaming and args.world_size > 1:
        raise UserError(
            f"data.streaming=true with {args.world_size} processes: an exact score needs to know which process has "
            "scored which image. Use one process, or data.streaming=false."
        )


def check_lora(config: RunConfig, args: TrainingArguments) -> None:
    """Raises UserError where `model.lora` lacks its package, would not be trained, or would be published unmerged."""
    if config.model.lora is None:
        return
    if find_spec("peft") is None:
        raise UserError("model.lora needs a further package (peft): pip install 'hfseg[peft]'.")
    if args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        raise UserError(
            "train.gradient_checkpointing_kwargs: with use_reentrant=true no gradient reaches the updates of "
            "model.lora. Leave it out."
        )
    if args.push_to_hub and args.hub_strategy != HubStrategy.END:
        raise UserError(
            f"train.hub_strategy={args.hub_strategy.value} sends checkpoints, in which the updates of model.lora are "
            "not merged. Set train.hub_strategy=end."
        )


def check_arguments(args: TrainingArguments, model: PreTrainedModel) -> None:
    """What the Trainer would stumble over, or pass over in silence.

    Raises:
        UserError: names the key of `train:`.
    """
    for key, level in (("log_level", args.log_level), ("log_level_replica", args.log_level_replica)):
        if level not in LOG_LEVELS:
            raise UserError(f"train.{key}={level!r} is none of {', '.join(LOG_LEVELS)}.")
    for callback in get_reporting(args):
        with as_user_error(f"train.report_to={args.report_to}"):
            callback()
    if args.gradient_checkpointing and not model.supports_gradient_checkpointing:
        raise UserError(
            f"train.gradient_checkpointing=true: {type(model).__name__} does not support it; leave it out and lower "
            "train.per_device_train_batch_size."
        )
    if args.fp16 and args.device.type == "cpu":
        raise UserError(
            "train.fp16=true on a CPU, where accelerate would train in fp32 and say nothing. Leave it out, or set "
            "train.bf16=true and train.use_cpu=true."
        )
    check_workers(args)
    check_optimizer(args, model)
    check_compilation(args)
    check_processes(args)


def check_workers(args: TrainingArguments) -> None:
    """Raises UserError for an option of workers without workers, which torch would refuse in the first step."""
    for key in ("dataloader_persistent_workers", "dataloader_multiprocessing_context"):
        if vars(args)[key] and args.dataloader_num_workers == 0:
            raise UserError(
                f"train.{key}={vars(args)[key]} is for workers, and there are none: set "
                f"train.dataloader_num_workers=2, or leave it out (train.{key}=null)."
            )


def check_optimizer(args: TrainingArguments, model: PreTrainedModel) -> None:
    """Raises UserError for an option that the optimizer does not look at: another value makes it no other."""
    name = f"train.optim={args.optim.value}"
    defaults = {field.name: field.default for field in fields(TrainingArguments) if field.name.startswith("adam_")}
    others = [(f"train.{key}={vars(args)[key]}", key, default) for key, default in defaults.items()]
    options = (args.optim_args or "").split(",")
    for number, option in enumerate(options if args.optim_args else ()):
        rest = ",".join(options[:number] + options[number + 1 :])
        others.append((f"train.optim_args={shown(args.optim_args)}: {shown(option)}", "optim_args", rest or None))
    with as_user_error(name):
        used = Trainer.get_optimizer_cls_and_kwargs(args, model)
        for setting, key, value in others:
            changed = copy(args)
            vars(changed)[key] = value
            if vars(args)[key] != value and Trainer.get_optimizer_cls_and_kwargs(changed, model) == used:
                raise UserError(
                    f"{setting} does nothing for {name}: leave it out (train.{key}=null), or choose another optimizer."
                )


def check_worker_memory(config: RunConfig, args: TrainingArguments) -> None:
    """Raises UserError where the processes that load data could not hand over their batches."""
    # at least: bytes in training, float32 in evaluation, and a byte for the label
    train = args.per_device_train_batch_size * config.transforms.size**2 * (3 + 1)
    evaluation = args.per_device_eval_batch_size * config.eval_size**2 * (3 * 4 + 1)
    ahead = args.dataloader_num_workers * (args.dataloader_prefetch_factor or 2)  # torch's default
    check_shared_memory(args.dataloader_num_workers, ahead * max(train, evaluation))


def get_reporting(args: TrainingArguments) -> list[type]:
    """The classes that `train.report_to` names; raises UserError for a name that transformers does not know."""
    with as_user_error(f"train.report_to={args.report_to}"):
        return get_reporting_integration_callbacks(args.report_to)


def check_compilation(args: TrainingArguments) -> None:
    """Raises UserError for a compiler or a mode of it that torch does not know; compiles nothing."""
    if not args.torch_compile:
        return
    name, mode = args.torch_compile_backend, args.torch_compile_mode
    with as_user_error(f"train.torch_compile_backend={name}, train.torch_compile_mode={mode}"):
        torch.compile(torch.nn.Identity(), backend=DynamoBackend(name.upper()).value.lower(), mode=mode)


def check_processes(args: TrainingArguments) -> None:
    """Raises UserError where processes would not work together, or share the model out in an unknown way."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun and accelerate set it
    if launched != args.world_size:
        raise UserError(
            f"{launched} processes are started, but transformers makes each a training of its own. On CPUs set "
            "train.use_cpu=true; on GPUs start one process for each that is visible."
        )
    # accelerate's MULTI_CPU starts one process a machine and leaves it to MPI to number them
    is_one_of_several = {"ACCELERATE_MIXED_PRECISION", "MASTER_ADDR"} <= os.environ.keys()
    if is_one_of_several and "WORLD_SIZE" not in os.environ and args.world_size == 1:
        raise UserError(
            "accelerate has started this process for several without saying which of them it is (MULTI_CPU without "
            "MPI): each would train alone. Use distributed_type: MULTI_GPU with train.use_cpu=true, or torchrun."
        )
    if args.deepspeed or os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        raise UserError(
            "train.deepspeed, or an accelerate config with DeepSpeed, which hfseg does not support: start `accelerate "
            f"launch --multi_gpu`, or for a model that is too large for one GPU --config_file {CONFIG}."
        )
    check_sharding(args)


def check_schedule(scheduler: LRScheduler, num_steps: int) -> None:
    """Asks a schedule for its last steps now: it must not fail there, after the warm-up or days of training."""
    if isinstance(scheduler, LambdaLR):
        for rate in scheduler.lr_lambdas:
            rate(num_steps // 2)
            rate(num_steps)
