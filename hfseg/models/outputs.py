"""What a model returns, as logits of its classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hfseg.metrics import with_background


def class_logits(outputs: torch.Tensor | Mapping[str, Any] | Sequence[Any]) -> torch.Tensor:
    """The logits (B, K, h, w) of a model's outputs; those of one output become two classes, see `with_background`.

    Args:
        outputs: logits, a transformers ModelOutput with `logits`, or a tuple that begins with them
            (`return_dict=False`).
    """
    if isinstance(outputs, Mapping):
        return with_background(outputs["logits"])
    return with_background(outputs if isinstance(outputs, torch.Tensor) else outputs[0])
