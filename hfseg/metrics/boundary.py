"""How good the contours are: Boundary IoU (Cheng et al., 2021) and scores in a band around the labels' contours."""

import math

import torch
import torch.nn.functional as F

from hfseg.metrics.confusion import count_confusion, is_ignored

BANDS = (1, 3, 5, 9)  # pixels on each side of the labels' contours
DILATION_RATIO = 0.02  # of the image's diagonal; the paper's value


def boundary_areas(
    predictions: torch.Tensor, references: torch.Tensor, num_labels: int, ignore_index: int
) -> torch.Tensor:
    """Hits, labelled and predicted pixels per class, near the contours only; on the device of its input.

    Boundary IoU compares, for each class, the pixels of the mask that lie within d of its contour, the image's border
    included, in the labels and in the prediction; d is 2 % of the diagonal, at least 1. Predictions under ignored
    labels count as ignored, before the contours are taken: a perfect prediction scores 1.

    A band of w pixels holds the valid pixels with another label, or ignored ones, at most w pixels away (in rows and
    columns). Only the labels make the band; the border of the image is none of their contours.

    Args:
        predictions: class ids (B, H, W) of 0..K-1, any signed integer type or uint8.
        references: labels (B, H, W) of 0..K-1 or `ignore_index`, on the same device.
        num_labels: K.
        ignore_index: label of pixels that do not count.

    Returns:
        int64 (B, 1 + 4, 3, K): first for Boundary IoU, then for bands of 1, 3, 5 and 9 pixels.
    """
    ignored = is_ignored(references, ignore_index)
    labels = references.to(torch.int32).masked_fill(ignored, num_labels)  # 0..K
    predicted = predictions.to(torch.int32).masked_fill(ignored, num_labels)
    radius = max(1, round(DILATION_RATIO * math.hypot(*labels.shape[1:])))
    near_label = ~_is_uniform(labels, radius, border_counts=True)
    near_predicted = ~_is_uniform(predicted, radius, border_counts=True)
    hit = near_label & near_predicted & (labels == predicted)
    sets = [
        torch.stack(
            [_histogram(labels, hit, num_labels), _histogram(labels, near_label, num_labels),
             _histogram(predicted, near_predicted, num_labels)], dim=1,
        )
    ]  # fmt: skip
    for width in BANDS:
        band = labels.masked_fill(_is_uniform(labels, width, border_counts=False), num_labels)
        confusion = count_confusion(predicted.masked_fill(ignored, 0), band, num_labels, num_labels)[:, :-1]
        hits = confusion.diagonal(dim1=1, dim2=2)
        sets.append(torch.stack([hits, confusion.sum(2), confusion.sum(1)], dim=1))
    return torch.stack(sets, dim=1)


def _is_uniform(ids: torch.Tensor, radius: int, border_counts: bool) -> torch.Tensor:
    """Whether all ids within `radius` rows and columns are the same.

    This is the erosion of all classes' masks at once: a pixel survives the erosion of its own mask, by a square,
    exactly where the largest and the smallest id around it are equal.
    """
    lowest, highest = -1, torch.iinfo(ids.dtype).max
    largest = _window_max(ids, radius, outside=lowest)
    smallest = -_window_max(-ids, radius, outside=-lowest if border_counts else -highest)
    return largest == smallest


def _window_max(ids: torch.Tensor, radius: int, outside: int) -> torch.Tensor:
    """Largest id within `radius` rows and columns, (B, H, W): a max-pool with stride 1.

    A window twice as wide is the larger one of two windows, so the work grows with the logarithm of the radius;
    `max_pool2d` takes time in proportion to it (46 pixels on Cityscapes) and knows no integers on a GPU.
    """
    for dim, padding in ((1, (0, 0, radius, radius)), (2, (radius, radius, 0, 0))):
        size, width = ids.shape[dim], 1
        ids = F.pad(ids, padding, value=outside)
        while ids.shape[dim] > size:
            step = min(width, ids.shape[dim] - size)
            kept = ids.shape[dim] - step
            ids = torch.maximum(ids.narrow(dim, 0, kept), ids.narrow(dim, step, kept))
            width += step
    return ids


def _histogram(ids: torch.Tensor, chosen: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Chosen pixels per image and class (B, K); ids are 0..K, and K is not counted."""
    num_cells = num_labels + 1
    offsets = torch.arange(len(ids), dtype=ids.dtype, device=ids.device).view(-1, 1, 1) * num_cells
    index = ids.masked_fill(~chosen, num_labels) + offsets
    return torch.bincount(index.flatten(), minlength=len(ids) * num_cells).view(-1, num_cells)[:, :-1]
