"""LoRA (Hu et al., 2021, arXiv:2106.09685) of the encoder, by peft: W + alpha/r B A, of which only B and A train."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hfseg.errors import UserError
from hfseg.models.freezing import Frozen, encoder_of


def add_lora(model: PreTrainedModel, r: int, alpha: float) -> None:
    """Gives each linear layer of the encoder a trainable update of rank r, in place; its own weights are frozen.

    Linear layers are those of a transformer and 1x1 convolutions, of which FCN has some in every block. BatchNorms of
    the encoder keep their statistics, dropout and drop path are those of any training, the head trains whole.

    Raises:
        UserError: the model does not say which part of it is the encoder, or that has no linear layers.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import Conv2d

    encoder = encoder_of(model, "model.lora")
    names = [re.escape(name) for name, layer in encoder.named_modules() if _is_linear(layer)]
    if not names:
        raise UserError(f"model.lora: the encoder of {type(model).__name__} has no linear layers.")
    inject_adapter_in_model(LoraConfig(r=r, lora_alpha=alpha, target_modules="|".join(names)), encoder)
    for layer in encoder.modules():
        if isinstance(layer, Conv2d):  # MobileNetV2 pads by what it reads there
            base = layer.get_base_layer()
            layer.stride, layer.kernel_size, layer.dilation = base.stride, base.kernel_size, base.dilation
    Frozen([module for module in encoder.modules() if isinstance(module, _BatchNorm)])


def _is_linear(layer: nn.Module) -> bool:
    # not a subclass of nn.Linear: nn.MultiheadAttention reads its weights and never calls it
    is_pointwise = type(layer) is nn.Conv2d and layer.kernel_size == (1, 1) and layer.groups == 1
    return type(layer) is nn.Linear or is_pointwise


def merge_lora(model: nn.Module) -> None:
    """Adds the updates to the weights, in place: the same function in the layers and names of before `add_lora`."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge()
            model.set_submodule(name, layer.get_base_layer())


def has_lora(model: nn.Module) -> bool:
    """Whether it has updates that are not merged."""
    return any(".lora_A." in name for name, _ in model.named_parameters())


@contextmanager
def saved_by_own_names(model: PreTrainedModel) -> Iterator[None]:
    """`save_pretrained` writes the names that tensors have in memory, where it would translate some of them."""
    kept = vars(model).get("_weight_conversions")
    model._weight_conversions = []
    try:
        yield
    finally:
        model._weight_conversions = kept
