"""Training augmentation of an image and its label map together: the SegFormer paper's recipe, composed.

Scale, crop and flip are one resampling of the pixels that survive; brightness, contrast, saturation and hue are one
3x3 matrix and an offset. So no pixel is touched that the crop does not keep.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hfseg.config import TransformsConfig

Rng = np.random.Generator
Box = tuple[int, int, int, int]  # top, left, height, width in the scaled image

CROP_ATTEMPTS = 10
LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
# RGB to YIQ (FCC NTSC): hue is an angle in the I-Q plane.
YIQ = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])


class TrainTransform:
    """Random scale, crop, flip and photometric distortion, then normalisation.

    The ranges are mmsegmentation's for SegFormer: the short side becomes `size` times a factor of `scale`; up to ten
    crops are tried until no class fills more than `cat_max_ratio` of it; brightness +-32, contrast and saturation
    0.5 to 1.5, hue +-18 degrees, each with probability 1/2. What a small image leaves empty is the mean colour in
    the image and the ignore index in the labels.

    Args:
        config: which parts are on.
        mean: of normalisation, per channel, for images in 0..1.
        std: likewise.
        ignore_index: label of padding.
    """

    def __init__(
        self, config: TransformsConfig, mean: Sequence[float], std: Sequence[float], ignore_index: int = 255
    ) -> None:
        self.config = config
        self.mean = np.asarray(mean, dtype=np.float32) * 255
        self.std = np.asarray(std, dtype=np.float32) * 255
        self.ignore_index = ignore_index

    def __call__(self, image: Image.Image, label: NDArray[np.integer], rng: Rng) -> tuple[torch.Tensor, torch.Tensor]:
        """Augments one sample.

        Args:
            image: RGB.
            label: (H, W) class ids.
            rng: the only source of randomness.

        Returns:
            Normalised float32 (3, size, size) and int64 labels (size, size).
        """
        factor = rng.uniform(*self.config.scale) if self.config.scale else 1.0
        scale = factor * self.config.size / min(image.size)
        box = self._choose_box(label, scale, rng)
        pixels, target = crop_image(image, box, scale), crop_label(label, box, scale)
        if self.config.flip and rng.random() < 0.5:
            pixels, target = pixels[:, ::-1], target[:, ::-1]
        matrix, offset = photometric_matrix(rng) if self.config.photometric else (np.eye(3), np.zeros(3))
        return self._to_tensors(pixels, target, matrix.astype(np.float32), offset.astype(np.float32))

    def _choose_box(self, label: NDArray[np.integer], scale: float, rng: Rng) -> Box:
        size = self.config.size
        height, width = (max(1, round(side * scale)) for side in label.shape)
        for _ in range(CROP_ATTEMPTS):
            top = int(rng.integers(max(height - size, 0) + 1))
            left = int(rng.integers(max(width - size, 0) + 1))
            box = (top, left, min(size, height), min(size, width))
            if self.config.cat_max_ratio is None or self._is_varied(crop_label(label, box, scale)):
                break
        return box

    def _is_varied(self, target: NDArray[np.integer]) -> bool:
        counts = np.unique(target[target != self.ignore_index], return_counts=True)[1]
        return len(counts) > 1 and counts.max() / counts.sum() < (self.config.cat_max_ratio or 1.0)

    def _to_tensors(
        self,
        pixels: NDArray[np.uint8],
        target: NDArray[np.integer],
        matrix: NDArray[np.float32],
        offset: NDArray[np.float32],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        size, (height, width) = self.config.size, target.shape
        colours = pixels.astype(np.float32) @ matrix.T + offset
        np.clip(colours, 0, 255, out=colours)
        colours -= self.mean
        colours /= self.std
        image = np.zeros((size, size, 3), dtype=np.float32)  # 0 is the mean colour
        image[:height, :width] = colours
        labels = np.full((size, size), self.ignore_index, dtype=np.int64)
        labels[:height, :width] = target
        return torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(labels)


def crop_image(image: Image.Image, box: Box, scale: float) -> NDArray[np.uint8]:
    """The box of the image scaled by `scale`, resampled from the original (bilinear): (height, width, 3)."""
    top, left, height, width = box
    right = min((left + width) / scale, image.width)
    bottom = min((top + height) / scale, image.height)
    source = (min(left / scale, right - 1e-3), min(top / scale, bottom - 1e-3), right, bottom)
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR, box=source))


def crop_label(label: NDArray[np.integer], box: Box, scale: float) -> NDArray[np.integer]:
    """The same box of the label map, nearest pixel: (height, width)."""
    top, left, height, width = box
    rows = ((top + np.arange(height) + 0.5) / scale).astype(np.intp).clip(max=label.shape[0] - 1)
    columns = ((left + np.arange(width) + 0.5) / scale).astype(np.intp).clip(max=label.shape[1] - 1)
    return label[rows[:, None], columns[None, :]]


def photometric_matrix(rng: Rng) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One random colour distortion as (3, 3) matrix and (3) offset, for colours in 0..255."""
    brightness, contrast, saturation, hue = rng.random(4) < 0.5
    gain = rng.uniform(0.5, 1.5) if contrast else 1.0
    offset = np.full(3, rng.uniform(-32, 32) if brightness else 0.0)
    matrix = np.eye(3)
    if saturation:
        amount = rng.uniform(0.5, 1.5)
        matrix = amount * matrix + (1 - amount) * np.tile(LUMA, (3, 1))
    if hue:
        angle = np.deg2rad(rng.uniform(-18, 18))
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
        matrix = np.linalg.inv(YIQ) @ rotation @ YIQ @ matrix
    return gain * matrix, gain * offset
