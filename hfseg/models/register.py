"""Registers our model types with transformers' Auto classes: the only file that touches its registries."""

from transformers import AutoConfig, AutoModel, AutoModelForSemanticSegmentation
from transformers.models.auto import modeling_auto

from hfseg.models.fcn.configuration_fcn import HfsegFCNConfig
from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation
from hfseg.models.segformer.configuration_segformer import HfsegSegformerConfig
from hfseg.models.segformer.modeling_segformer import HfsegSegformerForSemanticSegmentation, HfsegSegformerModel


def register() -> None:
    """Called once, when `hfseg.models` is imported."""
    AutoConfig.register(HfsegSegformerConfig.model_type, HfsegSegformerConfig)
    AutoModel.register(HfsegSegformerConfig, HfsegSegformerModel)
    AutoModelForSemanticSegmentation.register(HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation)
    AutoConfig.register(HfsegFCNConfig.model_type, HfsegFCNConfig)
    AutoModelForSemanticSegmentation.register(HfsegFCNConfig, HfsegFCNForSemanticSegmentation)
    # The pipeline looks for a model's class name here and reports an error where it is not; FCN's own file adds FCN's.
    names = modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES
    names[HfsegSegformerConfig.model_type] = HfsegSegformerForSemanticSegmentation.__name__
    modeling_auto.MODEL_MAPPING_NAMES[HfsegSegformerConfig.model_type] = HfsegSegformerModel.__name__  # has no loss
    # FCN has no stock class: its two files travel with the weights, to be loaded with trust_remote_code=True.
    HfsegFCNConfig.register_for_auto_class()
    HfsegFCNForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
