"""Data sets, transforms and samples. Data code imports no model code."""

from hfseg.data.check import check_data, check_rows, check_run_data, check_source
from hfseg.data.findings import Finding, Report
from hfseg.data.loading import load_dataset
from hfseg.data.samples import EvalSet, SegCollator, TrainSet
from hfseg.data.streaming import eval_set, some_rows, train_set
from hfseg.data.transforms import TrainTransform

__all__ = [
    "EvalSet",
    "Finding",
    "Report",
    "SegCollator",
    "TrainSet",
    "TrainTransform",
    "check_data",
    "check_rows",
    "check_run_data",
    "check_source",
    "eval_set",
    "load_dataset",
    "some_rows",
    "train_set",
]
