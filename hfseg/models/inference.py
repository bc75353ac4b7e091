"""The form of a model that evaluation and prediction run."""

from torch import nn

from hfseg.models.fcn.modeling_fcn import HfsegFCNForSemanticSegmentation


def inference_copy(model: nn.Module) -> nn.Module | None:
    """An FCN with its BatchNorms folded, 1.2 to 1.4 times as fast; to be dropped before the next training step.

    Returns:
        The copy, or None for other models: SegFormer folds its one BatchNorm in every forward pass anyway.
    """
    return model.fuse() if isinstance(model, HfsegFCNForSemanticSegmentation) else None
