"""Segmentation metrics as arithmetic on one confusion matrix of exact integers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EvalPrediction

from hfseg.confusion import count_confusion
from hfseg.errors import UserError
from hfseg.labels import LabelSet

Mask = torch.Tensor | np.ndarray
Counts = NDArray[np.int64]


class SegMetrics:
    """Mean IoU and what goes with it: exact, streaming, O(K^2) memory.

    The convention is that of mmseg, cityscapesScripts and `evaluate`: one confusion matrix over all valid pixels of
    the data set, IoU per class, mean over the classes whose union is not empty. Not a mean over images, not resized
    labels, no class left out.

    Use it by itself (`update`, `compute`, `merge`, `reset`) or as a Trainer's `compute_metrics`, with
    `batch_eval_metrics=True` for memory that does not grow with the data set.

    Args:
        labels: a LabelSet, or the number of classes (then named "0", "1", ...).
        ignore_index: overrides the LabelSet's; 255 by default.
        per_image: also keep one K x K matrix per image, in the order of the updates, in `per_image_confusion`.

    Example:
        >>> import numpy as np
        >>> metrics = SegMetrics(2)
        >>> metrics.update(np.array([[0, 1, 1]]), np.array([[0, 1, 255]]))
        >>> metrics.compute()["mean_iou"]
        1.0
    """

    def __init__(self, labels: LabelSet | int, ignore_index: int | None = None, per_image: bool = False) -> None:
        if isinstance(labels, int):
            labels = LabelSet([str(index) for index in range(labels)], 255 if ignore_index is None else ignore_index)
        elif ignore_index is not None:
            labels = LabelSet(labels.names, ignore_index, labels.palette)
        self.labels = labels
        self.per_image = per_image
        self.reset()

    def reset(self) -> None:
        """Forgets everything counted so far."""
        self._is_finished = False
        num_labels = self.labels.num_labels
        self.confusion: Counts = np.zeros((num_labels, num_labels), dtype=np.int64)  # rows labels, columns predictions
        self.num_ignored = 0
        self.per_image_confusion: list[Counts] = []
        self.loss_total, self.loss_pixels = 0.0, 0

    def update(self, predictions: Mask | Sequence[Mask], references: Mask | Sequence[Mask]) -> None:
        """Counts one image, one batch, or a list of images of different sizes.

        Args:
            predictions: class ids of 0..K-1, (H, W) or (B, H, W) or a list of (H, W); numpy or torch, any device, any
                integer type. Not looked at where the label is ignored.
            references: labels of 0..K-1 or the ignore index, of the same shapes.

        Raises:
            UserError: shapes that differ, a type that is not integer, or an id outside the classes; names the image.
        """
        if not (isinstance(predictions, Mask) and isinstance(references, Mask)):
            if len(predictions) != len(references):
                raise UserError(f"Got {len(predictions)} predictions for {len(references)} label maps.")
            for prediction, reference in zip(predictions, references, strict=True):
                self.update(prediction, reference)
            return
        predicted, labelled = _as_batch(predictions, "predictions"), _as_batch(references, "references")
        if predicted.shape != labelled.shape:
            raise UserError(
                f"Predictions have shape {tuple(predicted.shape)} and labels {tuple(labelled.shape)} (with a batch "
                "dimension first). Bring predictions to the label's size; never resize labels to score them."
            )
        predicted = self._checked(predicted.to(labelled.device), labelled)
        self.update_counts(count_confusion(predicted, labelled, self.labels.num_labels, self.labels.ignore_index))

    def update_counts(self, confusion: Mask) -> None:
        """Adds counts (B, K+1, K) as `count_confusion` makes them: last row ignored pixels."""
        counts = np.asarray(torch.as_tensor(confusion).cpu(), dtype=np.int64)
        self.confusion += counts[:, :-1].sum(0)
        self.num_ignored += int(counts[:, -1].sum())
        if self.per_image:
            self.per_image_confusion.extend(counts[:, :-1])

    def merge(self, other: "SegMetrics") -> None:
        """Adds what another instance has counted, for example in another process. Any order gives the same integers.

        Raises:
            UserError: the other one has other classes.
        """
        if other.labels.names != self.labels.names:
            raise UserError(f"Cannot merge metrics over {other.labels.names} into metrics over {self.labels.names}.")
        self.confusion += other.confusion
        self.num_ignored += other.num_ignored
        self.per_image_confusion.extend(other.per_image_confusion)
        self.loss_total += other.loss_total
        self.loss_pixels += other.loss_pixels

    def compute(self) -> dict[str, Any]:
        """All metrics of what was counted so far; NaN where a value is not defined.

        Returns:
            `mean_iou` (mean over classes with a non-empty union), `mean_accuracy` (over classes with labelled pixels),
            `pixel_accuracy`, `per_category_iou` and `per_category_accuracy` (lists of K, in class order),
            `num_pixels` (valid ones), `num_ignored`; `loss` (mean over valid pixels) where a SegTrainer counted it.
        """
        results = compute_from_confusion(self.confusion) | {"num_ignored": self.num_ignored}
        if self.loss_pixels:
            results["loss"] = self.loss_total / self.loss_pixels
        return results

    def per_class(self) -> list[dict[str, Any]]:
        """One row for each class: `name`, `iou` and `accuracy` (None where undefined), labelled `pixels`."""
        results = self.compute()
        columns = zip(
            self.labels.names,
            results["per_category_iou"],
            results["per_category_accuracy"],
            self.confusion.sum(1).tolist(),
            strict=True,
        )
        return [
            {"name": name, "iou": _none_if_nan(iou), "accuracy": _none_if_nan(accuracy), "pixels": pixels}
            for name, iou, accuracy, pixels in columns
        ]

    def __call__(self, eval_prediction: EvalPrediction, compute_result: bool = True) -> dict[str, float | None]:
        """A Trainer's `compute_metrics`, in one call or, with `batch_eval_metrics=True`, batch by batch.

        Takes SegTrainer's counts, class ids (B, H, W), or logits (B, K, h, w) of any model under a stock Trainer,
        which are upsampled to the labels' size first.

        What was counted stays readable afterwards; the next evaluation starts from zero.

        Returns:
            Flat numbers for a log: the scalars of `compute`, and `iou_<class>`; None where undefined. Empty until the
            last batch.
        """
        if self._is_finished:
            self.reset()
        predictions, references = eval_prediction.predictions, eval_prediction.label_ids
        if isinstance(predictions, Mapping):
            self.update_counts(predictions["confusion"])
            total, valid = torch.as_tensor(predictions["loss"]).double().sum(0).tolist()
            self.loss_total, self.loss_pixels = self.loss_total + total, self.loss_pixels + int(valid)
        else:
            self.update(_class_ids(predictions, references), references)
        self._is_finished = compute_result
        return flat_metrics(self.compute(), self.labels.names) if compute_result else {}

    def _checked(self, predicted: torch.Tensor, labelled: torch.Tensor) -> torch.Tensor:
        """Raises on ids outside the classes; returns predictions that are valid under ignored labels too."""
        ignored = labelled == self.labels.ignore_index
        self._check_range(labelled.masked_fill(ignored, 0), "label")
        if predicted.numel() and not 0 <= int(predicted.min()) <= int(predicted.max()) < self.labels.num_labels:
            predicted = predicted.masked_fill(ignored, 0)
            self._check_range(predicted, "prediction")
        return predicted

    def _check_range(self, ids: torch.Tensor, what: str) -> None:
        outside = (ids < 0) | (ids >= self.labels.num_labels)
        if outside.any():
            image = int(outside.nonzero()[0, 0])
            values = sorted(set(ids[outside].tolist()))[:5]
            raise UserError(
                f"{what.capitalize()} ids {values} in image {image} of the batch: there are {self.labels.num_labels} "
                f"classes (0..{self.labels.num_labels - 1}) and the ignore index is {self.labels.ignore_index}."
            )


def compute_from_confusion(confusion: Counts) -> dict[str, Any]:
    """The metrics of one confusion matrix (K, K), rows labels and columns predictions; see `SegMetrics.compute`."""
    hits = np.diag(confusion).astype(np.float64)
    labelled, predicted = confusion.sum(1), confusion.sum(0)
    with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: the class occurs nowhere
        iou = hits / (labelled + predicted - hits)
        accuracy = hits / labelled
        pixel_accuracy = hits.sum() / confusion.sum()
    return {
        "mean_iou": _mean_defined(iou),
        "mean_accuracy": _mean_defined(accuracy),
        "pixel_accuracy": float(pixel_accuracy),
        "per_category_iou": iou.tolist(),
        "per_category_accuracy": accuracy.tolist(),
        "num_pixels": int(confusion.sum()),
    }


def best_constant_mean_iou(labelled: Iterable[int]) -> tuple[int, float]:
    """The class that scores best when it is predicted everywhere, and its mean IoU: what any model has to beat.

    Args:
        labelled: labelled pixels per class.
    """
    counts = np.asarray(list(labelled), dtype=np.int64)
    scores = [
        compute_from_confusion(np.diag(counts) @ np.eye(len(counts), dtype=np.int64)[[constant] * len(counts)])
        for constant in range(len(counts))
    ]
    best = int(np.nanargmax([score["mean_iou"] for score in scores]))
    return best, scores[best]["mean_iou"]


def metric_key(name: str) -> str:
    """A class name as part of a key: everything that is not alphanumeric becomes `_`."""
    return re.sub(r"[^0-9A-Za-z]", "_", name)


def flat_metrics(results: Mapping[str, Any], names: Sequence[str]) -> dict[str, float | None]:
    """Numbers only, `iou_<class>` for each class, None where undefined: JSON has no NaN."""
    flat = {key: value for key, value in results.items() if not isinstance(value, list)}
    flat |= {f"iou_{metric_key(name)}": iou for name, iou in zip(names, results["per_category_iou"], strict=True)}
    return {key: _none_if_nan(value) for key, value in flat.items()}


def _none_if_nan(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _mean_defined(values: NDArray[np.float64]) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _as_batch(mask: Mask, what: str) -> torch.Tensor:
    if isinstance(mask, np.ndarray) and mask.dtype.kind == "u" and mask.dtype.itemsize > 1:
        mask = mask.astype(np.int64)  # torch has next to no arithmetic for uint16 to uint64
    if isinstance(mask, np.ndarray) and not mask.flags.writeable:
        mask = mask.copy()  # as PIL's arrays are; torch warns of them
    tensor = torch.as_tensor(mask)
    if tensor.ndim not in (2, 3) or tensor.is_floating_point() or tensor.is_complex():
        raise UserError(
            f"{what} must be integer class ids of shape (H, W) or (B, H, W); got {tensor.dtype} of shape "
            f"{tuple(tensor.shape)}. From logits take `argmax(dim=1)` at the labels' size."
        )
    if tensor.dtype in (torch.bool, torch.uint16, torch.uint32, torch.uint64):
        tensor = tensor.to(torch.int64)
    return tensor if tensor.ndim == 3 else tensor.unsqueeze(0)


def _class_ids(predictions: Any, references: Mask) -> Mask:
    """Class ids from a stock Trainer's predictions: logits are upsampled to the labels' size, ids are left alone."""
    if isinstance(predictions, tuple):
        predictions = predictions[0]
    predictions = torch.as_tensor(predictions)
    if predictions.ndim == 3:
        return predictions
    logits = torch.nn.functional.interpolate(
        predictions.float(), size=tuple(references.shape[-2:]), mode="bilinear", align_corners=False
    )
    return logits.argmax(dim=1)
