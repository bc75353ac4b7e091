"""From images to class ids: `predict`, folders of images, the pipeline, ONNX."""

from hfseg.inference.folder import predict_images
from hfseg.inference.onnx import ParityError, export_onnx
from hfseg.inference.pipeline import SegmentationPipeline
from hfseg.inference.predict import ImageLike, predict, read_image
from hfseg.inference.run_predictor import labels_of

__all__ = [
    "ImageLike",
    "ParityError",
    "SegmentationPipeline",
    "export_onnx",
    "labels_of",
    "predict",
    "predict_images",
    "read_image",
]
