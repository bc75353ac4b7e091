"""One image through a model before anything is trained: whether it takes the size, and what its batch norms see."""

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hfseg.models.model_files import FORWARD_ERRORS


def dry_run(model: PreTrainedModel, size: tuple[int, int]) -> tuple[str | None, list[str]]:
    """Evaluates one black image; leaves the weights, the statistics and the random state as they are.

    Args:
        model: is left in evaluation mode.
        size: height and width of the image.

    Returns:
        Why the model does not take such an image, or None. And the batch norms that would be trained on a single
        value for each channel if such an image were alone in its batch: torch refuses that.
    """
    single_value_norms: list[str] = []

    def look(name: str) -> Any:
        def hook(norm: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
            if inputs[0].numel() == inputs[0].shape[1]:
                single_value_norms.append(name)

        return hook

    trained = {name: module for name, module in model.named_modules() if _is_trained(module)}
    handles = [module.register_forward_pre_hook(look(name)) for name, module in trained.items()]
    try:
        with torch.no_grad():
            model.eval()(pixel_values=torch.zeros(1, 3, *size, device=model.device, dtype=model.dtype))
    except torch.OutOfMemoryError:
        raise
    except (ValueError, RuntimeError, *FORWARD_ERRORS) as error:  # how models and torch's kernels say so
        return str(error), single_value_norms
    finally:
        for handle in handles:
            handle.remove()
    return None, single_value_norms


def _is_trained(module: nn.Module) -> bool:
    """Frozen batch norms keep their statistics, and synchronised ones have those of all processes."""
    is_plain = isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    return is_plain and all(parameter.requires_grad for parameter in module.parameters())
