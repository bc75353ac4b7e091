"""The folded head's big tensor, D channels at a quarter of the image, made and used over bands that fit in the cache.

    x = first stage's product + sum of the upsampled others;  logits = classifier(dropout(relu(norm(x))))

Written with modules, every arrow is a tensor of (B, H/4, W/4, D) that is allocated, filled and, in training, kept: at
512 x 512 that costs more time than the arithmetic. Here inference never holds more than a band of x, and training
keeps x and a mask, whose backward pass makes everything else again from the logits' small gradient.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

BAND_ELEMENTS = 1 << 18  # of x, in numbers: 1 MB in fp32, what a core's cache holds
DROPOUT_STEPS = 1 << 16  # the resolution of the dropout probability

Gradients = tuple[torch.Tensor | None, ...]


@dataclass(frozen=True)
class Upsampling:
    """Rows of one coarser stage that each row of x lies between, as `interpolate(align_corners=False)` has it."""

    upper: torch.Tensor  # (h) int64
    lower: torch.Tensor
    weight: torch.Tensor  # (h) of the lower row

    @classmethod
    def of(cls, small: torch.Tensor, height: int) -> "Upsampling":
        small_height = small.shape[1]
        rows = torch.arange(height, dtype=torch.float64, device=small.device)
        position = ((rows + 0.5) * (small_height / height) - 0.5).clamp(min=0)
        upper = position.long()
        return cls(upper, (upper + 1).clamp(max=small_height - 1), (position - upper).to(small.dtype))

    def forward(self, small: torch.Tensor, rows: slice, width: int) -> torch.Tensor:
        """(g, h_i, w_i, D) -> rows of (g, h, w, D)"""
        weight = self.weight[rows].view(1, -1, 1, 1)
        band = torch.lerp(
            small.index_select(1, self.upper[rows]), small.index_select(1, self.lower[rows]), weight
        )  # (g, r, w_i, D): few numbers; the columns come last because they make many
        image = F.interpolate(
            band.permute(0, 3, 1, 2), size=(band.shape[1], width), mode="bilinear", align_corners=False
        )
        return image.permute(0, 2, 3, 1)

    def add_gradient(self, gradient: torch.Tensor, large: torch.Tensor, rows: slice) -> None:
        """Adds to the gradient of `small` what the gradient of `forward`'s rows, (g, r, w, D), brings."""
        images, _, small_width, channels = gradient.shape
        height, width = large.shape[1:3]
        band = torch.ops.aten.upsample_bilinear2d_backward(
            large.permute(0, 3, 1, 2), [height, width], [images, channels, height, small_width], False
        ).permute(0, 2, 3, 1)
        weight = self.weight[rows].view(1, -1, 1, 1)
        lower = band * weight
        gradient.index_add_(1, self.lower[rows], lower)
        gradient.index_add_(1, self.upper[rows], band - lower)


class Norm:
    """BatchNorm with batch statistics, all (D) and at least fp32; `variance` is the biased one."""

    def __init__(
        self, gamma: torch.Tensor, beta: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor, eps: float
    ) -> None:
        self.gamma, self.beta, self.mean = gamma, beta, mean
        self.inverse = torch.rsqrt(variance + eps)
        self.scale = gamma * self.inverse
        self.shift = beta - mean * self.scale
        self.centre = -mean * self.inverse

    def normalise(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.centre, x, self.inverse)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(self.shift, x, self.scale)

    def input_gradient(
        self, grad_gamma: torch.Tensor, grad_beta: torch.Tensor, count: int
    ) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
        """Of gradient and x: gamma / std * (gradient - mean(gradient) - normalised * mean(gradient * normalised))."""
        slope = -self.scale * self.inverse * grad_gamma / count
        offset = -self.scale * grad_beta / count - slope * self.mean
        return lambda gradient, x: torch.addcmul(torch.addcmul(offset, x, slope), gradient, self.scale)


class BandedHead(torch.autograd.Function):
    """From the stages' products to logits.

    Args:
        tokens: the first stage's features (B, h, w, C).
        weight: (D, C), their product.
        gamma: (D), and `beta` (D), of the norm with batch statistics; None where the norm is folded into the products.
        class_weight: (K, D), and `class_bias` (K).
        keep: uint8 (B, h, w, D), what dropout leaves, or None; the caller scales `class_weight` for it.
        eps: of the norm.
        need_gradient: whether a backward pass will come.
        smalls: the other stages' products (B, h_i, w_i, D); the products' biases are in one of them.

    Returns:
        logits (B, h, w, K), and mean and biased variance of x (D), zero-sized without `gamma`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        tokens: torch.Tensor,
        weight: torch.Tensor,
        gamma: torch.Tensor | None,
        beta: torch.Tensor | None,
        class_weight: torch.Tensor,
        class_bias: torch.Tensor,
        keep: torch.Tensor | None,
        eps: float,
        need_gradient: bool,
        *smalls: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = (*tokens.shape[:3], len(weight))
        wide = torch.promote_types(tokens.dtype, torch.float32)
        upsamplings = [Upsampling.of(small, shape[1]) for small in smalls]
        keep_x = gamma is not None or need_gradient
        x = tokens.new_empty(shape if keep_x else 0)
        in_place = keep_x and x.dtype == wide
        logits = tokens.new_empty(*shape[:3], len(class_weight))

        def classify(part: torch.Tensor, images: slice, rows: slice) -> None:
            part = part.relu_() if keep is None else part.relu_().mul_(keep[images, rows].to(wide))
            logits[images, rows] = F.linear(part.to(tokens.dtype), class_weight, class_bias)

        means, squares, counts = [], [], []
        for images, rows in _bands(shape):
            if in_place:  # what `classify` does to x then, the backward pass does not mind
                part = x[images, rows]
                torch.mm(tokens[images, rows].flatten(0, 2), weight.T, out=part.flatten(0, 2))
            else:
                part = F.linear(tokens[images, rows], weight).to(wide)
            for small, upsampling in zip(smalls, upsamplings, strict=True):
                part += upsampling.forward(small[images], rows, shape[2])
            if keep_x and not in_place:
                x[images, rows] = part
            if gamma is None:
                classify(part, images, rows)
            else:
                flat = part.flatten(0, 2)
                means.append(flat.mean(0))
                squares.append((flat - means[-1]).square_().sum(0))
                counts.append(len(flat))
        mean = variance = tokens.new_empty(0, dtype=wide)
        if gamma is not None and beta is not None:
            mean, variance = _combine(means, squares, counts)
            norm = Norm(gamma, beta, mean, variance, eps)
            for images, rows in _bands(shape):
                classify(norm(x[images, rows].to(wide)), images, rows)
        ctx.save_for_backward(x, tokens, weight, gamma, beta, class_weight, keep, mean, variance)
        ctx.eps, ctx.upsamplings, ctx.small_shapes = eps, upsamplings, [small.shape for small in smalls]
        ctx.mark_non_differentiable(mean, variance)
        return logits, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: torch.Tensor, *_: torch.Tensor) -> Gradients:
        x, tokens, weight, gamma, beta, class_weight, keep, mean, variance = ctx.saved_tensors
        shape, wide = x.shape, torch.promote_types(x.dtype, torch.float32)
        norm = None if gamma is None else Norm(gamma, beta, mean, variance, ctx.eps)
        grad_gamma = grad_beta = through_norm = None
        grad_class_weight = torch.zeros_like(class_weight, dtype=wide)
        if norm is not None:
            # The norm's mean and variance depend on every pixel: its sums come first. With M the pixels that ReLU and
            # dropout let through, all of them follow from dl^T M and dl^T (M * normalised x), (K, D) each.
            passed, passed_x = torch.zeros_like(grad_class_weight), torch.zeros_like(grad_class_weight)
            for images, rows in _bands(shape):
                normalised = norm.normalise(x[images, rows].to(wide))
                mask = torch.addcmul(norm.beta, normalised, norm.gamma).gt_(0)
                if keep is not None:
                    mask.mul_(keep[images, rows].to(wide))
                transposed = grad_logits[images, rows].flatten(0, 2).T.to(wide)
                passed += transposed @ mask.flatten(0, 2)
                passed_x += transposed @ normalised.mul_(mask).flatten(0, 2)
            grad_beta, grad_gamma = (class_weight * passed).sum(0), (class_weight * passed_x).sum(0)
            grad_class_weight = norm.gamma * passed_x + norm.beta * passed
            through_norm = norm.input_gradient(grad_gamma, grad_beta, shape[:3].numel())
        grad_tokens, grad_weight = torch.empty_like(tokens), torch.zeros_like(weight, dtype=wide)
        grad_smalls = [x.new_zeros(small_shape, dtype=wide) for small_shape in ctx.small_shapes]
        for images, rows in _bands(shape):
            part, small_gradient = x[images, rows].to(wide), grad_logits[images, rows]
            output = part if norm is None else norm(part)
            gradient = F.linear(small_gradient, class_weight.T).to(wide)
            gradient = torch.ops.aten.threshold_backward(gradient, output, 0)
            if keep is not None:
                gradient.mul_(keep[images, rows].to(wide))
            if through_norm is None:
                output = output.relu() if keep is None else output.relu().mul_(keep[images, rows].to(wide))
                grad_class_weight += small_gradient.flatten(0, 2).T.to(wide) @ output.flatten(0, 2)
            else:
                gradient = through_norm(gradient, part)
            narrow = gradient.to(x.dtype)
            grad_tokens[images, rows] = F.linear(narrow, weight.T)
            grad_weight += narrow.flatten(0, 2).T @ tokens[images, rows].flatten(0, 2)
            for upsampling, grad_small in zip(ctx.upsamplings, grad_smalls, strict=True):
                upsampling.add_gradient(grad_small[images], gradient, rows)
        return (
            grad_tokens,
            grad_weight.to(weight.dtype),
            grad_gamma,
            grad_beta,
            grad_class_weight.to(class_weight.dtype),
            grad_logits.sum((0, 1, 2)),
            None,
            None,
            None,
            *(grad_small.to(x.dtype) for grad_small in grad_smalls),
        )


def keep_mask(shape: torch.Size, probability: float, device: torch.device) -> tuple[torch.Tensor, float]:
    """What dropout leaves, uint8 of 1 with 1 - `probability`, and the factor for it; 16 random bits for each number.

    On a CPU `bernoulli_` takes twenty times as long, and bool takes eight times as long as uint8 to become a float.
    """
    dropped = round(probability * DROPOUT_STEPS)
    if dropped == DROPOUT_STEPS:
        return torch.zeros(shape, dtype=torch.uint8, device=device), 0.0
    words = torch.randint(-(2**63), 2**63 - 1, ((shape.numel() + 3) // 4,), device=device)
    lanes = words.view(torch.int16)[: shape.numel()].view(shape)
    keep = torch.ge(lanes, dropped - DROPOUT_STEPS // 2, out=torch.empty(shape, dtype=torch.uint8, device=device))
    return keep, DROPOUT_STEPS / (DROPOUT_STEPS - dropped)


def _bands(shape: torch.Size | tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Parts of (B, h, w, D) that are contiguous: some rows of one image, or some whole images."""
    batch_size, height, width, channels = shape
    rows = min(height, max(1, BAND_ELEMENTS // (width * channels)))
    images = max(1, BAND_ELEMENTS // (width * channels * height)) if rows == height else 1
    for first in range(0, batch_size, images):
        for top in range(0, height, rows):
            yield slice(first, first + images), slice(top, top + rows)


def _combine(
    means: list[torch.Tensor], squares: list[torch.Tensor], counts: list[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of all from those of the parts (Chan et al., 1983): stable, unlike E[x^2] - E[x]^2."""
    weights = torch.tensor(counts, dtype=means[0].dtype, device=means[0].device)[:, None] / sum(counts)
    stacked = torch.stack(means)
    mean = (stacked * weights).sum(0)
    between = ((stacked - mean).square() * weights).sum(0)
    return mean, torch.stack(squares).sum(0) / sum(counts) + between
