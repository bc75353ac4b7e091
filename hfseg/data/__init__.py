"""Data sets, transforms and samples. Data code imports no model code."""

from hfseg.data.loading import load_dataset
from hfseg.data.samples import EvalSet, SegCollator, TrainSet
from hfseg.data.transforms import TrainTransform

__all__ = ["EvalSet", "SegCollator", "TrainSet", "TrainTransform", "load_dataset"]
