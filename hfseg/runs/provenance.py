"""What made a run: command, data, versions, hardware. Goes into the run's files, the card and the model's config."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, FiniteFloat

from hfseg.config import RunConfig
from hfseg.data import num_cores
from hfseg.runs.private_paths import public_command

PACKAGES = ("hfseg", "torch", "torchvision", "transformers", "accelerate", "datasets", "numpy")


class Provenance(BaseModel):
    """provenance.json: what a reader needs to judge or repeat a run; paths of this machine appear as `<root>`."""

    command: str
    data: str
    hardware: str
    num_parameters: int
    versions: dict[str, str]
    train_seconds: FiniteFloat | None = None  # evaluations included, interruptions not
    resumed_from: str | None = None  # the last time
    steps: int | None = None  # None where nothing was trained
    best_step: int | None = None
    num_trained: int | None = None  # parameters that are not frozen
    peak_memory_mb: FiniteFloat | None = None  # of the training, on the accelerator if there is one
    num_images: dict[str, int] = {}  # of each split; empty for a stream

    @classmethod
    def of_this_process(cls, config: RunConfig, num_parameters: int) -> "Provenance":
        return cls(
            command=public_command(sys.argv),
            data=config.data.name,
            hardware=describe_hardware(),
            num_parameters=num_parameters,
            versions={name: version(name) for name in PACKAGES},
        )

    def public(self) -> dict[str, Any]:
        """The part that travels inside the model's config."""
        return {"version": self.versions["hfseg"], "data": self.data, "command": self.command}


def describe_hardware() -> str:
    """The accelerator, or the processor and its cores."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{num_cores()} CPU cores ({platform.machine()})"


def peak_memory_mb() -> float | None:
    """The most memory that this process has held so far, in MiB: on its GPU if it has one, else resident.

    None where the system does not tell.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20, 1)
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmHWM:")), None)
