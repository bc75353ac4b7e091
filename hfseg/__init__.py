"""hfseg: semantic segmentation with Hugging Face parts.

Importing it registers the model types with transformers' Auto classes.
"""

from hfseg.config import DataConfig, EvalConfig, RunConfig, TransformsConfig
from hfseg.data import EvalSet, SegCollator, TrainSet, TrainTransform, load_dataset
from hfseg.doctor import check
from hfseg.errors import HubTransferError, UserError
from hfseg.hub import PushResult, pull
from hfseg.inference import SegmentationPipeline, predict, predict_images
from hfseg.labels import LabelSet
from hfseg.metrics import Interval, PairedTest, SegMetrics, bootstrap_interval, evaluate_metric, paired_test
from hfseg.models import (
    HfsegFCNConfig,
    HfsegFCNForSemanticSegmentation,
    HfsegSegformerConfig,
    HfsegSegformerForSemanticSegmentation,
    register,
    speed_up,
)
from hfseg.publishing import publish_finished, push
from hfseg.run import run
from hfseg.runs import compare_runs
from hfseg.study import check_study, run_study
from hfseg.training import SegTrainer

__version__ = "0.1.0"

__all__ = [
    "DataConfig",
    "EvalConfig",
    "EvalSet",
    "HfsegFCNConfig",
    "HfsegFCNForSemanticSegmentation",
    "HfsegSegformerConfig",
    "HfsegSegformerForSemanticSegmentation",
    "HubTransferError",
    "Interval",
    "LabelSet",
    "PairedTest",
    "PushResult",
    "RunConfig",
    "SegCollator",
    "SegMetrics",
    "SegTrainer",
    "SegmentationPipeline",
    "TrainSet",
    "TrainTransform",
    "TransformsConfig",
    "UserError",
    "bootstrap_interval",
    "check",
    "check_study",
    "compare_runs",
    "evaluate_metric",
    "load_dataset",
    "paired_test",
    "predict",
    "predict_images",
    "publish_finished",
    "pull",
    "push",
    "run",
    "run_study",
    "speed_up",
]

register()
