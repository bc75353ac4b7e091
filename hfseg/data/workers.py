"""What this machine offers, on any operating system."""

import os
import shutil
from pathlib import Path

import torch

from hfseg.errors import UserError, shown

SHARED_MEMORY = Path("/dev/shm")  # where Linux has it; other systems have no limit that could be looked up


def num_cores() -> int:
    """The processor cores that this process may use; where the system does not tell, all of the machine's."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_shared_memory(num_workers: int, batch_bytes: int) -> None:
    """Raises UserError where a DataLoader's workers lack the shared memory for `batch_bytes` of batches at a time.

    It is small or closed in many containers, where the training would end with a bus error.
    """
    if num_workers == 0:
        return
    problem = ""
    try:
        torch.empty(1).share_memory_()
    except (RuntimeError, OSError) as error:
        problem = f"it cannot be had here ({shown(error)})"
    if not problem and SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        if free < batch_bytes:
            problem = f"{SHARED_MEMORY} has {free / 2**20:.0f} MiB free"
    if problem:
        raise UserError(
            f"train.dataloader_num_workers={num_workers}: their batches take {batch_bytes / 2**20:.0f} MiB of shared "
            f"memory, and {problem}. Set train.dataloader_num_workers=0, or start the container with more "
            "(docker run --shm-size=2g)."
        )
