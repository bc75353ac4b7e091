"""`SegMetrics`, and the arithmetic on its counts."""

from hfseg.metrics.boundary import boundary_areas
from hfseg.metrics.calibration import CalibrationCounter
from hfseg.metrics.caveats import WIDE, caveats, half_width, uncertain_choice, unscored, useless, verdict
from hfseg.metrics.class_ids import upsampled_class_ids, with_background
from hfseg.metrics.confusion import count_confusion
from hfseg.metrics.evaluate_metric import evaluate_metric
from hfseg.metrics.intervals import (
    Interval,
    PairedTest,
    Score,
    bootstrap_interval,
    paired_test,
    resamples,
    weighted_sums,
)
from hfseg.metrics.names import MAIN_SCORES, METRIC_NAMES, OTHER_SCORES, REQUESTED_SCORES, metric_name, score_keys
from hfseg.metrics.scores import (
    SPLITS,
    Counts,
    Scores,
    best_constant_mean_iou,
    class_iou,
    class_keys,
    compute_from_confusion,
    flat_metrics,
    mean_defined,
    mean_iou,
    none_if_nan,
    with_interval,
)
from hfseg.metrics.seg_metrics import SegMetrics

__all__ = [
    "MAIN_SCORES",
    "METRIC_NAMES",
    "OTHER_SCORES",
    "REQUESTED_SCORES",
    "SPLITS",
    "WIDE",
    "CalibrationCounter",
    "Counts",
    "Interval",
    "PairedTest",
    "Score",
    "Scores",
    "SegMetrics",
    "best_constant_mean_iou",
    "bootstrap_interval",
    "boundary_areas",
    "caveats",
    "class_iou",
    "class_keys",
    "compute_from_confusion",
    "count_confusion",
    "evaluate_metric",
    "flat_metrics",
    "half_width",
    "mean_defined",
    "mean_iou",
    "metric_name",
    "none_if_nan",
    "paired_test",
    "resamples",
    "score_keys",
    "uncertain_choice",
    "unscored",
    "upsampled_class_ids",
    "useless",
    "verdict",
    "weighted_sums",
    "with_background",
    "with_interval",
]
