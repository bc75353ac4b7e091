"""Registers our model types with transformers' Auto classes: the only file that touches its registries."""

from transformers import AutoConfig, AutoModelForSemanticSegmentation

from hfseg.models.fcn import HfsegFCNConfig, HfsegFCNForSemanticSegmentation
from hfseg.models.segformer import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation


def register() -> None:
    """Called once, when `hfseg` is imported."""
    AutoConfig.register(HfsegSegformerConfig.model_type, HfsegSegformerConfig)
    AutoModelForSemanticSegmentation.register(HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation)
    AutoConfig.register(HfsegFCNConfig.model_type, HfsegFCNConfig)
    AutoModelForSemanticSegmentation.register(HfsegFCNConfig, HfsegFCNForSemanticSegmentation)
    # FCN has no stock class: its two files travel with the weights, to be loaded with trust_remote_code=True.
    HfsegFCNConfig.register_for_auto_class()
    HfsegFCNForSemanticSegmentation.register_for_auto_class("AutoModelForSemanticSegmentation")
