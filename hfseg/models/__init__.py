"""SegFormer, FCN and any model of transformers: building, loading, freezing, loss and scores of large images.

Importing it registers the model types of hfseg with transformers' Auto classes.
"""

from hfseg.models.auto_model import load_model, reload
from hfseg.models.dry_run import dry_run
from hfseg.models.fcn.configuration_fcn import HfsegFCNConfig
from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation
from hfseg.models.freezing import Frozen, encoder_name, freeze_encoder
from hfseg.models.image_processors import load_processor, own_processor, processor_beside
from hfseg.models.inference import inference_copy, provenance_of, store_temperature, temperature_of
from hfseg.models.loading import build_model
from hfseg.models.lora import has_lora, merge_lora, saved_by_own_names
from hfseg.models.loss import PLAIN, SegmentationLoss, segmentation_loss
from hfseg.models.model_files import nearest_model, resolve
from hfseg.models.outputs import class_logits
from hfseg.models.register import register
from hfseg.models.segformer.configuration_segformer import SIZES, HfsegSegformerConfig
from hfseg.models.segformer.modeling_segformer import HfsegSegformerForSemanticSegmentation, HfsegSegformerModel
from hfseg.models.segformer.speed_up import speed_up
from hfseg.models.weight_files import weight_files
from hfseg.models.windows import Rows, Whole, augmented_scores, forward_logits, logit_bands, score_image

__all__ = [
    "PLAIN",
    "SIZES",
    "Frozen",
    "HfsegFCNConfig",
    "HfsegFCNForSemanticSegmentation",
    "HfsegSegformerConfig",
    "HfsegSegformerForSemanticSegmentation",
    "HfsegSegformerModel",
    "Rows",
    "SegmentationLoss",
    "Whole",
    "augmented_scores",
    "build_model",
    "class_logits",
    "dry_run",
    "encoder_name",
    "forward_logits",
    "freeze_encoder",
    "has_lora",
    "inference_copy",
    "load_model",
    "load_processor",
    "logit_bands",
    "merge_lora",
    "nearest_model",
    "own_processor",
    "processor_beside",
    "provenance_of",
    "reload",
    "resolve",
    "saved_by_own_names",
    "score_image",
    "segmentation_loss",
    "speed_up",
    "store_temperature",
    "temperature_of",
    "weight_files",
]

register()
