"""Training augmentation of an image and its label map together.

First everything random is drawn, from the label map alone; then the crop is cut from the original and resampled once,
and brightness, contrast, saturation and hue are one 3x4 matrix on the pixels that survive. They stay bytes until they
are on the training's device (`collator.normalise`): a float32 sample costs more to move than to augment.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from hfseg.config import TransformsConfig
from hfseg.data.images import REDUCTIONS

Rng = np.random.Generator
Labels = NDArray[np.integer]
Matrix = NDArray[np.float64]

CROP_ATTEMPTS = 10
BAND_ROWS = 64  # of float pixels at a time: they stay in the processor's cache
MAX_HUE_DEGREES = 36  # mmsegmentation's 18 is in OpenCV's 8-bit hue, whose unit is 2 degrees
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# RGB to YIQ (FCC NTSC): hue is an angle in the I-Q plane.
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


@dataclass(frozen=True)
class Crop:
    """A box of the original image and the height and width it is resampled to.

    The image may be decoded at 1 / `reduction` of its size: the box lies on multiples of it.
    """

    top: int
    left: int
    height: int
    width: int
    shape: tuple[int, int]
    reduction: int = 1


@dataclass(frozen=True)
class Augmentation:
    """What happens to one sample; the colour matrix, if any, is `draw_colours`'."""

    crop: Crop
    flip: bool
    matrix: Matrix | None


class TrainTransform:
    """Random scale, crop, flip and photometric distortion.

    The recipe is mmsegmentation's for SegFormer: the short side becomes `size` times a factor of `scale`; up to ten
    crops are tried until no class fills more than `cat_max_ratio` of it; brightness +-32, contrast and saturation
    0.5 to 1.5, hue +-36 degrees, each with probability 1/2. What a small image leaves empty is the mean colour in
    the image and the ignore index in the labels.

    Args:
        config: which parts are on.
        mean: of the normalisation to come, per channel, for images in 0..1; the colour of padding.
        std: likewise.
        ignore_index: label of padding.
    """

    def __init__(
        self, config: TransformsConfig, mean: Sequence[float], std: Sequence[float], ignore_index: int = 255
    ) -> None:
        self.config = config
        self.normalisation = 255 * torch.tensor([list(mean), list(std)])  # (2, 3), for bytes
        self.padding = self.normalisation[0].round().to(torch.uint8)
        self.ignore_index = ignore_index

    def __call__(
        self, image: Image.Image | NDArray[np.uint8], label: Labels, rng: Rng
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augments an RGB image (H, W, 3) and its class ids (H, W); `rng` is the only source of randomness.

        Returns:
            uint8 (3, size, size) and labels (size, size): uint8 if the label map is and the ignore index fits,
            otherwise int64.
        """
        return self.apply(self.draw(label, rng), np.asarray(image), label)

    def draw(self, label: Labels, rng: Rng) -> Augmentation:
        """Chooses everything that is random; of the image only the size matters, which is the label map's."""
        factor = rng.uniform(*self.config.scale) if self.config.scale else 1.0
        crop = self._draw_crop(label, factor * self.config.size / min(label.shape), rng)
        flip = self.config.flip and bool(rng.random() < 0.5)
        return Augmentation(crop, flip, draw_colours(rng) if self.config.photometric else None)

    def _draw_crop(self, label: Labels, scale: float, rng: Rng) -> Crop:
        fitting = [r for r in REDUCTIONS if r * scale <= 1 and r <= min(label.shape)]
        step = fitting[0] if fitting else 1
        (height, rows), (width, columns) = (self._extent(length, scale, step) for length in label.shape)
        for _ in range(CROP_ATTEMPTS):
            top = step * int(rng.integers((label.shape[0] - height) // step + 1))
            left = step * int(rng.integers((label.shape[1] - width) // step + 1))
            crop = Crop(top, left, height, width, (rows, columns), step)
            if self.config.cat_max_ratio is None or self._is_varied(crop_label(label, crop, stride=2)):
                break
        return crop

    def _extent(self, length: int, scale: float, step: int) -> tuple[int, int]:
        """How many pixels of the original, a multiple of `step`, make how many of the crop."""
        target = min(self.config.size, max(1, round(length * scale)))
        steps = max(1, round(target / scale / step))
        return step * min(steps, length // step), target

    def _is_varied(self, target: Labels) -> bool:
        if target.dtype in (np.uint8, np.uint16) and self.ignore_index >= 0:  # several times faster than sorting
            counts = np.bincount(target.ravel(), minlength=self.ignore_index + 1)
            counts[self.ignore_index] = 0
        else:
            counts = np.unique(target[target != self.ignore_index], return_counts=True)[1]
        return bool(np.count_nonzero(counts) > 1 and counts.max() < (self.config.cat_max_ratio or 1.0) * counts.sum())

    def apply(
        self, augmentation: Augmentation, pixels: NDArray[np.uint8], label: Labels
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Augments one sample as it was drawn; `pixels` are (H, W, 3), or as small as `crop.reduction` allows."""
        size, (height, width) = self.config.size, augmentation.crop.shape
        colours = crop_image(pixels, label.shape, augmentation.crop)
        target = label_tensor(crop_label(label, augmentation.crop), self.ignore_index)
        if augmentation.flip:
            colours, target = colours.flip(2), target.flip(1)
        if augmentation.matrix is not None:
            distort(colours, augmentation.matrix)
        if (height, width) == (size, size):
            return colours, target
        image = self.padding[:, None, None].repeat(1, size, size)
        image[:, :height, :width] = colours
        return image, F.pad(target, (0, size - width, 0, size - height), value=self.ignore_index)


def crop_image(pixels: NDArray[np.uint8], full: tuple[int, ...], crop: Crop) -> torch.Tensor:
    """The crop of an image, resampled (bilinear, antialiased): uint8 (3, *crop.shape).

    Args:
        pixels: (H, W, 3), at its full size or decoded at 1 / crop.reduction.
        full: height and width of the full size.
        crop: which part.
    """
    step = 1 if pixels.shape[:2] == tuple(full) else crop.reduction
    top, left, height, width = (edge // step for edge in (crop.top, crop.left, crop.height, crop.width))
    part = pixels[None, top : top + height, left : left + width].copy()  # mapped pixels are read-only
    # Channels-last, the batch's stride included, is where torch resamples bytes several times as fast as PIL.
    resampled = torch.from_numpy(part).permute(0, 3, 1, 2)
    if (height, width) != crop.shape:
        resampled = F.interpolate(resampled, size=crop.shape, mode="bilinear", antialias=True)
    return resampled[0].contiguous()


def crop_label(label: Labels, crop: Crop, stride: int = 1) -> Labels:
    """The same crop of the label map, nearest pixel; with `stride`, every so many rows and columns of it."""
    rows, columns = (
        start + ((np.arange(0, length, stride) + 0.5) * (extent / length)).astype(np.intp)
        for start, extent, length in zip((crop.top, crop.left), (crop.height, crop.width), crop.shape, strict=True)
    )
    return label.take(rows, axis=0).take(columns, axis=1)


def label_tensor(label: Labels, ignore_index: int = 255) -> torch.Tensor:
    """The label map as uint8 if it is and the ignore index fits, otherwise as int64."""
    is_small = label.dtype == np.uint8 and 0 <= ignore_index <= 255
    return torch.from_numpy(label.copy() if is_small else label.astype(np.int64))


def draw_colours(rng: Rng) -> Matrix | None:
    """One random colour distortion as a (3, 4) matrix for (R, G, B, 1) in 0..255; None is no change."""
    brightness, contrast, saturation, hue = rng.random(4) < 0.5
    if not (brightness or contrast or saturation or hue):
        return None
    gain = rng.uniform(0.5, 1.5) if contrast else 1.0
    offset = np.full((3, 1), rng.uniform(-32, 32) if brightness else 0.0)
    matrix = np.eye(3)
    if saturation:
        amount = rng.uniform(0.5, 1.5)
        matrix = amount * matrix + (1 - amount) * np.tile(LUMA, (3, 1))
    if hue:
        angle = np.deg2rad(rng.uniform(-MAX_HUE_DEGREES, MAX_HUE_DEGREES))
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix = np.linalg.inv(YIQ) @ rotation @ YIQ @ matrix
    return gain * np.hstack([matrix, offset])


def distort(colours: torch.Tensor, matrix: Matrix) -> None:
    """Replaces uint8 colours (3, H, W) by matrix (3, 4) @ (R, G, B, 1), rounded and clipped."""
    weight, bias = torch.from_numpy(matrix.astype(np.float32)).split([3, 1], dim=1)
    for band in colours.split(BAND_ROWS, dim=1):
        product = torch.addmm(bias, weight, band.reshape(3, -1).float())
        band.copy_(product.round_().clamp_(0, 255).view(band.shape))
