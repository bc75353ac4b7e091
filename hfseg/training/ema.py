"""An exponential moving average of the weights, which is scored and kept in the place of the weights themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import TypeAlias

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

Tensors: TypeAlias = tuple[torch.Tensor, ...] | list[torch.Tensor]
EMA_FILE = "ema.safetensors"


class WeightAverage:
    """average = d * average + (1 - d) * weights after every optimizer step, with d = min(decay, (1 + n) / (10 + n)).

    d rises from 0.1 to `decay` over the steps n, so that a short training is not the average of its start. Buffers,
    such as BatchNorm's statistics, are copied. It takes the memory of the weights once more.

    Args:
        model: the unwrapped model, on its device.
        decay: at least 0, below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.average = AveragedModel(model, multi_avg_fn=self._average)
        self.average.n_averaged.fill_(1)  # the first update averages too, with the weights that training starts from

    @torch.no_grad()
    def _average(self, averages: Tensors, weights: Tensors, _: torch.Tensor | int) -> None:
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        torch._foreach_lerp_(averages, weights, 1 - decay)

    def update(self, model: nn.Module) -> None:
        """To be called after every optimizer step."""
        self.average.update_parameters(model)
        self.num_updates += 1

    @contextmanager
    def in_place_of(self, model: nn.Module) -> Iterator[None]:
        """The model has the averaged weights inside, and its own again afterwards, bit for bit."""
        self._exchange(model)
        try:
            yield
        finally:
            self._exchange(model)

    @torch.no_grad()
    def _exchange(self, model: nn.Module) -> None:
        inside = self.average.module
        for mine, other in zip(
            chain(inside.parameters(), inside.buffers()), chain(model.parameters(), model.buffers()), strict=True
        ):
            kept = mine.clone()
            mine.copy_(other)
            other.copy_(kept)

    def copy_to(self, model: nn.Module) -> None:
        """Gives the model the averaged weights for good."""
        model.load_state_dict(self.average.module.state_dict())

    def save(self, folder: Path) -> None:
        """Writes `ema.safetensors` into a checkpoint."""
        tensors = {name: tensor.contiguous() for name, tensor in self.average.module.state_dict().items()}
        save_file(tensors, folder / EMA_FILE, metadata={"format": "pt"})

    def load(self, folder: Path, num_updates: int) -> None:
        """Goes on from a checkpoint of so many optimizer steps."""
        self.average.module.load_state_dict(load_file(folder / EMA_FILE))
        self.num_updates = num_updates
