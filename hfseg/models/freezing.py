"""Freezing parts of the encoder: no gradient, no statistics, no randomness."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hfseg.errors import UserError


def freeze_encoder(model: PreTrainedModel, num_stages: int | None = None) -> None:
    """Makes the encoder, or its first stages, a fixed function.

    Its parameters need no gradient, so none is computed through it where it is frozen from the first layer on, and
    the optimizer never sees them. Its modules stay in evaluation mode whatever `model.train()` says: BatchNorm keeps
    its statistics, dropout and drop path do nothing.

    Args:
        model: a model whose encoder is the attribute `base_model_prefix`; for stages, one with `encoder_stages()`.
        num_stages: how many stages, from the first; None freezes the whole encoder.

    Raises:
        UserError: the model has fewer stages.
    """
    if num_stages is None:
        frozen = [getattr(model, model.base_model_prefix)]
    else:
        stages = model.encoder_stages()
        if num_stages > len(stages):
            raise UserError(f"model.freeze.stages={num_stages}, but this encoder has {len(stages)} stages.")
        frozen = [module for stage in stages[:num_stages] for module in stage]
    for module in frozen:
        module.requires_grad_(False)
        module.eval()
        module.register_forward_pre_hook(_stay_in_evaluation)


def _stay_in_evaluation(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    # Trainer calls model.train() before every step
    if module.training:
        module.eval()
