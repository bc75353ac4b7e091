"""The two layers of a SegFormer block that are fast where their memory is laid out well, for any that hold them."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import GELUActivation

from hfseg.models.segformer.banded_ffn import BAND_ELEMENTS, BandedFFN
from hfseg.models.segformer.layout import to_image, to_tokens


def reduce_sequence(
    tokens: torch.Tensor, height: int, width: int, conv: nn.Conv2d, norm: nn.LayerNorm
) -> torch.Tensor:
    """Keys and values of a map r times smaller on each side (section 3.1, equation 2).

    Args:
        tokens: (B, h*w, C).
        height: h.
        width: w.
        conv: C to C channels, kernel and stride r.
        norm: over C.

    Returns:
        (B, h*w / r^2, C).
    """
    ratio, (batch_size, _, channels) = conv.kernel_size[0], tokens.shape
    # the convolution drops the remainder; an exported graph has to serve sizes with and without one
    is_plain = type(conv) is nn.Conv2d  # a wrapper such as peft's adds to what the weight says
    if torch.compiler.is_exporting() or height % ratio or width % ratio or not is_plain:
        return norm(to_tokens(conv(to_image(tokens, height, width))))
    patches = tokens.view(batch_size, height // ratio, ratio, width // ratio, ratio, channels)
    patches = patches.transpose(2, 3).reshape(batch_size, -1, ratio * ratio * channels)
    weight = conv.weight.permute(0, 2, 3, 1).reshape(channels, -1)  # (C, r*r*C)
    return norm(F.linear(patches, weight, conv.bias))


def mix_ffn(
    tokens: torch.Tensor,
    height: int,
    width: int,
    expand: nn.Linear,
    conv: nn.Conv2d,
    activation: Callable[[torch.Tensor], torch.Tensor],
    project: nn.Linear,
    dropout: nn.Dropout,
) -> torch.Tensor:
    """Mix-FFN (section 3.1, equation 3): MLP(GELU(Conv3x3(MLP(x)))).

    The 3x3 depth-wise convolution tells tokens where they are, in place of a positional encoding.

    Args:
        tokens: (B, h*w, C).
        height: h.
        width: w.
        expand: C to 4C.
        conv: depth-wise, 4C.
        activation: GELU in the paper.
        project: 4C to C.
        dropout: after the activation and at the end.

    Returns:
        (B, h*w, C).
    """
    is_plain = type(expand) is type(project) is nn.Linear and type(conv) is nn.Conv2d  # not a wrapper such as peft's
    if is_plain and runs_in_bands(tokens, expand, activation, dropout):
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
        maps = tokens.view(len(tokens), height, width, -1)
        layers = (expand, conv, project)
        parameters = [cast(torch.Tensor, each) for layer in layers for each in (layer.weight, layer.bias)]
        return BandedFFN.apply(*(each.to(dtype) for each in (maps, *parameters))).flatten(1, 2)
    tokens = activation(to_tokens(conv(to_image(expand(tokens), height, width))))  # (B, N, 4C)
    return dropout(project(dropout(tokens)))


def runs_in_bands(
    tokens: torch.Tensor, expand: nn.Linear, activation: Callable[..., torch.Tensor], dropout: nn.Dropout
) -> bool:
    """On a CPU, whose cache the hidden activations would flood; the compiler fuses the plain form by itself."""
    return (
        not torch.compiler.is_compiling()  # first: an exported graph may not depend on the size
        and tokens.device.type == "cpu"
        and isinstance(activation, GELUActivation)
        and activation.act is F.gelu
        and not (dropout.training and dropout.p > 0)
        and tokens.shape[1] * expand.out_features > BAND_ELEMENTS
    )
