"""FCN: torchvision's `fcn_resnet50` and `fcn_resnet101` as a `PreTrainedModel`.

This file is copied beside the weights and loaded from there with `trust_remote_code=True`, so it imports torch,
torchvision, transformers and its configuration, and nothing of hfseg. The parameter names are torchvision's.
"""

import copy
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.checkpoint import checkpoint
from torchvision.models.segmentation import fcn_resnet50, fcn_resnet101
from transformers.modeling_outputs import SemanticSegmenterOutput
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto import modeling_auto

from .configuration_fcn import HfsegFCNConfig

BUILDERS = {"resnet50": fcn_resnet50, "resnet101": fcn_resnet101}
STAGES = ("layer1", "layer2", "layer3", "layer4")


@dataclass
class FCNOutput(SemanticSegmenterOutput):
    """`SemanticSegmenterOutput` with the auxiliary head's logits (B, K, H/8, W/8), in training only."""

    auxiliary_logits: torch.Tensor | None = None


class HfsegFCNBackbone(nn.ModuleDict):
    """torchvision's dilated ResNet, which returns the features of all stages.

    Args:
        network: its parts by their names.
        blocks_per_stage: how many residual blocks of each stage are kept; None keeps all.
    """

    def __init__(self, network: nn.ModuleDict, blocks_per_stage: int | None) -> None:
        super().__init__()
        for name, part in network.items():
            self[name] = part[:blocks_per_stage] if isinstance(part, nn.Sequential) else part
        self.gradient_checkpointing = False  # set by transformers' `gradient_checkpointing_enable`

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W) to (B, 256, H/4, W/4), then three times (B, 512 to 2048, H/8, W/8)."""
        features = []
        for name, part in self.items():
            if self.gradient_checkpointing and self.training and name in STAGES:
                contexts = partial(recomputation, part)
                image = checkpoint(part, image, use_reentrant=False, context_fn=contexts)
            else:
                image = part(image)
            if name in STAGES:
                features.append(image)
        return tuple(features)


class HfsegFCNForSemanticSegmentation(PreTrainedModel):
    """FCN-ResNet: convolutions at 1/8 of the image, then one small head.

    Example:
        >>> import torch
        >>> from hfseg.models.fcn import HfsegFCNConfig, HfsegFCNForSemanticSegmentation
        >>> model = HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3)).eval()
        >>> model(pixel_values=torch.zeros(1, 3, 64, 96)).logits.shape
        torch.Size([1, 3, 8, 12])
    """

    config_class = HfsegFCNConfig
    config: HfsegFCNConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    # `forward` takes no `num_items_in_batch`; its loss is a mean, which the Trainer has to scale itself.
    accepts_loss_kwargs = False

    def __init__(self, config: HfsegFCNConfig) -> None:
        super().__init__(config)
        if config.backbone not in BUILDERS:
            raise ValueError(f"backbone={config.backbone!r} is not one of {', '.join(BUILDERS)}.")
        network = BUILDERS[config.backbone](
            weights=None, weights_backbone=None, num_classes=config.num_labels, aux_loss=config.auxiliary_head
        )
        self.backbone = HfsegFCNBackbone(network.backbone, config.blocks_per_stage)
        self.classifier = network.classifier
        self.aux_classifier = network.aux_classifier
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # torchvision's: its ResNet's for the backbone, torch's defaults for the heads
        if isinstance(module, nn.Conv2d) and any(module is each for each in self.backbone.modules()):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()

    def encoder_stages(self) -> list[list[nn.Module]]:
        """The parts that freezing counts, first to last; the first holds the stem."""
        body = self.backbone
        return [[body["conv1"], body["bn1"], body["layer1"]], [body["layer2"]], [body["layer3"]], [body["layer4"]]]

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> FCNOutput | tuple[torch.Tensor, ...]:
        """Computes logits, and the mean cross-entropy over valid pixels where labels are given.

        Args:
            pixel_values: normalised images (B, 3, H, W).
            labels: int64 (B, H', W') of 0..K-1 or `config.semantic_loss_ignore_index`, of any size.
            output_hidden_states: also return the features of the backbone's four stages; by default what the config
                says.
            output_attentions: does nothing: convolutions have none.
            return_dict: False returns a tuple; by default what the config says.

        Returns:
            `loss` (scalar or None; of the main head alone; for K = 1 that of stock SegFormer), `logits`
            (B, K, H/8, W/8), `hidden_states`, `auxiliary_logits`.

        Raises:
            ValueError: images of another shape.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ValueError(
                f"pixel_values must be (batch, {self.config.num_channels}, height, width); got "
                f"{tuple(pixel_values.shape)}. Convert images to RGB and add the batch dimension."
            )
        # Convolutions keep the memory format of their input: channels last from here to the logits.
        features = self.backbone(pixel_values.contiguous(memory_format=torch.channels_last))
        logits = self.classifier(features[-1])
        auxiliary_logits = None
        if self.training and self.aux_classifier is not None:
            auxiliary_logits = self.aux_classifier(features[-2])
        loss = None if labels is None else self._loss(logits, labels)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = FCNOutput(
            loss=loss, logits=logits, hidden_states=features if wanted else None, auxiliary_logits=auxiliary_logits
        )
        return output if (self.config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        valid = labels != self.config.semantic_loss_ignore_index
        upsampled = F.interpolate(logits.float(), size=labels.shape[-2:], mode="bilinear", align_corners=False)
        if self.config.num_labels == 1:
            losses = F.binary_cross_entropy_with_logits(upsampled[:, 0], labels.float(), reduction="none")
            return (losses * valid).mean()
        ignored = self.config.semantic_loss_ignore_index
        total = F.cross_entropy(upsampled, labels, ignore_index=ignored, reduction="sum")
        return total / valid.sum().clamp(min=1)

    def fuse(self) -> "HfsegFCNForSemanticSegmentation":
        """A copy for inference with every BatchNorm folded into the convolution before it."""
        fused = copy.deepcopy(self).eval()
        fused.__dict__.pop("forward", None)  # accelerate's mixed precision wraps the method of this very object
        for module in list(fused.modules()):
            children = list(module.named_children())
            for (name, layer), (norm_name, norm) in pairwise(children):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module.add_module(name, fuse_conv_bn_eval(layer, norm))
                    module.add_module(norm_name, nn.Identity())
        return fused


def recomputation(module: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Around the forward pass of a part, and around its repetition in the backward pass."""
    return nullcontext(), without_statistics(module)


@contextmanager
def without_statistics(module: nn.Module) -> Iterator[None]:
    """BatchNorms do not count a batch again, whose running statistics would differ otherwise."""
    norms = [each for each in module.modules() if isinstance(each, _BatchNorm) and each.training]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, number) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, number


# The pipeline looks for the class name in this dictionary and reports an error where it is not.
modeling_auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES[HfsegFCNConfig.model_type] = (
    HfsegFCNForSemanticSegmentation.__name__
)
