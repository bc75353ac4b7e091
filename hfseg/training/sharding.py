"""FSDP2: weights of which every process holds a part while they are trained, and the whole of them."""

import os
from itertools import chain

import torch
from torch import nn
from torch.distributed import broadcast
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from hfseg.errors import UserError

CONFIG = "configs/accelerate/fsdp2.yaml"
# What `accelerate launch` makes of the keys of its config file that hfseg depends on, and what it has to be.
REQUIRED = {
    "FSDP_VERSION": ("fsdp_version", "2"),
    "FSDP_STATE_DICT_TYPE": ("fsdp_state_dict_type", "SHARDED_STATE_DICT"),
    "FSDP_CPU_RAM_EFFICIENT_LOADING": ("fsdp_cpu_ram_efficient_loading", "false"),
    "FSDP_OFFLOAD_PARAMS": ("fsdp_offload_params", "false"),
}


def check_sharding(args: TrainingArguments) -> None:
    """Raises UserError for FSDP as hfseg does not know it; passes where there is none."""
    if args.fsdp:
        raise UserError(f"train.fsdp is not for hfseg: start `accelerate launch --config_file {CONFIG}` without it.")
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return
    for variable, (key, value) in REQUIRED.items():
        found = os.environ.get(variable, "not set")
        if found.lower() != value.lower():
            raise UserError(f"FSDP with {key}: {found}, where hfseg needs {value}. {CONFIG} is a config that works.")
    if args.device.type == "cpu":
        raise UserError(
            "FSDP is for GPUs: on CPUs accelerate passes over it. Start torchrun, or accelerate without it."
        )
    if args.auto_find_batch_size:
        raise UserError("train.auto_find_batch_size=true does not work with FSDP: give per_device_train_batch_size.")


@torch.no_grad()
def gather_weights(sharded: nn.Module, whole: nn.Module) -> None:
    """Copies the weights of all processes into an unsharded copy of the model. All processes have to call it.

    Buffers, such as BatchNorm's statistics, are not sharded: those of the first process are taken.
    """
    for module in sharded.modules():
        if isinstance(module, FSDPModule):
            module.reshard()  # a forward pass may have left gathered parameters that are older than the parts
    parameters = zip(whole.parameters(), sharded.parameters(), strict=True)
    buffers = zip(whole.buffers(), sharded.buffers(), strict=True)
    for mine, other in chain(parameters, buffers):
        mine.copy_(other.full_tensor() if isinstance(other, DTensor) else other)
    for buffer in whole.buffers():
        broadcast(buffer, src=0)
