"""Upsampling, cross-entropy and confusion counts together, over bands of rows.

A segmentation model ends in logits at a quarter of the image's size. Upsampling them to the labels' size and calling
cross-entropy holds several tensors of (B, K, H, W) until the backward pass. Here a band of rows is upsampled, scored
and differentiated before the next one starts, so no more than a band ever exists and it stays in the cache.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from hfseg.config import LossConfig
from hfseg.errors import UserError
from hfseg.metrics import count_confusion, with_background

PLAIN = LossConfig()

# Called with each band, from the top: upsampled logits (B, K, rows, W), their argmax and the labels (B, rows, W).
Observer = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]

# A band's logits, in numbers: 4 MB in fp32, about what a core's share of the cache holds. On a GPU, where launching
# a kernel costs more than memory traffic, 256 MB.
BAND_ELEMENTS_CPU = 1 << 20
BAND_ELEMENTS_GPU = 1 << 26


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


def segmentation_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    ignore_index: int = 255,
    options: LossConfig = PLAIN,
    observe: Observer | None = None,
) -> SegmentationLoss:
    """Cross-entropy of bilinearly upsampled logits, and the confusion counts of their argmax.

    Without options it equals `cross_entropy(interpolate(logits, labels.shape[-2:], mode="bilinear"), labels,
    ignore_index=ignore_index, reduction="sum")`, as stock SegFormer computes it, at a fraction of the memory.

    Args:
        logits: (B, K, h, w), any float type; computed in fp32, or in fp64 if that is what they are, also inside
            autocast. So bf16 and fp16 logits lose nothing but what they were rounded to, their gradient comes back in
            their own type, and a sum over pixels, which fp16 could not hold, does not overflow.
        labels: (B, H, W) of 0..K-1 or `ignore_index`, integers.
        ignore_index: label of pixels that do not count.
        options: `class_weights` multiply a pixel's loss by its class's weight; `label_smoothing` as in torch;
            `ohem` drops pixels whose class already has at least that probability (Shrivastava et al., 2016,
            arXiv:1604.03540, with a fixed threshold); `dice` adds so many times the soft Dice loss (Milletari et al.,
            2016, arXiv:1606.04797, over the classes labelled in the batch), weighted by the valid pixels.
        observe: counts more on the same bands, which it must leave as they are.

    Raises:
        UserError: labels that are not integers, or another number of class weights than classes.
    """
    if labels.is_floating_point():
        raise UserError(f"Labels must be integer class ids of shape (batch, height, width); got {labels.dtype}.")
    weights = options.class_weights
    if weights is not None and len(weights) != logits.shape[1]:
        raise UserError(f"loss.class_weights has {len(weights)} values for {logits.shape[1]} classes.")
    with torch.autocast(logits.device.type, enabled=False):
        wide = logits.double() if logits.dtype == torch.float64 else logits.float()
        total, confusion = _BandedLoss.apply(wide.contiguous(), labels.long(), ignore_index, options, observe)
    return SegmentationLoss(total, confusion[:, :-1].sum(), confusion)


class _BandedLoss(torch.autograd.Function):
    """The gradient is made in the forward pass, band by band, and only scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        labels: torch.Tensor,
        ignore_index: int,
        options: LossConfig,
        observe: Observer | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        batch_size, num_labels, _, _ = logits.shape
        need_gradient = ctx.needs_input_grad[0]
        total = logits.new_zeros(())
        confusion = labels.new_zeros(batch_size, num_labels + 1, num_labels)
        gradient = torch.zeros_like(logits) if need_gradient else None
        dice = _DiceSums(logits, labels, ignore_index) if options.dice else None
        for band in _bands(logits, labels):
            upsampled, target = band.upsample(logits), band.target(labels)
            predicted = upsampled.max(dim=1).indices  # ten times faster than argmax on a CPU
            confusion += count_confusion(predicted, target, num_labels, ignore_index)
            if observe is not None:
                observe(upsampled, predicted, target)
            if _is_plain(options):
                loss, slope = _cross_entropy(upsampled, target, ignore_index, need_gradient)
            else:
                upsampled.requires_grad_(need_gradient)
                with torch.set_grad_enabled(need_gradient):
                    loss = _pixel_losses(upsampled, target, ignore_index, options)
                    if dice is not None:
                        loss = loss + options.dice * dice.tangent(upsampled, target)
                slope = torch.autograd.grad(loss, upsampled)[0] if need_gradient else None
            total += loss.detach()
            if gradient is not None and slope is not None:
                band.add_gradient(gradient, slope)
        if dice is not None:
            total += options.dice * dice.constant()
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(confusion)
        return total, confusion

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_outputs[0], None, None, None, None


def _is_plain(options: LossConfig) -> bool:
    return options.class_weights is None and not options.label_smoothing and not options.dice and options.ohem is None


def _cross_entropy(
    upsampled: torch.Tensor, target: torch.Tensor, ignore_index: int, need_gradient: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The sum over valid pixels, and its gradient softmax - one-hot, which takes no more memory than the softmax."""
    valid = (target != ignore_index).unsqueeze(1)  # (B, 1, rows, W)
    index = target.unsqueeze(1) * valid
    log_softmax = upsampled.log_softmax(dim=1)
    total = -(log_softmax.gather(1, index) * valid).sum()
    if not need_gradient:
        return total, None
    slope = log_softmax.exp_().scatter_add_(1, index, -torch.ones_like(index, dtype=upsampled.dtype))
    return total, slope.mul_(valid)


def _pixel_losses(
    upsampled: torch.Tensor, target: torch.Tensor, ignore_index: int, options: LossConfig
) -> torch.Tensor:
    """Cross-entropy summed over the valid pixels of a band."""
    weights = None if options.class_weights is None else upsampled.new_tensor(options.class_weights)
    smoothing = options.label_smoothing
    if options.ohem is None:
        return F.cross_entropy(
            upsampled, target, weights, ignore_index=ignore_index, label_smoothing=smoothing, reduction="sum"
        )
    losses = F.cross_entropy(
        upsampled, target, weights, ignore_index=ignore_index, label_smoothing=smoothing, reduction="none"
    )
    with torch.no_grad():
        is_hard = F.cross_entropy(upsampled, target, ignore_index=ignore_index, reduction="none") > -math.log(
            options.ohem
        )
    return (losses * is_hard).sum()


def mean_loss(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int = 255) -> torch.Tensor:
    """The loss that a model returns by itself: what stock SegFormer returns.

    Args:
        logits: (B, K, h, w).
        labels: (B, H, W) of 0..K-1 or `ignore_index`; for one output 1 where its class is.
        ignore_index: label of pixels that do not count.

    Returns:
        The mean cross-entropy over valid pixels. For K = 1 the binary one, whose mean stock takes over all pixels,
        ignored ones being zero.
    """
    found = segmentation_loss(with_background(logits), labels, ignore_index)
    return found.total / labels.numel() if logits.shape[1] == 1 else found.mean


class _DiceSums:
    """Soft Dice over the whole batch, N * mean_k (1 - 2 I_k / (P_k + G_k)), from bands of rows.

    I_k sums the probability of class k where it is labelled, P_k where anything is, G_k counts its labels. A first
    pass over the bands makes the sums; then each band's share of the gradient is that of the tangent, linear in the
    band's own sums, and the constant term makes the value right.
    """

    def __init__(self, logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> None:
        self.ignore_index = ignore_index
        self.overlap, self.predicted, self.labelled = (logits.new_zeros(logits.shape[1]) for _ in range(3))
        for band in _bands(logits, labels):
            sums = self._sums(band.upsample(logits), band.target(labels))
            for total, part in zip((self.overlap, self.predicted, self.labelled), sums, strict=True):
                total += part
        self.present = self.labelled > 0
        self.scale = self.labelled.sum() / self.present.sum().clamp(min=1)
        self.area = (self.predicted + self.labelled).clamp(min=1e-12)

    def _sums(self, upsampled: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        valid = (target != self.ignore_index).unsqueeze(1)
        probabilities = upsampled.softmax(dim=1) * valid
        one_hot = torch.zeros_like(upsampled).scatter_(1, (target * valid.squeeze(1)).unsqueeze(1), 1) * valid
        overlap = (probabilities * one_hot).sum((0, 2, 3))
        return overlap, probabilities.sum((0, 2, 3)), one_hot.sum((0, 2, 3))

    def tangent(self, upsampled: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        overlap, predicted, _ = self._sums(upsampled, target)
        slopes = 2 * self.overlap / self.area**2 * predicted - 2 / self.area * overlap
        return self.scale * (slopes * self.present).sum()

    def constant(self) -> torch.Tensor:
        """The Dice loss less what the tangents of all bands add up to."""
        tangents = 2 * self.overlap / self.area**2 * self.predicted - 2 / self.area * self.overlap
        return self.scale * ((1 - 2 * self.overlap / self.area - tangents) * self.present).sum()


@dataclass(frozen=True)
class _RowBand:
    """Rows top..bottom-1 of the labels, and rows first..last of the small logits that they are made of."""

    top: int
    bottom: int
    first: int
    last: int
    small_height: int
    height: int
    width: int

    def target(self, labels: torch.Tensor) -> torch.Tensor:
        return labels[:, self.top : self.bottom]

    def _neighbours(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """For each row of the band: the source rows above and below, counted from `first`, and the lower's weight."""
        output_rows = torch.arange(self.top, self.bottom, dtype=torch.float64, device=like.device)
        position = _source_position(output_rows, self.height, self.small_height)
        upper = position.long()
        lower = (upper + 1).clamp(max=self.small_height - 1)
        return upper - self.first, lower - self.first, (position - upper).to(like.dtype).view(1, 1, -1, 1)

    def upsample(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, K, h, w) -> the band (B, K, rows, W), bilinear: columns by `interpolate`, then rows by `lerp`."""
        rows = logits[:, :, self.first : self.last + 1]
        # the number of rows stays, so this interpolates columns only
        rows = F.interpolate(rows, size=(rows.shape[2], self.width), mode="bilinear", align_corners=False)
        upper, lower, weight = self._neighbours(rows)
        return torch.lerp(rows.index_select(2, upper), rows.index_select(2, lower), weight)

    def add_gradient(self, gradient: torch.Tensor, slope: torch.Tensor) -> None:
        """Adds to the gradient of the logits what the gradient of `upsample`'s band brings."""
        batch_size, num_labels, _, small_width = gradient.shape
        num_rows = self.last + 1 - self.first
        upper, lower, weight = self._neighbours(slope)
        rows = slope.new_zeros(batch_size, num_labels, num_rows, self.width)
        below = slope * weight
        rows.index_add_(2, lower, below)
        rows.index_add_(2, upper, slope - below)
        gradient[:, :, self.first : self.last + 1] += torch.ops.aten.upsample_bilinear2d_backward(
            rows, [num_rows, self.width], [batch_size, num_labels, num_rows, small_width], False
        )


def _bands(logits: torch.Tensor, labels: torch.Tensor) -> Iterator[_RowBand]:
    batch_size, num_labels, small_height, _ = logits.shape
    height, width = labels.shape[-2:]
    elements = BAND_ELEMENTS_GPU if logits.is_cuda else BAND_ELEMENTS_CPU
    rows = max(1, elements // (batch_size * num_labels * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        ends = _source_position(torch.tensor([top, bottom - 1], dtype=torch.float64), height, small_height)
        first, last = int(ends[0]), min(int(ends[1]) + 1, small_height - 1)
        yield _RowBand(top, bottom, first, last, small_height, height, width)


def _source_position(rows: torch.Tensor, height: int, small_height: int) -> torch.Tensor:
    """Where output rows lie between input rows, as `interpolate(align_corners=False)` defines it."""
    return ((rows + 0.5) * (small_height / height) - 0.5).clamp(min=0)
