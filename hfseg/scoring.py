"""The final scores of a run: both splits once, with intervals, confidence and the data set's own categories."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import datasets
import numpy as np
from numpy.typing import NDArray

from hfseg.config import RunConfig
from hfseg.data import eval_set
from hfseg.data.cityscapes import CATEGORIES
from hfseg.errors import UserError
from hfseg.metrics import SegMetrics
from hfseg.scores import best_constant_mean_iou, mean_defined, none_if_nan
from hfseg.trainer import SegTrainer

Split: TypeAlias = datasets.Dataset | datasets.IterableDataset


@dataclass
class FinalScores:
    """What `evaluate` found.

    Attributes:
        metrics: flat, with each split's prefix, for `metrics.json`.
        per_class: for each split, a row for each class.
        counts: the integers behind them, for `counts.npz`, see `hfseg.counts.write_counts`.
        temperature: fitted on validation; None where `eval.calibration` is off, or where it does not help on images
            that it was not fitted to.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    per_class: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    counts: dict[str, NDArray[Any]] = field(default_factory=dict)
    temperature: float | None = None


def evaluate(trainer: SegTrainer, config: RunConfig, validation: Split, test: Split) -> FinalScores:
    """Scores both splits, at the labels' native size: validation first, where the temperature comes from.

    Raises:
        UserError: all labels of a split are void.
    """
    scores = FinalScores(counts={"classes": np.array(trainer.labels.names)})
    for prefix, split in {"eval": validation, "test": test}.items():
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
            what = "validation" if prefix == "eval" else prefix
            raise UserError(
                f"No pixel of the {what} split has a label that counts: there is nothing to score. --check lists what "
                "is wrong with the data."
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
    return scores


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
