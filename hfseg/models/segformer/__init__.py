"""SegFormer (Xie et al., 2021, arXiv:2105.15203): configuration and model."""

from hfseg.models.segformer.configuration_segformer import SIZES, HfsegSegformerConfig
from hfseg.models.segformer.modeling_segformer import HfsegSegformerForSemanticSegmentation, HfsegSegformerModel
from hfseg.models.segformer.speed_up import speed_up

__all__ = ["SIZES", "HfsegSegformerConfig", "HfsegSegformerForSemanticSegmentation", "HfsegSegformerModel", "speed_up"]
