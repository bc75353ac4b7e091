"""Upsampling, cross-entropy and confusion counts together, over strips of rows.

A segmentation model ends in logits at a quarter of the image's size. Upsampling them to the labels' size and calling
cross-entropy holds several tensors of (B, K, H, W) until the backward pass. Here a strip of rows is upsampled, scored
and differentiated before the next one starts, so no more than a strip ever exists and it stays in the cache.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from hfseg.confusion import count_confusion

# A strip's logits, in numbers: 4 MB in fp32, about what a core's share of the cache holds. On a GPU, where launching
# a kernel costs more than memory traffic, 256 MB.
STRIP_ELEMENTS_CPU = 1 << 20
STRIP_ELEMENTS_GPU = 1 << 26


@dataclass(frozen=True)
class SegmentationLoss:
    """Sums, from which means over any number of images and processes can be formed exactly.

    Attributes:
        total: cross-entropy summed over valid pixels, scalar, at least fp32, differentiable.
        num_valid: number of valid pixels, int64 scalar.
        confusion: int64 counts (B, K+1, K), see `count_confusion`.
    """

    total: torch.Tensor
    num_valid: torch.Tensor
    confusion: torch.Tensor

    @property
    def mean(self) -> torch.Tensor:
        """Mean over valid pixels; zero with zero gradient where there is none."""
        return self.total / self.num_valid.clamp(min=1)


def segmentation_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int = 255) -> SegmentationLoss:
    """Cross-entropy of bilinearly upsampled logits, and the confusion counts of their argmax.

    Equals `cross_entropy(interpolate(logits, labels.shape[-2:], mode="bilinear"), labels, ignore_index=ignore_index,
    reduction="sum")`, as stock SegFormer computes it, at a fraction of the memory.

    Args:
        logits: (B, K, h, w), any float type; computed in fp32, or in fp64 if that is what they are.
        labels: (B, H, W) of 0..K-1 or `ignore_index`, integers.
        ignore_index: label of pixels that do not count.
    """
    with torch.autocast(logits.device.type, enabled=False):
        wide = logits.double() if logits.dtype == torch.float64 else logits.float()
        total, confusion = _StripCrossEntropy.apply(wide.contiguous(), labels.long(), ignore_index)
    return SegmentationLoss(total, confusion[:, :-1].sum(), confusion)


class _StripCrossEntropy(torch.autograd.Function):
    """The gradient is made in the forward pass, strip by strip, and only scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, labels: torch.Tensor, ignore_index: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch_size, num_labels, _, _ = logits.shape
        height, width = labels.shape[-2:]
        need_gradient = ctx.needs_input_grad[0]
        elements = STRIP_ELEMENTS_GPU if logits.is_cuda else STRIP_ELEMENTS_CPU
        strip = max(1, elements // (batch_size * num_labels * width))
        total = logits.new_zeros(())
        confusion = labels.new_zeros(batch_size, num_labels + 1, num_labels)
        gradient = torch.zeros_like(logits) if need_gradient else None
        for top in range(0, height, strip):
            bottom = min(top + strip, height)
            first, rows = _source_rows(logits, top, bottom, height)
            rows.requires_grad_(need_gradient)
            with torch.set_grad_enabled(need_gradient):
                upsampled = _upsample_strip(rows, first, logits.shape[2], top, bottom, height, width)
                target = labels[:, top:bottom]
                loss = F.cross_entropy(upsampled, target, ignore_index=ignore_index, reduction="sum")
            if gradient is not None:
                gradient[:, :, first : first + rows.shape[2]] += torch.autograd.grad(loss, rows)[0]
            total += loss.detach()
            predicted = upsampled.detach().max(dim=1).indices  # ten times faster than argmax on a CPU
            confusion += count_confusion(predicted, target, num_labels, ignore_index)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(confusion)
        return total, confusion

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None


def _source_position(rows: torch.Tensor, height: int, small_height: int) -> torch.Tensor:
    """Where output rows lie between input rows, as `interpolate(align_corners=False)` defines it."""
    return ((rows + 0.5) * (small_height / height) - 0.5).clamp(min=0)


def _source_rows(logits: torch.Tensor, top: int, bottom: int, height: int) -> tuple[int, torch.Tensor]:
    """The rows of the small logits that output rows top..bottom-1 are made of: index of the first, and a leaf copy."""
    small_height = logits.shape[2]
    ends = _source_position(torch.tensor([top, bottom - 1], dtype=torch.float64), height, small_height)
    first, last = int(ends[0]), min(int(ends[1]) + 1, small_height - 1)
    return first, logits[:, :, first : last + 1].detach().contiguous()


def _upsample_strip(
    rows: torch.Tensor, first: int, small_height: int, top: int, bottom: int, height: int, width: int
) -> torch.Tensor:
    """Output rows top..bottom-1 of the bilinear upsampling: columns by `interpolate`, rows by `lerp`."""
    # (B, K, source rows, W): the number of rows stays, so this interpolates columns only
    rows = F.interpolate(rows, size=(rows.shape[2], width), mode="bilinear", align_corners=False)
    output_rows = torch.arange(top, bottom, dtype=torch.float64, device=rows.device)
    position = _source_position(output_rows, height, small_height)
    upper = position.long()
    weight = (position - upper).to(rows.dtype).view(1, 1, -1, 1)
    lower = (upper + 1).clamp(max=small_height - 1)
    return torch.lerp(rows.index_select(2, upper - first), rows.index_select(2, lower - first), weight)
