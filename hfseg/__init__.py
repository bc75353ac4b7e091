"""hfseg: semantic segmentation with Hugging Face parts.

Importing it registers the model types with transformers' Auto classes. Its names are imported when they are used; the
command `hfseg` needs few of them, and answers before torch is there.
"""

import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        load_model,
        speed_up,
    )
    from hfseg.publishing import publish_finished, push
    from hfseg.reporting import plot_classes, plot_confusion, plot_curves, show
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
    "load_model",
    "paired_test",
    "plot_classes",
    "plot_confusion",
    "plot_curves",
    "predict",
    "predict_images",
    "publish_finished",
    "pull",
    "push",
    "run",
    "run_study",
    "show",
    "speed_up",
]

# Where the names above are: part of hfseg -> names.
PARTS = {
    "config": ("DataConfig", "EvalConfig", "RunConfig", "TransformsConfig"),
    "data": ("EvalSet", "SegCollator", "TrainSet", "TrainTransform", "load_dataset"),
    "doctor": ("check",),
    "errors": ("HubTransferError", "UserError"),
    "hub": ("PushResult", "pull"),
    "inference": ("SegmentationPipeline", "predict", "predict_images"),
    "labels": ("LabelSet",),
    "metrics": ("Interval", "PairedTest", "SegMetrics", "bootstrap_interval", "evaluate_metric", "paired_test"),
    "models": (
        "HfsegFCNConfig", "HfsegFCNForSemanticSegmentation", "HfsegSegformerConfig",
        "HfsegSegformerForSemanticSegmentation", "load_model", "speed_up",
    ),
    "publishing": ("publish_finished", "push"),
    "reporting": ("plot_classes", "plot_confusion", "plot_curves", "show"),
    "run": ("run",),
    "runs": ("compare_runs",),
    "study": ("check_study", "run_study"),
    "training": ("SegTrainer",),
}  # fmt: skip
HOME = {name: part for part, names in PARTS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in HOME:
        value = vars(import_module(f"hfseg.{HOME[name]}"))[name]
        globals()[name] = value
        return value
    if name in PARTS:  # `import hfseg` is enough for `hfseg.metrics.SPLITS`
        return import_module(f"hfseg.{name}")
    raise AttributeError(f"module 'hfseg' has no attribute {name!r}", name=name, obj=sys.modules[__name__])


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME, *PARTS})


class _Package(ModuleType):
    """Python binds a module to its package when it is imported; `hfseg.run` stays the function all the same."""

    def __setattr__(self, name: str, value: Any) -> None:
        is_run_module = name == "run" and isinstance(value, ModuleType)
        super().__setattr__(name, value.run if is_run_module else value)


sys.modules[__name__].__class__ = _Package


def _is_command() -> bool:
    """Whether this process is the command line: `hfseg`, `python -m hfseg`, or a script beside this package."""
    program = Path(sys.argv[0])
    if program.name == "-m":  # until the module that follows it is imported
        return ("-m", "hfseg") in zip(sys.orig_argv, sys.orig_argv[1:], strict=False)
    scripts = Path(__file__).resolve().parents[1] / "scripts"
    return program.stem == "hfseg" or program.resolve() in (scripts / "run_seg.py", scripts / "export.py")


if not _is_command():  # there it is done when `hfseg.models` is imported
    import_module("hfseg.models")
