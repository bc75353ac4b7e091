"""Segmentation metrics: exact integers, counted image by image, and the arithmetic on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

from hfseg.audit import Convention, audit_conventions
from hfseg.boundary import BANDS, boundary_areas
from hfseg.class_ids import upsampled_class_ids
from hfseg.confusion import count_confusion
from hfseg.errors import UserError
from hfseg.intervals import Interval, PairedTest, Score, bootstrap_interval, paired_test
from hfseg.labels import LabelSet
from hfseg.scores import (
    Counts,
    areas_from_confusion,
    category_iou,
    class_iou,
    compute_from_confusion,
    flat_metrics,
    mean_defined,
    mean_iou,
    none_if_nan,
)

Mask = torch.Tensor | np.ndarray


class SegMetrics:
    """Mean IoU and what goes with it: exact and streaming.

    The convention is that of mmseg, cityscapesScripts and `evaluate`: one confusion matrix over all valid pixels of
    the data set, IoU per class, mean over the classes whose union is not empty. Not a mean over images, not resized
    labels, no class left out.

    For intervals and for scores per image, three numbers per image and class are kept (hits, labelled and predicted
    pixels): 24 bytes, so 2.3 MB for 5,000 images of 19 classes.

    Use it by itself (`update`, `compute`, `merge`, `reset`) or as a Trainer's `compute_metrics`, with
    `batch_eval_metrics=True` for memory that does not grow with the data set.

    Args:
        labels: a LabelSet, or the number of classes (then named "0", "1", ...).
        ignore_index: overrides the LabelSet's; 255 by default.
        per_image: also keep one K x K matrix per image, in the order of the updates, in `per_image_confusion`.
        boundary: also score contours, by Boundary IoU and in bands around the labels' contours. It takes 0.02 s for an
            image of 512 x 512 and 0.25 s for one of 1024 x 2048 on one CPU core.

    Example:
        >>> import numpy as np
        >>> metrics = SegMetrics(2)
        >>> metrics.update(np.array([[0, 1, 1]]), np.array([[0, 1, 255]]))
        >>> metrics.compute()["mean_iou"]
        1.0
    """

    def __init__(
        self,
        labels: LabelSet | int,
        ignore_index: int | None = None,
        per_image: bool = False,
        boundary: bool = False,
    ) -> None:
        if isinstance(labels, int):
            labels = LabelSet([str(index) for index in range(labels)], 255 if ignore_index is None else ignore_index)
        elif ignore_index is not None:
            labels = LabelSet(labels.names, ignore_index, labels.palette)
        self.labels = labels
        self.per_image = per_image
        self.boundary = boundary
        self.reset()

    def reset(self) -> None:
        """Forgets everything counted so far."""
        self._is_finished = False
        num_labels = self.labels.num_labels
        self.confusion: Counts = np.zeros((num_labels, num_labels), dtype=np.int64)  # rows labels, columns predictions
        self.ignored: Counts = np.zeros(num_labels, dtype=np.int64)  # predictions under ignored labels
        self.per_image_confusion: list[Counts] = []
        self._image_areas: list[Counts] = [np.zeros((0, 3, num_labels), dtype=np.int64)]
        self._boundary_areas: list[Counts] = [np.zeros((0, 1 + len(BANDS), 3, num_labels), dtype=np.int64)]
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
        classes = self.labels.num_labels, self.labels.ignore_index
        contours = boundary_areas(predicted, labelled, *classes) if self.boundary else None
        self.update_counts(count_confusion(predicted, labelled, *classes), contours)

    def update_counts(self, confusion: Mask, boundary: Mask | None = None) -> None:
        """Adds counts (B, K+1, K) as `count_confusion` makes them: last row ignored pixels.

        Args:
            confusion: the counts.
            boundary: counts near contours (B, 5, 3, K) as `boundary_areas` makes them, if `boundary` was asked for.

        Raises:
            UserError: contours are asked for and not given.
        """
        if self.boundary and boundary is None:
            raise UserError("SegMetrics(boundary=True) needs counts near contours too, which `update` makes.")
        counts = _as_counts(confusion)
        self.confusion += counts[:, :-1].sum(0)
        self.ignored += counts[:, -1].sum(0)
        self._image_areas.append(areas_from_confusion(counts[:, :-1]))
        if boundary is not None:
            self._boundary_areas.append(_as_counts(boundary))
        if self.per_image:
            self.per_image_confusion.extend(counts[:, :-1])

    @property
    def num_ignored(self) -> int:
        """Ignored pixels."""
        return int(self.ignored.sum())

    @property
    def image_areas(self) -> Counts:
        """Hits, labelled and predicted pixels per class of each image, (N, 3, K), in the order of the updates."""
        return np.concatenate(self._image_areas)

    @property
    def image_boundary_areas(self) -> Counts:
        """The same near contours, (N, 5, 3, K): for Boundary IoU, then in bands of 1, 3, 5 and 9 pixels."""
        return np.concatenate(self._boundary_areas)

    def merge(self, other: "SegMetrics") -> None:
        """Adds what another instance has counted, for example in another process. Any order gives the same integers.

        Raises:
            UserError: the other one has other classes, or contours are counted in one of the two only.
        """
        if other.boundary != self.boundary:
            raise UserError(f"Cannot merge metrics with boundary={other.boundary} into boundary={self.boundary}.")
        if other.labels.names != self.labels.names:
            raise UserError(f"Cannot merge metrics over {other.labels.names} into metrics over {self.labels.names}.")
        self.confusion += other.confusion
        self.ignored += other.ignored
        self._image_areas.extend(other._image_areas)
        self._boundary_areas.extend(other._boundary_areas)
        self.per_image_confusion.extend(other.per_image_confusion)
        self.loss_total += other.loss_total
        self.loss_pixels += other.loss_pixels

    def compute(self) -> dict[str, Any]:
        """All metrics of what was counted so far; NaN where a value is not defined.

        Returns:
            `mean_iou` and `mean_dice` (mean over classes with a non-empty union), `mean_accuracy` (over classes with
            labelled pixels), `mean_precision` (over predicted classes), `pixel_accuracy`, `frequency_weighted_iou`;
            `per_category_iou`, `_accuracy`, `_dice`, `_precision` and `_recall` (lists of K, in class order; recall
            is accuracy); `num_pixels` (valid ones), `num_ignored`; `mean_image_iou` and `worst_image_iou` (of the mean
            IoU of each image with valid pixels) and `worst_image` (its number in the order of the updates, or None);
            `loss` (mean over valid pixels) where a SegTrainer counted it. With `boundary`: `boundary_iou`,
            `per_category_boundary_iou` and `band_iou_<w>px`, mean IoU within w pixels of a contour.
        """
        results = compute_from_confusion(self.confusion) | {"num_ignored": self.num_ignored} | self._image_scores()
        if self.boundary:
            areas = self.image_boundary_areas.sum(0)
            results["boundary_iou"] = float(mean_iou(areas[0]))
            results |= {
                f"band_iou_{width}px": float(mean_iou(band)) for width, band in zip(BANDS, areas[1:], strict=True)
            }
            results["per_category_boundary_iou"] = class_iou(areas[0]).tolist()
        if self.loss_pixels:
            results["loss"] = self.loss_total / self.loss_pixels
        return results

    def _image_scores(self) -> dict[str, float | int | None]:
        scores = mean_iou(self.image_areas)
        if not len(scores) or np.isnan(scores).all():
            return {"mean_image_iou": float("nan"), "worst_image_iou": float("nan"), "worst_image": None}
        worst = int(np.nanargmin(scores))
        mean = float(mean_defined(scores))
        return {"mean_image_iou": mean, "worst_image_iou": float(scores[worst]), "worst_image": worst}

    def per_class(self) -> list[dict[str, Any]]:
        """One row for each class: `name`, `iou`, `accuracy`, `dice`, `precision`, `recall` (None where undefined) and
        labelled `pixels`; with `boundary` also `boundary_iou`."""
        results = self.compute()
        keys = [key for key in results if key.startswith("per_category_")]
        rows = []
        for index, (name, pixels) in enumerate(zip(self.labels.names, self.confusion.sum(1).tolist(), strict=True)):
            scores = {key.removeprefix("per_category_"): none_if_nan(results[key][index]) for key in keys}
            rows.append({"name": name, **scores, "pixels": pixels})
        return rows

    def category_iou(self, categories: Mapping[str, str]) -> dict[str, float]:
        """IoU of groups of classes, such as Cityscapes' seven categories; mistakes inside a group do not count.

        Args:
            categories: the group of each class name.

        Raises:
            UserError: a class without a group.
        """
        missing = [name for name in self.labels.names if name not in categories]
        if missing:
            raise UserError(f"Classes without a category: {', '.join(missing)}. Give one for each class.")
        return category_iou(self.confusion, [categories[name] for name in self.labels.names])

    def interval(self, score: Score = mean_iou) -> Interval:
        """The score's 95 % interval over images; see `bootstrap_interval` for its meaning and its limits."""
        return bootstrap_interval(self.image_areas, score)

    def compare(self, other: "SegMetrics", score: Score = mean_iou) -> PairedTest:
        """How much better the other model is on the same images, in the same order; see `paired_test`."""
        return paired_test(self.image_areas, other.image_areas, score)

    def audit(self) -> list[Convention]:
        """What `evaluate`, mmseg, cityscapesScripts, torchmetrics, smp and ultralytics would call "mean IoU" here."""
        return audit_conventions(self.image_areas, self.confusion, self.ignored)

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
            self.update_counts(predictions["confusion"], predictions.get("boundary"))
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
        if not self._is_in_range(predicted):
            predicted = predicted.masked_fill(ignored, 0)
            self._check_range(predicted, "prediction")
        return predicted

    def _is_in_range(self, ids: torch.Tensor) -> bool:
        if not ids.numel():
            return True
        low, high = ids.aminmax()  # one pass; comparing each id would take four
        return int(low) >= 0 and int(high) < self.labels.num_labels

    def _check_range(self, ids: torch.Tensor, what: str) -> None:
        if not self._is_in_range(ids):
            outside = (ids < 0) | (ids >= self.labels.num_labels)
            image = int(outside.nonzero()[0, 0])
            values = sorted(set(ids[outside].tolist()))[:5]
            raise UserError(
                f"{what.capitalize()} ids {values} in image {image} of the batch: there are {self.labels.num_labels} "
                f"classes (0..{self.labels.num_labels - 1}) and the ignore index is {self.labels.ignore_index}."
            )


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


def _as_counts(counts: Mask) -> Counts:
    return np.asarray(torch.as_tensor(counts).cpu(), dtype=np.int64)


def _class_ids(predictions: Any, references: Mask) -> Mask:
    """Class ids from a stock Trainer's predictions: logits are upsampled to the labels' size, ids are left alone."""
    if isinstance(predictions, tuple):
        predictions = predictions[0]
    predictions = torch.as_tensor(predictions)
    if predictions.ndim == 3:
        return predictions
    return upsampled_class_ids(predictions, *references.shape[-2:])
