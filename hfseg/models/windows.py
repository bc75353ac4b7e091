"""Evaluation modes on one image: whole or in sliding windows, at several scales and flipped, band by band.

The class scores of a large image do not fit into memory: 19 classes at 3648 x 5472 take 1.5 GB, several times that
while they are averaged and resized. Here every step is a source of rows that is read from the top to the bottom, so
that sliding holds one row of windows and everything else a few rows of pixels.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from hfseg.config import EvalConfig
from hfseg.errors import UserError
from hfseg.models.loss import BAND_ELEMENTS_CPU, BAND_ELEMENTS_GPU, Observer, SegmentationLoss, segmentation_loss
from hfseg.models.model_files import FORWARD_ERRORS, reason
from hfseg.models.outputs import class_logits

SMALLEST_SIDE = 32  # the stride of the last stage of an encoder; some models have no pixel left below it
WINDOWS_PER_PASS_GPU = 8  # on a CPU one window at a time: it is large enough to keep the cores busy


class Rows(Protocol):
    """Class scores, or pixels, (K, height, width) that are read in bands, whose tops never go back."""

    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...

    def read(self, top: int, bottom: int) -> torch.Tensor:
        """Rows top..bottom-1 as (K, bottom - top, width), at least fp32."""


def augmented_scores(network: nn.Module, image: torch.Tensor | Rows, options: EvalConfig) -> list[Rows]:
    """The class scores of one image: one source of rows for each scale, and each once more for its mirror image.

    * `slide` is mmseg's `slide_inference`: windows of `crop` every `stride` pixels, the last ones moved back to the
      border; each window's logits are upsampled to the window, and pixels in several windows get the mean.
    * For `scales` the image is resized bilinearly after its normalisation, with antialiasing where it shrinks, as the
      image processor does; mmseg resizes bytes without.

    Args:
        network: a semantic segmentation model in evaluation mode.
        image: normalised pixels (1, 3, H, W), or rows of them (K = 3), at the size that the mode wants. Sliding
            without scales reads the rows as it needs them.
        options: mode, crop, stride, scales and flip.

    Raises:
        UserError: the model does not take images or windows of that size.
    """
    pixels = Whole(image[0]) if isinstance(image, torch.Tensor) else image
    sources: list[Rows] = []
    for scale in options.scales:
        size = [max(1, round(side * scale)) for side in (pixels.height, pixels.width)]
        scaled = pixels
        if size != [pixels.height, pixels.width]:
            whole = pixels.read(0, pixels.height)[None]
            whole = F.interpolate(whole, size=size, mode="bilinear", align_corners=False, antialias=scale < 1)
            scaled = Whole(whole[0])
        sources.append(_forward(network, scaled, options))
        if options.flip:
            sources.append(_Flipped(_forward(network, _Flipped(scaled), options)))
    return sources


def logit_bands(sources: Sequence[Rows], size: tuple[int, int]) -> Iterator[torch.Tensor]:
    """Merges the scores of augmented inputs at the size of the labels.

    Several inputs give the logarithm of the mean of their softmax at the labels' size, as mmseg's `SegTTAModel` merges
    them: its softmax is that mean, its argmax the class, its cross-entropy that of the mean.

    Args:
        sources: from `augmented_scores`.
        size: height and width of the labels.

    Yields:
        Logits (K, rows, width) of the next rows from the top, at least fp32.
    """
    height, width = size
    resized = [_resized(source, height, width) for source in sources]
    top, num_rows = 0, 1  # how many fit is known when the number of classes is
    while top < height:
        bottom = min(top + num_rows, height)
        bands = [source.read(top, bottom) for source in resized]
        band = bands[0]
        if len(bands) > 1:
            band = torch.stack([each.log_softmax(dim=0) for each in bands]).logsumexp(dim=0) - math.log(len(bands))
        yield band
        top = bottom
        elements = BAND_ELEMENTS_GPU if band.is_cuda else BAND_ELEMENTS_CPU
        num_rows = max(1, elements // (len(band) * width))


def score_image(
    sources: Sequence[Rows], labels: torch.Tensor, ignore_index: int, observe: Observer | None = None
) -> SegmentationLoss:
    """Cross-entropy and confusion counts of one image, without its scores ever being whole.

    Args:
        sources: from `augmented_scores`.
        labels: (H, W) at their native size.
        ignore_index: label of pixels that do not count.
        observe: as in `segmentation_loss`; it sees the merged scores.
    """
    height, width = labels.shape
    scores, top = [], 0
    for band in logit_bands(sources, (height, width)):
        bottom = top + band.shape[1]
        scores.append(segmentation_loss(band[None], labels[None, top:bottom], ignore_index, observe=observe))
        top = bottom
    return SegmentationLoss(
        total=torch.stack([score.total.double() for score in scores]).sum(),
        num_valid=torch.stack([score.num_valid for score in scores]).sum(),
        confusion=torch.stack([score.confusion for score in scores]).sum(0),
    )


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows start along one side; the last one ends at the border.

    Example:
        >>> window_starts(2048, 1024, 768)
        [0, 768, 1024]
        >>> window_starts(700, 1024, 768)
        [0]
    """
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, length - crop), 0) for index in range(count)]


def _forward(network: nn.Module, image: Rows, options: EvalConfig) -> Rows:
    if options.mode == "slide":
        assert options.crop is not None, "EvalConfig requires it"
        assert options.stride is not None, "EvalConfig requires it"
        return _Sliding(network, image, options.crop, options.stride)
    return Whole(forward_logits(network, image.read(0, image.height)[None])[0])


def forward_logits(network: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """Logits (B, K, h, w), at least fp32.

    Raises:
        UserError: the model does not take images of this size, or cannot be computed at all.
    """
    try:
        logits = class_logits(network(pixel_values=pixel_values))
    except FORWARD_ERRORS as error:
        raise UserError(
            f"The model fails on any image ({reason(error)}): its class cannot compute what its config says. Save or "
            "download config.json and the weights together again."
        ) from error
    except (ValueError, RuntimeError) as error:
        height, width = pixel_values.shape[-2:]
        if isinstance(error, RuntimeError) and min(height, width) >= SMALLEST_SIDE:
            raise
        raise UserError(
            f"The model does not take images of {height} x {width} pixels: {str(error).rstrip('.')}. Choose "
            "eval.mode=resize with eval.size, or eval.mode=slide with eval.crop, of a size that it takes."
        ) from error
    return logits if logits.dtype == torch.float64 else logits.float()


class Whole:
    """Scores, or pixels, (K, height, width) that are small enough to be held."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits
        self.height, self.width = logits.shape[-2:]

    def read(self, top: int, bottom: int) -> torch.Tensor:
        return self.logits[:, top:bottom]


class _Sliding:
    """Mean scores of overlapping windows; holds the sums of the rows that are not finished or not read yet."""

    def __init__(self, network: nn.Module, image: Rows, crop: int, stride: int) -> None:
        self.network, self.image, self.crop = network, image, crop
        self.height, self.width = image.height, image.width
        self.tops, self.lefts = (window_starts(length, crop, stride) for length in (self.height, self.width))
        self.row_coverage = _coverage(self.height, self.tops, crop)
        self.column_coverage = _coverage(self.width, self.lefts, crop)
        self.sums: torch.Tensor | None = None  # (K, rows, width), from row `first` on
        self.first = 0
        self.num_done = 0

    def read(self, top: int, bottom: int) -> torch.Tensor:
        while self.num_done < len(self.tops) and self.tops[self.num_done] < bottom:
            self._add_windows(self.tops[self.num_done], keep_from=top)
            self.num_done += 1
        assert self.sums is not None, "the first window starts at row 0"
        coverage = (self.row_coverage[top:bottom, None] * self.column_coverage).to(self.sums.device)
        return self.sums[:, top - self.first : bottom - self.first] / coverage

    def _add_windows(self, window_top: int, keep_from: int) -> None:
        bottom = min(window_top + self.crop, self.height)
        band = self.image.read(window_top, bottom)[None]
        step = WINDOWS_PER_PASS_GPU if band.is_cuda else 1
        for start in range(0, len(self.lefts), step):
            lefts = self.lefts[start : start + step]
            windows = [band[..., left : left + self.crop] for left in lefts]
            logits = forward_logits(self.network, torch.cat(windows))
            if start == 0:
                self._make_room(keep_from, bottom, logits)
            assert self.sums is not None
            size = windows[0].shape[-2:]
            rows = slice(window_top - self.first, bottom - self.first)
            for left, small in zip(lefts, logits, strict=True):
                large = F.interpolate(small[None], size=size, mode="bilinear", align_corners=False)[0]
                self.sums[:, rows, left : left + self.crop] += large

    def _make_room(self, first: int, bottom: int, like: torch.Tensor) -> None:
        """Drops the rows above `first`, and appends zeros down to `bottom`."""
        unread = None if self.sums is None else self.sums[:, first - self.first :].clone()
        self.sums = None  # before its successor is made
        self.sums = like.new_zeros(like.shape[1], bottom - first, self.width)
        if unread is not None:
            self.sums[:, : unread.shape[1]] = unread
        self.first = first


def _coverage(length: int, starts: list[int], crop: int) -> torch.Tensor:
    """In how many windows each row, or column, lies."""
    counts = torch.zeros(length)
    for start in starts:
        counts[start : start + crop] += 1
    return counts


class _Flipped:
    def __init__(self, source: Rows) -> None:
        self.source = source
        self.height, self.width = source.height, source.width

    def read(self, top: int, bottom: int) -> torch.Tensor:
        return self.source.read(top, bottom).flip(-1)


class _Resized:
    """Bilinear, as `interpolate(align_corners=False)` defines it: columns by `interpolate`, then rows by `lerp`."""

    def __init__(self, source: Rows, height: int, width: int) -> None:
        self.source, self.height, self.width = source, height, width

    def read(self, top: int, bottom: int) -> torch.Tensor:
        rows = torch.arange(top, bottom, dtype=torch.float64)
        position = ((rows + 0.5) * (self.source.height / self.height) - 0.5).clamp(0, self.source.height - 1)
        upper = position.long()
        lower = (upper + 1).clamp(max=self.source.height - 1)
        first, last = int(upper[0]), int(lower[-1])
        band = self.source.read(first, last + 1)
        # the number of rows stays, so this interpolates columns only
        band = F.interpolate(band[None], size=(band.shape[1], self.width), mode="bilinear", align_corners=False)[0]
        weight = (position - upper).to(band).view(1, -1, 1)
        upper, lower = ((index - first).to(band.device) for index in (upper, lower))
        return torch.lerp(band.index_select(1, upper), band.index_select(1, lower), weight)


def _resized(source: Rows, height: int, width: int) -> Rows:
    return source if (source.height, source.width) == (height, width) else _Resized(source, height, width)
