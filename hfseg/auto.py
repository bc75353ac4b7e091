"""Registers our model types with transformers' Auto classes: the only file that touches its registries."""

from transformers import AutoConfig, AutoModelForSemanticSegmentation

from hfseg.models.segformer import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation


def register() -> None:
    """Called once, when `hfseg` is imported."""
    AutoConfig.register(HfsegSegformerConfig.model_type, HfsegSegformerConfig)
    AutoModelForSemanticSegmentation.register(HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation)
