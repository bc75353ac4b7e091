"""Freezing parts of the encoder: no gradient, no statistics, no randomness."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from hfseg.errors import UserError
from hfseg.models.fcn import HfsegFCNForSemanticSegmentation
from hfseg.models.segformer import HfsegSegformerForSemanticSegmentation


def encoder_name(model: PreTrainedModel) -> str | None:
    """The attribute that is the encoder: `base_model_prefix`, or the `backbone` of models that are built around one.

    None where there is neither.
    """
    parts = [name for name, _ in model.named_children()]
    return next((name for name in (model.base_model_prefix, "backbone") if name in parts), None)


def freeze_encoder(model: PreTrainedModel, num_stages: int | None = None) -> None:
    """Makes the encoder, or its first stages, a fixed function.

    Its parameters need no gradient, so none is computed through it where it is frozen from the first layer on, and
    the optimizer never sees them. Its modules stay in evaluation mode whatever `model.train()` says: BatchNorm keeps
    its statistics, dropout and drop path do nothing.

    Args:
        model: a model with an encoder, see `encoder_name`; for stages, one of hfseg's own.
        num_stages: how many stages, from the first; None freezes the whole encoder.

    Raises:
        UserError: the model has fewer stages, or no encoder that is known.
    """
    if num_stages is None:
        name = encoder_name(model)
        if name is None:
            raise UserError(f"model.freeze: {type(model).__name__} does not say which part of it is the encoder.")
        frozen = [model.get_submodule(name)]
    elif not isinstance(model, HfsegSegformerForSemanticSegmentation | HfsegFCNForSemanticSegmentation):
        raise UserError(
            f"model.freeze.stages={num_stages}: the stages of {type(model).__name__} are not known. "
            "Set model.freeze=encoder or none."
        )
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
