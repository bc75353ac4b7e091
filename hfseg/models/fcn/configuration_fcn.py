"""FCN configuration. This file is copied beside the weights, so it imports transformers and nothing else."""

from typing import Any

# Spelt so in every version; only transformers 5 has `PreTrainedConfig`, too.
from transformers.configuration_utils import PretrainedConfig


class HfsegFCNConfig(PretrainedConfig):
    """Configuration of torchvision's FCN.

    Args:
        backbone: "resnet50" or "resnet101", both with output stride 8.
        blocks_per_stage: keep only so many residual blocks of each stage, a small network for tests; None keeps all.
        num_channels: of the images.
        auxiliary_head: whether there is a second head on the third stage, used in training.
        semantic_loss_ignore_index: label of pixels that do not count.
        others: keys of every configuration, such as `id2label`.
    """

    model_type = "hfseg-fcn"

    def __init__(
        self,
        backbone: str = "resnet50",
        blocks_per_stage: int | None = None,
        num_channels: int = 3,
        auxiliary_head: bool = True,
        semantic_loss_ignore_index: int = 255,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.backbone = backbone
        self.blocks_per_stage = blocks_per_stage
        self.num_channels = num_channels
        self.auxiliary_head = auxiliary_head
        self.semantic_loss_ignore_index = semantic_loss_ignore_index
