"""hfseg: semantic segmentation with Hugging Face parts.

Importing it registers the model types with transformers' Auto classes.
"""

from hfseg.auto import register
from hfseg.config import DataConfig, EvalConfig, RunConfig, TransformsConfig
from hfseg.counts import compare_runs
from hfseg.data import EvalSet, SegCollator, TrainSet, TrainTransform, load_dataset
from hfseg.doctor import check
from hfseg.errors import HubTransferError, UserError
from hfseg.evaluate_module import evaluate_metric
from hfseg.hub import PushResult, pull
from hfseg.intervals import Interval, PairedTest, bootstrap_interval, paired_test
from hfseg.labels import LabelSet
from hfseg.metrics import SegMetrics
from hfseg.models.fcn import HfsegFCNConfig, HfsegFCNForSemanticSegmentation
from hfseg.models.segformer import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation, speed_up
from hfseg.pipeline import SegmentationPipeline
from hfseg.predict import predict
from hfseg.predictions import predict_images
from hfseg.publish import publish_finished, push
from hfseg.run import run
from hfseg.study import check_study, run_study
from hfseg.trainer import SegTrainer

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
