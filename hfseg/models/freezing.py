"""Freezing parts of the encoder: no gradient, no statistics, no randomness."""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from hfseg.errors import UserError
from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation
from hfseg.models.segformer.modeling_segformer import HfsegSegformerForSemanticSegmentation


def encoder_name(model: PreTrainedModel) -> str | None:
    """The attribute that is the encoder: `base_model_prefix`, or the `backbone` of models that are built around one.

    None where there is neither.
    """
    parts = [name for name, _ in model.named_children()]
    return next((name for name in (model.base_model_prefix, "backbone") if name in parts), None)


def encoder_of(model: PreTrainedModel, key: str) -> nn.Module:
    """The encoder, see `encoder_name`; raises UserError where there is none that is known, with the config's `key`."""
    name = encoder_name(model)
    if name is None:
        raise UserError(f"{key}: {type(model).__name__} does not say which part of it is the encoder.")
    return model.get_submodule(name)


def frozen_parts(model: PreTrainedModel, num_stages: int | None = None) -> list[nn.Module]:
    """The modules that are the encoder, or its first stages.

    Args:
        model: a model with an encoder, see `encoder_name`; for stages, one of hfseg's own.
        num_stages: how many stages, from the first; None is the whole encoder.

    Raises:
        UserError: the model has fewer stages, or no encoder that is known.
    """
    if num_stages is None:
        return [encoder_of(model, "model.freeze")]
    if not isinstance(model, HfsegSegformerForSemanticSegmentation | HfsegFCNForSemanticSegmentation):
        raise UserError(
            f"model.freeze.stages={num_stages}: the stages of {type(model).__name__} are not known. "
            "Set model.freeze=encoder or none."
        )
    stages = model.encoder_stages()
    if num_stages > len(stages):
        raise UserError(f"model.freeze.stages={num_stages}, but this encoder has {len(stages)} stages.")
    return [module for stage in stages[:num_stages] for module in stage]


def freeze_encoder(model: PreTrainedModel, num_stages: int | None = None) -> "Frozen":
    """Makes the encoder, or its first stages, a fixed function; see `frozen_parts` and `Frozen`."""
    return Frozen(frozen_parts(model, num_stages))


class Frozen:
    """Modules that are a fixed function, until `release`.

    Their parameters need no gradient, so none is computed through them where they come first, and an optimizer leaves
    them alone. They stay in evaluation mode whatever `model.train()` says: BatchNorm keeps its statistics, dropout
    and drop path do nothing.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = modules
        self._parameters = [each for module in modules for each in module.parameters() if each.requires_grad]
        self._hooks: list[RemovableHandle] = []
        for module in modules:
            module.requires_grad_(False)
            module.eval()
            self._hooks.append(module.register_forward_pre_hook(_stay_in_evaluation))

    def release(self) -> None:
        """Trains them from now on: what was trained before is again, from the next `model.train()`."""
        for parameter in self._parameters:
            parameter.requires_grad_(True)
        for hook in self._hooks:
            hook.remove()


def _stay_in_evaluation(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    # Trainer calls model.train() before every step
    if module.training:
        module.eval()
