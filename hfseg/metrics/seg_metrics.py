"""Segmentation metrics: exact integers, counted image by image, and the arithmetic on them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import EvalPrediction

from hfseg.errors import UserError, shown
from hfseg.html import html_table
from hfseg.labels import LabelSet
from hfseg.metrics.audit import Convention, audit_conventions
from hfseg.metrics.boundary import BANDS, boundary_areas
from hfseg.metrics.calibration import Calibration, CalibrationCounter
from hfseg.metrics.class_ids import upsampled_class_ids, with_background
from hfseg.metrics.confusion import count_confusion
from hfseg.metrics.id_maps import Mask, as_array, as_batch, as_counts, check_ids
from hfseg.metrics.intervals import Interval, PairedTest, Score, bootstrap_interval, paired_test
from hfseg.metrics.scores import (
    Counts,
    areas_from_confusion,
    category_iou,
    class_iou,
    compute_from_confusion,
    flat_metrics,
    mean_defined,
    mean_iou,
    none_if_nan,
    without_ignored,
)


class SegMetrics:
    """Mean IoU and what goes with it: exact and streaming.

    The convention is that of mmseg, cityscapesScripts and `evaluate`: one confusion matrix over all valid pixels of
    the data set, IoU per class, mean over the classes whose union is not empty. Not a mean over images, not resized
    labels, no class left out, except one that is the ignore index, as in torchmetrics: it has no score, and to predict
    it is a mistake.

    For intervals and for scores per image, three numbers per image and class are kept (hits, labelled and predicted
    pixels): 24 bytes, so 2.3 MB for 5,000 images of 19 classes.

    Use it by itself (`update`, `compute`, `merge`, `reset`) or as a Trainer's `compute_metrics`, with
    `batch_eval_metrics=True` for memory that does not grow with the data set.

    Args:
        labels: a LabelSet, or the number of classes (then named "0", "1", ...).
        ignore_index: overrides the LabelSet's, whose default is 255. It may be a class.
        per_image: also keep one K x K matrix per image, in the order of the updates, in `per_image_confusion`.
        boundary: also score contours, by Boundary IoU and in bands around the labels' contours. It takes 0.02 s for an
            image of 512 x 512 and 0.25 s for one of 1024 x 2048 on one CPU core.
        calibration: also score confidence, by the expected calibration error over 15 bins (Guo et al., 2017,
            arXiv:1706.04599) and the Brier score over all classes (Brier, 1950). It takes logits: `update_logits`, a
            SegTrainer, or a stock Trainer that keeps them.
        temperature: score confidence at this temperature, too, instead of counting for `fit_temperature`;
            implies `calibration`.

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
        calibration: bool = False,
        temperature: float | None = None,
    ) -> None:
        if isinstance(labels, int):
            labels = LabelSet([str(index) for index in range(labels)], ignore_index)
        elif ignore_index is not None:
            labels = LabelSet(labels.names, ignore_index, labels.palette)
        self.labels = labels
        self.per_image = per_image
        self.boundary = boundary
        self.temperature, self.calibration = temperature, calibration or temperature is not None
        self.reset()

    def __repr__(self) -> str:
        return f"SegMetrics({self.labels.num_labels} classes, {self._summary()})"

    def _repr_html_(self) -> str:
        title, scores = f"{self.labels.num_labels} classes, {self._summary()}", ("iou", "accuracy", "dice")
        rows = [
            [row["name"], *("-" if row[key] is None else f"{row[key]:.4f}" for key in scores), f"{row['pixels']:,}"]
            for row in self.per_class()
        ]
        return html_table(title, ["class", "IoU", "accuracy", "Dice", "pixels"], rows, self.labels.palette or ())

    def _summary(self) -> str:
        areas = self.image_areas
        return f"{len(areas)} images, mean IoU {bootstrap_interval(areas)}" if len(areas) else "nothing counted yet"

    def reset(self) -> None:
        """Forgets everything counted so far."""
        self._is_finished = False
        num_labels = self.labels.num_labels
        self.confusion: Counts = np.zeros((num_labels, num_labels), dtype=np.int64)  # rows labels, columns predictions
        self.ignored: Counts = np.zeros(num_labels, dtype=np.int64)  # predictions under ignored labels
        self.per_image_confusion: list[Counts] = []
        self._image_areas: list[Counts] = [np.zeros((0, 3, num_labels), dtype=np.int64)]
        self._boundary_areas: list[Counts] = [np.zeros((0, 1 + len(BANDS), 3, num_labels), dtype=np.int64)]
        self.confidence = Calibration(self.temperature)  # all zero unless asked for
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
        predicted, labelled = as_batch(predictions, "predictions"), as_batch(references, "references")
        if predicted.shape != labelled.shape:
            raise UserError(
                f"Predictions have shape {tuple(predicted.shape)} and labels {tuple(labelled.shape)} (with a batch "
                "dimension first). Bring predictions to the label's size; never resize labels to score them."
            )
        self._count(predicted.to(labelled.device), labelled)

    def update_logits(self, logits: torch.Tensor | NDArray[np.floating], references: Mask) -> None:
        """Counts a batch from logits, upsampled bilinearly to the labels' size: classes, and confidence where asked.

        Args:
            logits: (B, K, h, w), or (B, 1, h, w) of a model with one output, see `with_background`.
            references: labels (B, H, W) of 0..K-1 or the ignore index.

        Raises:
            UserError: as `update`.
        """
        labelled = as_batch(references, "references")
        small = torch.as_tensor(logits).to(labelled.device)
        small = with_background(small) if small.ndim == 4 else small
        if small.ndim != 4 or small.shape[:2] != (len(labelled), self.labels.num_labels):
            raise UserError(f"Logits have shape {tuple(small.shape)} for labels {tuple(labelled.shape)}.")
        if not small.isfinite().all():
            raise UserError("The logits are NaN or infinite: they say no class. Has the model diverged, or fp16?")
        if not self.calibration:  # then nobody needs the values at full size
            self._count(upsampled_class_ids(small, *labelled.shape[-2:]), labelled)
            return
        small = small if small.dtype == torch.float64 else small.float()
        wide = torch.nn.functional.interpolate(small, size=tuple(labelled.shape[-2:]), mode="bilinear")
        self._count(wide.max(dim=1).indices, labelled, wide)

    def _count(self, predicted: torch.Tensor, labelled: torch.Tensor, logits: torch.Tensor | None = None) -> None:
        classes = self.labels.num_labels, self.labels.ignore_index
        predicted = check_ids(predicted, labelled, *classes)
        contours = boundary_areas(predicted, labelled, *classes) if self.boundary else None
        bins = slopes = None
        if self.calibration and logits is not None:
            counter = CalibrationCounter(self.labels.ignore_index, self.temperature)
            counter(logits, predicted, labelled.long())
            bins, slopes = counter.bins, counter.slopes
        self.update_counts(count_confusion(predicted, labelled, *classes), contours, bins, slopes)

    def update_counts(
        self,
        confusion: Mask,
        boundary: Mask | None = None,
        calibration: Mask | None = None,
        slopes: Mask | None = None,
    ) -> None:
        """Adds counts (B, K+1, K) as `count_confusion` makes them: last row ignored pixels.

        Args:
            confusion: the counts.
            boundary: counts near contours (B, 5, 3, K) as `boundary_areas` makes them, if `boundary` was asked for.
            calibration: `bins` of a `CalibrationCounter`, (B, V, 15, 4), if `calibration` was asked for.
            slopes: the same one's `slopes` (B, 17, 2), if a temperature is to be fitted.

        Raises:
            UserError: contours or confidences are asked for and not given.
        """
        if self.boundary and boundary is None:
            raise UserError("SegMetrics(boundary=True) needs counts near contours too, which `update` makes.")
        if self.calibration and calibration is None:
            raise UserError("SegMetrics(calibration=True) needs logits: use `update_logits` instead of `update`.")
        counts = as_counts(confusion)
        self.confusion += counts[:, :-1].sum(0)
        self.ignored += counts[:, -1].sum(0)
        self._image_areas.append(areas_from_confusion(counts[:, :-1]))
        if boundary is not None:
            self._boundary_areas.append(as_counts(boundary))
        if calibration is not None:
            self.confidence.add(as_counts(calibration), None if slopes is None else as_array(slopes))
        if self.per_image:
            self.per_image_confusion.extend(counts[:, :-1])

    @property
    def options(self) -> dict[str, Any]:
        """What is counted beside classes, as arguments of `hfseg.training.counting.count_images`."""
        return {"boundary": self.boundary, "calibration": self.calibration, "temperature": self.temperature}

    @property
    def num_ignored(self) -> int:
        """Ignored pixels."""
        return int(self.ignored.sum())

    @property
    def image_areas(self) -> Counts:
        """Hits, labelled and predicted pixels per class of each image, (N, 3, K), in the order of the updates.

        All zero for a class that is the ignore index.
        """
        return without_ignored(np.concatenate(self._image_areas), self.labels.ignore_index)

    @property
    def image_boundary_areas(self) -> Counts:
        """The same near contours, (N, 5, 3, K): for Boundary IoU, then in bands of 1, 3, 5 and 9 pixels."""
        return without_ignored(np.concatenate(self._boundary_areas), self.labels.ignore_index)

    def merge(self, other: "SegMetrics") -> None:
        """Adds what another instance has counted, for example in another process. Any order gives the same integers.

        Raises:
            UserError: the other one has other classes or scores others, or contours or confidences are counted in one
                of the two only.
        """
        for option, wanted in self.options.items():
            if other.options[option] != wanted:
                raise UserError(f"Cannot merge metrics with {option}={other.options[option]} into {option}={wanted}.")
        own, theirs = self.labels, other.labels
        if theirs.names != own.names:
            raise UserError(f"Cannot merge metrics over {shown(theirs.names)} into metrics over {shown(own.names)}.")
        if theirs.scored != own.scored:
            raise UserError(
                f"Cannot merge metrics with ignore_index={theirs.ignore_index} into ignore_index={own.ignore_index}: "
                "they score other classes."
            )
        self.confusion += other.confusion
        self.ignored += other.ignored
        self._image_areas.extend(other._image_areas)
        self._boundary_areas.extend(other._boundary_areas)
        self.confidence.merge(other.confidence)
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
            With `calibration`: `ece`, the mean over valid pixels of |accuracy - confidence| by bins of confidence, and
            `brier`, of sum_k (p_k - y_k)^2; with a temperature also `ece_calibrated` and `brier_calibrated`.
        """
        results = compute_from_confusion(self.confusion, self.labels.ignore_index)
        results |= {"num_ignored": self.num_ignored} | self._image_scores()
        if self.boundary:
            areas = self.image_boundary_areas.sum(0)
            results["boundary_iou"] = float(mean_iou(areas[0]))
            results |= {
                f"band_iou_{width}px": float(mean_iou(band)) for width, band in zip(BANDS, areas[1:], strict=True)
            }
            results["per_category_boundary_iou"] = class_iou(areas[0]).tolist()
        if self.calibration:
            results |= self.confidence.compute()
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
            UserError: a class without a group, unless it is ignored.
        """
        names = [self.labels.names[index] for index in self.labels.scored]
        missing = [name for name in names if name not in categories]
        if missing:
            raise UserError(f"Classes without a category: {', '.join(missing)}. Give one for each class.")
        groups = [categories[name] if name in names else None for name in self.labels.names]
        return category_iou(self.confusion, groups)

    def interval(self, score: Score = mean_iou) -> Interval:
        """The score's 95 % interval over images; see `bootstrap_interval` for its meaning and its limits."""
        return bootstrap_interval(self.image_areas, score)

    def compare(self, other: "SegMetrics", score: Score = mean_iou) -> PairedTest:
        """How much better the other model is on the same images, in the same order; see `paired_test`."""
        return paired_test(self.image_areas, other.image_areas, score)

    def fit_temperature(self) -> float:
        """The number that the logits, divided by it, have the least cross-entropy with (Guo et al., 2017).

        From every fifth pixel of every fifth row: the slope of the cross-entropy, added up at 17 temperatures, of
        which the root is interpolated; within 1/16..16. It needs `calibration=True`, and no second pass over the data.

        Raises:
            UserError: nothing was counted for it.
        """
        if not self.calibration:
            raise UserError("A temperature is fitted from confidences: use SegMetrics(calibration=True).")
        return self.confidence.fit_temperature()

    def temperature_helps(self) -> bool:
        """Whether `fit_temperature` on half of the images lowers the cross-entropy of the other half, both ways.

        Of a few images a temperature may say more about them than about the model. False with a single image, and
        where nothing was counted for it.
        """
        return self.confidence.temperature_helps()

    def audit(self) -> list[Convention]:
        """What `evaluate`, mmseg, cityscapesScripts, torchmetrics, smp and ultralytics would call "mean IoU" here."""
        areas = np.concatenate(self._image_areas)
        return audit_conventions(areas, self.confusion, self.ignored, self.labels.ignore_index)

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
            extra = (predictions.get(key) for key in ("boundary", "calibration", "slopes"))
            self.update_counts(predictions["confusion"], *extra)
            total, valid = torch.as_tensor(predictions["loss"]).double().sum(0).tolist()
            self.loss_total, self.loss_pixels = self.loss_total + total, self.loss_pixels + int(valid)
        else:
            predictions = predictions[0] if isinstance(predictions, tuple) else predictions
            (self.update_logits if predictions.ndim == 4 else self.update)(predictions, references)
        self._is_finished = compute_result
        return flat_metrics(self.compute(), self.labels.names) if compute_result else {}
