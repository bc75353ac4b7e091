"""What evaluation counts on each image, whatever the model and the mode: the integers behind every score."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hfseg.config import EvalConfig
from hfseg.errors import UserError
from hfseg.metrics import CalibrationCounter, boundary_areas, upsampled_class_ids
from hfseg.models import SegmentationLoss, augmented_scores, forward_logits, score_image, segmentation_loss


def count_images(
    network: nn.Module,
    inputs: Mapping[str, Any],
    evaluation: EvalConfig,
    ignore_index: int,
    boundary: bool = False,
    calibration: bool = False,
    temperature: float | None = None,
) -> dict[str, torch.Tensor]:
    """Scores the images of a batch at the native size of their labels, each by itself.

    Args:
        network: any semantic segmentation model in evaluation mode.
        inputs: a batch of `SegCollator`, on the network's device.
        evaluation: the mode.
        ignore_index: label of pixels that do not count.
        boundary: count near contours.
        calibration: count confidences, of merged views where there are several: what `predict` returns.
        temperature: see `CalibrationCounter`.

    Returns:
        `confusion` (B, K+1, K), `loss` (B, 2: sum and valid pixels); `boundary` (B, 5, 3, K), `calibration`
        (B, V, 15, 4) and `slopes` (B, 17, 2) where asked for.

    Raises:
        UserError: `boundary` in a mode that never holds an image's whole prediction; an image of a size that the model
            does not take; logits that are NaN or infinite.
    """
    if boundary and not evaluation.is_plain:
        raise UserError(
            "SegMetrics(boundary=True) needs an image's whole prediction, which eval.mode=slide, scales and flip "
            "never hold. Use eval.mode=resize or whole, without scales and flip."
        )
    images, sizes = inputs["pixel_values"], inputs["sizes"].tolist()
    labels = [padded[:height, :width] for padded, (height, width) in zip(inputs["labels"], sizes, strict=True)]
    counters = [CalibrationCounter(ignore_index, temperature) if calibration else None for _ in labels]
    counts: dict[str, list[torch.Tensor]] = {}
    if evaluation.is_plain:
        batches = [images] if isinstance(images, torch.Tensor) else images
        logits = (small[None] for batch in batches for small in forward_logits(network, batch))
        scores = []
        for small, label, counter in zip(logits, labels, counters, strict=True):
            scores.append(segmentation_loss(small, label[None], ignore_index, observe=counter))
            if boundary:
                counts.setdefault("boundary", []).append(_near_contours(small, label[None], ignore_index))
    else:
        each = images.split(1) if isinstance(images, torch.Tensor) else images
        scores = [
            score_image(augmented_scores(network, image, evaluation), label, ignore_index, counter)
            for image, label, counter in zip(each, labels, counters, strict=True)
        ]
    counts["confusion"] = [score.confusion for score in scores]
    counts["loss"] = [_loss_sums(score) for score in scores]
    if calibration:
        counts["calibration"] = [counter.bins for counter in counters if counter is not None]
        if temperature is None:
            counts["slopes"] = [counter.slopes for counter in counters if counter is not None]
    found = {key: torch.cat(values) for key, values in counts.items()}
    _check_finite(found["loss"][:, 0], inputs.get("names", []))
    return found


def _check_finite(losses: torch.Tensor, names: Sequence[str]) -> None:
    """Raises UserError for images of which the model says nothing: their argmax would count as class 0."""
    wrong = (~losses.isfinite()).nonzero().flatten().tolist()
    if wrong:
        name = names[wrong[0]] if names else f"number {wrong[0]} of the batch"
        raise UserError(
            f"The model's logits are NaN or infinite on the image {name}: there is nothing to score. Its weights may "
            "have diverged, or train.fp16 may be too narrow for it: use train.bf16."
        )


def _loss_sums(score: SegmentationLoss) -> torch.Tensor:
    return torch.stack([score.total.double(), score.num_valid.double()])[None]


def _near_contours(logits: torch.Tensor, labels: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """Counts near contours of one image. They need its whole id map."""
    ids = upsampled_class_ids(logits, *labels.shape[1:])
    return boundary_areas(ids, labels, logits.shape[1], ignore_index)
