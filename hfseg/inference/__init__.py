"""From images to class ids: `predict`, folders of images, the pipeline, ONNX."""

from hfseg.inference.folder import predict_images
from hfseg.inference.onnx import ParityError, export_onnx
from hfseg.inference.pipeline import SegmentationPipeline
from hfseg.inference.predict import predict

__all__ = [
    "ParityError",
    "SegmentationPipeline",
    "export_onnx",
    "predict",
    "predict_images",
]
