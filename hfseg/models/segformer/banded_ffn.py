"""Mix-FFN over bands of rows: dense2(gelu(dwconv(dense1(x)))) without its three tensors of 4C channels.

A band's hidden activations stay in the cache, and training keeps x alone: the backward pass makes them again, which
costs less than fetching them from memory does. The 3x3 convolution sees one row above and below its band.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

BAND_ELEMENTS = 1 << 19  # of hidden activations: 2 MB in fp32, what a core's cache holds

aten = torch.ops.aten


class RowBand(NamedTuple):
    """Rows of one image: those that the band makes, and with them those that the convolution needs."""

    image: int
    rows: slice
    halo: slice

    @property
    def inner(self) -> slice:
        """The band's rows among those with the halo."""
        return slice(self.rows.start - self.halo.start, self.rows.stop - self.halo.start)


class BandedFFN(torch.autograd.Function):
    """Tokens (B, h, w, C) to (B, h, w, C), all of one dtype.

    Args:
        tokens: the input.
        weight1: (H, C) and `bias1` (H) of dense1, H = 4C.
        kernel: (H, 1, 3, 3) and `kernel_bias` (H) of the depth-wise convolution.
        weight2: (C, H) and `bias2` (C) of dense2.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: torch.Tensor,
        weight1: torch.Tensor,
        bias1: torch.Tensor,
        kernel: torch.Tensor,
        kernel_bias: torch.Tensor,
        weight2: torch.Tensor,
        bias2: torch.Tensor,
    ) -> torch.Tensor:
        output = torch.empty_like(tokens)
        for band in _bands(tokens.shape, len(weight1)):
            _, mixed = _hidden(tokens, band, weight1, bias1, kernel, kernel_bias)
            output[band.image, band.rows] = F.linear(F.gelu(mixed[band.inner]), weight2, bias2)
        ctx.save_for_backward(tokens, weight1, bias1, kernel, kernel_bias, weight2)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tokens, weight1, bias1, kernel, kernel_bias, weight2 = ctx.saved_tensors
        grad_tokens = torch.zeros_like(tokens)
        grad_weight1, grad_bias1, grad_kernel, grad_kernel_bias, grad_weight2 = (
            torch.zeros_like(each) for each in (weight1, bias1, kernel, kernel_bias, weight2)
        )
        for band in _bands(tokens.shape, len(weight1)):
            hidden, mixed = _hidden(tokens, band, weight1, bias1, kernel, kernel_bias)
            gradient, inner = grad_output[band.image, band.rows], mixed[band.inner]
            grad_weight2 += gradient.flatten(0, 1).T @ F.gelu(inner).flatten(0, 1)
            grad_mixed = torch.zeros_like(mixed)
            grad_mixed[band.inner] = aten.gelu_backward(F.linear(gradient, weight2.T), inner)
            grad_hidden, grad_band_kernel, grad_band_bias = aten.convolution_backward(
                _image(grad_mixed), _image(hidden), kernel, [len(kernel)], [1, 1], [1, 1], [1, 1], False, [0, 0],
                len(kernel), [True, True, True],
            )  # fmt: skip
            grad_kernel += grad_band_kernel
            grad_kernel_bias += grad_band_bias
            flat = grad_hidden[0].permute(1, 2, 0).flatten(0, 1)  # (r*w, H)
            grad_weight1 += flat.T @ tokens[band.image, band.halo].flatten(0, 1)
            grad_bias1 += flat.sum(0)
            grad_tokens[band.image, band.halo] += (flat @ weight1).view_as(tokens[band.image, band.halo])
        grad_bias2 = grad_output.sum((0, 1, 2))
        return grad_tokens, grad_weight1, grad_bias1, grad_kernel, grad_kernel_bias, grad_weight2, grad_bias2


def _hidden(
    tokens: torch.Tensor,
    band: RowBand,
    weight1: torch.Tensor,
    bias1: torch.Tensor,
    kernel: torch.Tensor,
    kernel_bias: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """dense1's and the convolution's output with the halo, (r, w, H) each; the latter is right in the band's rows."""
    hidden = F.linear(tokens[band.image, band.halo], weight1, bias1)
    mixed = F.conv2d(_image(hidden), kernel, kernel_bias, padding=1, groups=len(kernel))
    return hidden, mixed[0].permute(1, 2, 0)


def _image(rows: torch.Tensor) -> torch.Tensor:
    """(r, w, H) as an image (1, H, r, w) in channels-last memory: a view."""
    return rows[None].permute(0, 3, 1, 2)


def _bands(shape: torch.Size, hidden: int) -> Iterator[RowBand]:
    batch_size, height, width, _ = shape
    rows = min(height, max(1, BAND_ELEMENTS // (width * hidden)))
    for image in range(batch_size):
        for top in range(0, height, rows):
            bottom = min(top + rows, height)
            yield RowBand(image, slice(top, bottom), slice(max(0, top - 1), min(height, bottom + 1)))
