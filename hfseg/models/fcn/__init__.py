"""FCN (Long et al., 2015, arXiv:1411.4038) on a dilated ResNet: torchvision's, as a `PreTrainedModel`."""

from hfseg.models.fcn.configuration_fcn import HfsegFCNConfig
from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation

__all__ = ["HfsegFCNConfig", "HfsegFCNForSemanticSegmentation"]
