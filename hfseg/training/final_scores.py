"""The final scores of a run: both splits once, with intervals, confidence and the data set's own categories."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import datasets
import numpy as np
from numpy.typing import NDArray

from hfseg.config import RunConfig
from hfseg.data import CATEGORIES, eval_set
from hfseg.errors import UserError
from hfseg.metrics import SPLITS, SegMetrics, best_constant_mean_iou, flat_metrics, mean_defined, none_if_nan
from hfseg.training.trainer import SegTrainer

Split: TypeAlias = datasets.Dataset | datasets.IterableDataset


@dataclass
class FinalScores:
    """What `evaluate` found.

    Attributes:
        metrics: flat, with each split's prefix, for `metrics.json`.
        per_class: for each split, a row for each class.
        counts: the integers behind them, for `counts.npz`, see `hfseg.runs.counts.write_counts`.
        temperature: fitted on validation; None where `eval.calibration` is off, or where it does not help on images
            that it was not fitted to.
        failures: prefix -> why a split could not be scored; its scores are None then, and `metrics` has the reason
            under `test_error` or `eval_error`.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counts: dict[str, NDArray[Any]] = field(default_factory=dict)
    temperature: float | None = None
    failures: dict[str, UserError] = field(default_factory=dict)

    def raise_failures(self) -> None:
        """Raises UserError where a split could not be scored: what could be is in the run's folder by then."""
        for prefix, error in self.failures.items():
            raise UserError(
                f"The {SPLITS[prefix]} split could not be scored; the model and the other scores are written. {error} "
                "Then score the model with --eval-only."
            ) from error


def evaluate(trainer: SegTrainer, config: RunConfig, validation: Split, test: Split) -> FinalScores:
    """Scores both splits, at the labels' native size: validation first, where the temperature comes from.

    What one split has wrong does not take the other's scores: see `FinalScores.failures`.

    Raises:
        UserError: neither split can be scored, or all of the labels are void.
    """
    scores = FinalScores(counts={"classes": np.array(trainer.labels.names)})
    for prefix, split in {"eval": validation, "test": test}.items():
        try:
            score_split(scores, trainer, config, prefix, split)
        except UserError as error:
            if scores.failures:
                raise
            scores.failures[prefix] = error
            scores.metrics |= _undefined(trainer, config, prefix) | {f"{prefix}_error": str(error)}
            scores.per_class[prefix] = _nothing_counted(trainer, config).per_class()
    return scores


def score_split(scores: FinalScores, trainer: SegTrainer, config: RunConfig, prefix: str, split: Split) -> None:
    """Adds the scores of one split.

    Raises:
        UserError: it cannot be read, or all of its labels are void.
    """
    counts = SegMetrics(
        trainer.labels,
        boundary=config.eval.boundary,
        calibration=config.eval.calibration,
        temperature=scores.temperature,
    )
    trainer.compute_metrics = counts
    samples = eval_set(split, trainer.eval_dataset.processor, native=trainer.eval_dataset.native)
    found = trainer.evaluate(samples, metric_key_prefix=prefix)
    if not counts.confusion.any():
        raise UserError(
            f"No pixel of the {SPLITS[prefix]} split has a label that counts: there is nothing to score. --check "
            "lists what is wrong with the data."
        )
    if config.eval.calibration and prefix == "eval":
        scores.temperature = counts.fit_temperature() if counts.temperature_helps() else None
        found["eval_temperature"] = scores.temperature
    # the names of a stream are known to the one process that has read it
    names = split["name"][:] if isinstance(split, datasets.Dataset) else trainer.scored_names
    found |= {f"{prefix}_{key}": value for key, value in _extra_scores(counts, config, names).items()}
    scores.metrics |= found
    scores.per_class[prefix] = counts.per_class()
    scores.counts |= {f"{prefix}_{key}": value for key, value in _arrays(counts, names).items()}


def _undefined(trainer: SegTrainer, config: RunConfig, prefix: str) -> dict[str, None]:
    """Every score of a split as undefined."""
    keys = flat_metrics(_nothing_counted(trainer, config).compute(), trainer.labels.names)
    return {f"{prefix}_{key}": None for key in keys}


def _nothing_counted(trainer: SegTrainer, config: RunConfig) -> SegMetrics:
    return SegMetrics(trainer.labels, boundary=config.eval.boundary)


def _extra_scores(counts: SegMetrics, config: RunConfig, names: list[str]) -> Mapping[str, Any]:
    """What `SegMetrics` leaves to a run."""
    interval = counts.interval()
    constant, constant_score = best_constant_mean_iou(counts.confusion.sum(1))
    worst = counts.compute()["worst_image"]
    scores = {
        "num_images": len(counts.image_areas),
        "constant_mean_iou": constant_score,
        "constant_class": counts.labels.names[constant],
        "mean_iou_low": none_if_nan(interval.low),
        "mean_iou_high": none_if_nan(interval.high),
    }
    if worst is not None:
        scores["worst_image_name"] = names[worst]
    if config.data.name in ("cityscapes", "synthetic_cityscapes"):
        categories = counts.category_iou(CATEGORIES)
        scores["category_iou"] = none_if_nan(float(mean_defined(np.array(list(categories.values())))))
        scores |= {f"category_iou_{name}": none_if_nan(value) for name, value in categories.items()}
    return scores


def _arrays(counts: SegMetrics, names: list[str]) -> dict[str, NDArray[Any]]:
    arrays = {"names": np.array(names, dtype=np.str_), "areas": counts.image_areas, "confusion": counts.confusion}
    if counts.boundary:
        arrays["boundary"] = counts.image_boundary_areas
    if counts.calibration:
        arrays["calibration"] = counts.confidence.bins
    return arrays
