"""The all-MLP decoder of SegFormer (section 3.2), folded: half of the arithmetic, the same function and parameters."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from hfseg.models.segformer.banded_head import BandedHead, keep_mask
from hfseg.models.segformer.configuration_segformer import HfsegSegformerConfig
from hfseg.models.segformer.layout import to_image, to_tokens


class HfsegSegformerMLP(nn.Module):
    """Holds the projection of one stage to the head's width, P_i x + b_i, under its published name."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Linear(channels, width)


class HfsegSegformerClassifier(nn.Conv2d):
    """The 1x1 convolution to logits; a class of its own because it starts near zero, at even odds."""


class FoldedDecodeHead(nn.Module):
    """The all-MLP decoder (section 3.2, equation 4), folded.

    The paper projects every stage to D channels (P_i, b_i), upsamples to 1/4, concatenates to 4D channels and fuses
    them with W = [W_4 W_3 W_2 W_1] (last stage first). All of that is linear and the upsampling commutes with it:

        W concat(up(P_i x_i + b_i)) = sum_i up((W_i P_i) x_i) + sum_i W_i b_i

    so each stage needs one product, at its own resolution, and the tensor of 4D channels never exists. The products
    W_i P_i are made anew in every forward pass (about 1 % of the time): a cached one goes stale without a sign. At
    inference BatchNorm, an affine map by then, goes into them too.
    """

    linear_fuse: nn.Conv2d
    batch_norm: nn.BatchNorm2d
    dropout: nn.Dropout
    classifier: nn.Conv2d

    @property
    def projections(self) -> list[nn.Linear]:
        """P_i and b_i, first stage first."""
        raise NotImplementedError

    @property
    def uses_batch_statistics(self) -> bool:
        """As BatchNorm decides it: in training, and always where it keeps no running statistics."""
        return self.batch_norm.training or self.batch_norm.running_mean is None

    def fold(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        """The products W_i P_i (D, C_i), first stage first, and the sum of the biases W_i b_i (D)."""
        layers = self.projections
        fuse = self.linear_fuse.weight.flatten(1).chunk(len(layers), dim=1)[::-1]  # W_i (D, D)
        weights = [part @ layer.weight for part, layer in zip(fuse, layers, strict=True)]
        bias = torch.stack([part @ layer.bias for part, layer in zip(fuse, layers, strict=True)]).sum(0)
        norm = self.batch_norm
        if not self.uses_batch_statistics and norm.running_mean is not None and norm.running_var is not None:
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            weights = [weight * scale[:, None] for weight in weights]
            bias = (bias - norm.running_mean) * scale + norm.bias
        return weights, bias

    def forward(self, features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        weights, bias = self.fold()
        smalls = [F.linear(to_tokens(f), weight) for f, weight in zip(features[1:], weights[1:], strict=True)]
        smalls[-1] = smalls[-1] + bias  # once, where the tokens are fewest
        # The compiler fuses the plain form by itself, on an H200 it takes 0.75 of the time of bands, and SyncBatchNorm
        # has statistics of its own.
        is_banded = features[0].device.type == "cpu" and type(self.batch_norm) is nn.BatchNorm2d
        if torch.compiler.is_compiling() or not is_banded:
            return self.plain(features, weights[0], smalls)
        return self.in_bands(features, weights[0], smalls)

    def plain(
        self, features: tuple[torch.Tensor, ...], weight: torch.Tensor, smalls: list[torch.Tensor]
    ) -> torch.Tensor:
        """What follows the products, in modules."""
        height, width = features[0].shape[2:]
        fused = F.linear(to_tokens(features[0]), weight)  # (B, N, D)
        for feature, small in zip(features[1:], smalls, strict=True):
            image = to_image(small, *feature.shape[2:])
            large = F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)
            fused = fused + to_tokens(large)
        if self.uses_batch_statistics:
            fused = to_tokens(self.batch_norm(to_image(fused, height, width)))
        fused = self.dropout(F.relu(fused))
        logits = F.linear(fused, self.classifier.weight.flatten(1), self.classifier.bias)
        return to_image(logits, height, width)  # (B, K, h, w)

    def in_bands(
        self, features: tuple[torch.Tensor, ...], weight: torch.Tensor, smalls: list[torch.Tensor]
    ) -> torch.Tensor:
        """The same with no more than a band of (B, N, D) at a time."""
        norm, dtype = self.batch_norm, smalls[0].dtype
        tokens = features[0].permute(0, 2, 3, 1).to(dtype)  # (B, h, w, C)
        class_weight, class_bias = self.classifier.weight.flatten(1), cast(torch.Tensor, self.classifier.bias)
        keep = None
        if self.dropout.training and self.dropout.p > 0:
            keep, factor = keep_mask(torch.Size((*tokens.shape[:3], len(weight))), self.dropout.p, tokens.device)
            class_weight = class_weight * factor
        logits, mean, variance = BandedHead.apply(
            tokens,
            weight.to(dtype),
            norm.weight if self.uses_batch_statistics else None,
            norm.bias if self.uses_batch_statistics else None,
            class_weight.to(dtype),
            class_bias.to(dtype),
            keep,
            norm.eps,
            torch.is_grad_enabled(),
            *(
                small.view(len(small), *feature.shape[2:], -1)
                for small, feature in zip(smalls, features[1:], strict=True)
            ),
        )
        if norm.training:
            track_statistics(norm, mean, variance, logits[..., 0].numel())
        return logits.permute(0, 3, 1, 2)


class HfsegSegformerDecodeHead(FoldedDecodeHead):
    """The head of hfseg's own SegFormer."""

    def __init__(self, config: HfsegSegformerConfig) -> None:
        super().__init__()
        width, stages = config.decoder_hidden_size, config.num_encoder_blocks
        self.linear_c = nn.ModuleList(HfsegSegformerMLP(channels, width) for channels in config.hidden_sizes)
        self.linear_fuse = nn.Conv2d(width * stages, width, 1, bias=False)
        self.batch_norm = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = HfsegSegformerClassifier(width, config.num_labels, 1)

    @property
    def projections(self) -> list[nn.Linear]:
        return [cast(HfsegSegformerMLP, mlp).proj for mlp in self.linear_c]


def track_statistics(norm: nn.BatchNorm2d, mean: torch.Tensor, variance: torch.Tensor, count: int) -> None:
    """What BatchNorm does with a batch's mean and biased variance."""
    if norm.num_batches_tracked is None or norm.running_mean is None or norm.running_var is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), momentum)
    norm.running_var.lerp_((variance * count / max(1, count - 1)).to(norm.running_var.dtype), momentum)
