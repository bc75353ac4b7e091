"""FCN configuration. This file is copied beside the weights, so it imports transformers and nothing else."""

from transformers import PreTrainedConfig


class HfsegFCNConfig(PreTrainedConfig):
    """Configuration of torchvision's FCN.

    Args:
        backbone: "resnet50" or "resnet101", both with output stride 8.
        auxiliary_head: whether there is a second head on the third stage, used in training.
        semantic_loss_ignore_index: label of pixels that do not count.
    """

    model_type = "hfseg-fcn"

    backbone: str = "resnet50"
    num_channels: int = 3
    auxiliary_head: bool = True
    semantic_loss_ignore_index: int = 255
