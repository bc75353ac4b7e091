"""SegFormer, written from the paper (Xie et al., 2021, arXiv:2105.15203).

    image -> [patch embedding -> N x (attention, Mix-FFN) -> norm] x 4 stages -> all-MLP head -> logits at 1/4

The function, the parameter names and the saved file are those of the published checkpoints (the layout that
transformers writes). What differs is the order of the arithmetic:

* **Channels last from end to end.** Tokens (B, H*W, C) and an image (B, C, H, W) in channels-last memory are the same
  bytes, so going from linear layers to convolutions and back is a `view`, never a copy.
* **Strided reduction as a matrix product**: kernel = stride, so where sizes divide it is a linear layer on patches.
* **Folded head.** Between the encoder and the head's BatchNorm everything is linear, and a 1x1 convolution commutes
  with bilinear upsampling; see `HfsegSegformerDecodeHead`.

Comments give shapes: B batch, H x W the image, h x w a stage's feature map, N = h*w tokens, C channels, D the head's
width, K classes.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, SemanticSegmenterOutput
from transformers.modeling_utils import PreTrainedModel

from hfseg.errors import UserError
from hfseg.models.loss import mean_loss
from hfseg.models.segformer.configuration_segformer import HfsegSegformerConfig
from hfseg.models.segformer.conversion import RENAMED
from hfseg.models.segformer.decode_head import HfsegSegformerClassifier, HfsegSegformerDecodeHead
from hfseg.models.segformer.layers import mix_ffn, reduce_sequence
from hfseg.models.segformer.layout import to_image, to_tokens


class HfsegSegformerPatchEmbeddings(nn.Module):
    """Overlap patch embedding (section 3.1): a strided convolution whose patches overlap, then LayerNorm."""

    def __init__(self, patch_size: int, stride: int, num_channels: int, hidden_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(num_channels, hidden_size, patch_size, stride, padding=patch_size // 2)
        self.layer_norm = nn.LayerNorm(hidden_size)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, int, int]:
        image = self.proj(image)  # (B, C, h, w)
        return self.layer_norm(to_tokens(image)), image.shape[2], image.shape[3]


class HfsegSegformerSelfAttention(nn.Module):
    """Efficient self-attention (section 3.1, equation 2): keys and values come from a map reduced `sr_ratio` times."""

    def __init__(self, config: HfsegSegformerConfig, stage: int) -> None:
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.config = config  # which may get another `attn_implementation` later
        self.is_causal = False
        self.num_heads = config.num_attention_heads[stage]
        self.dropout = config.attention_probs_dropout_prob
        self.sr_ratio = config.sr_ratios[stage]
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)
        if self.sr_ratio > 1:
            self.sr = nn.Conv2d(channels, channels, self.sr_ratio, self.sr_ratio)
            self.layer_norm = nn.LayerNorm(channels)

    def split_heads(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, N, C) -> (B, heads, N, C/heads)"""
        return tokens.view(*tokens.shape[:2], self.num_heads, -1).transpose(1, 2)

    def forward(
        self, tokens: torch.Tensor, height: int, width: int, attentions: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        reduced = reduce_sequence(tokens, height, width, self.sr, self.layer_norm) if self.sr_ratio > 1 else tokens
        query, key, value = (
            self.split_heads(each) for each in (self.query(tokens), self.key(reduced), self.value(reduced))
        )
        if attentions is None and self.config._attn_implementation != "eager":
            dropout = self.dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        else:
            scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5  # (B, heads, N, N / r^2)
            weights = F.dropout(
                scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype), self.dropout, self.training
            )
            attended = weights @ value
            if attentions is not None:
                attentions.append(weights)
        return attended.transpose(1, 2).flatten(2)  # (B, N, C)


def eager_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention with its weights: (B, N, heads, C/heads) and (B, heads, N, N / r^2)."""
    scores = query @ key.transpose(2, 3) * scaling
    weights = F.dropout(scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2), weights


class HfsegSegformerSelfOutput(nn.Module):
    """The projection after attention; a module of its own for the published parameter names."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dense = nn.Linear(channels, channels)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.dense(tokens)


class HfsegSegformerAttention(nn.Module):
    """Self-attention and its output projection."""

    def __init__(self, config: HfsegSegformerConfig, stage: int) -> None:
        super().__init__()
        self.self = HfsegSegformerSelfAttention(config, stage)
        self.output = HfsegSegformerSelfOutput(config.hidden_sizes[stage])

    def forward(
        self, tokens: torch.Tensor, height: int, width: int, attentions: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        return self.output(self.self(tokens, height, width, attentions))


class HfsegSegformerDWConv(nn.Module):
    """Holds the 3x3 depth-wise convolution under its published name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


class HfsegSegformerMixFFN(nn.Module):
    """Mix-FFN (section 3.1, equation 3): MLP(GELU(Conv3x3(MLP(x))))."""

    def __init__(self, config: HfsegSegformerConfig, stage: int) -> None:
        super().__init__()
        channels = config.hidden_sizes[stage]
        hidden = int(channels * config.mlp_ratios[stage])
        self.dense1 = nn.Linear(channels, hidden)
        self.dwconv = HfsegSegformerDWConv(hidden)
        self.activation = ACT2FN[config.hidden_act]  # GELU in the paper
        self.dense2 = nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, tokens: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return mix_ffn(
            tokens, height, width, self.dense1, self.dwconv.dwconv, self.activation, self.dense2, self.dropout
        )  # fmt: skip


class HfsegSegformerLayer(GradientCheckpointingLayer):
    """A Transformer block: x + path(attention(norm(x))), then x + path(ffn(norm(x)))."""

    def __init__(self, config: HfsegSegformerConfig, stage: int, drop_path: float) -> None:
        super().__init__()
        channels = config.hidden_sizes[stage]
        self.drop_path = drop_path
        self.layer_norm_1 = nn.LayerNorm(channels)
        self.attention = HfsegSegformerAttention(config, stage)
        self.layer_norm_2 = nn.LayerNorm(channels)
        self.mlp = HfsegSegformerMixFFN(config, stage)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def add(self, tokens: torch.Tensor, branch: torch.Tensor) -> torch.Tensor:
        """The residual sum. In training whole branches are dropped per image (stochastic depth, arXiv:1603.09382)."""
        if not self.training:
            return branch.add_(tokens) if not branch.requires_grad else tokens + branch
        if self.drop_path > 0:
            keep = 1 - self.drop_path
            branch = branch * branch.new_empty(len(branch), 1, 1).bernoulli_(keep).div_(keep)
        return tokens + branch

    def forward(
        self, tokens: torch.Tensor, height: int, width: int, attentions: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        tokens = self.add(tokens, self.dropout(self.attention(self.layer_norm_1(tokens), height, width, attentions)))
        return self.add(tokens, self.mlp(self.layer_norm_2(tokens), height, width))


class HfsegSegformerBlocks(nn.ModuleList):
    """The layers of one stage, in order."""

    def forward(
        self, tokens: torch.Tensor, height: int, width: int, attentions: list[torch.Tensor] | None = None
    ) -> torch.Tensor:
        for layer in self:
            tokens = layer(tokens, height, width, attentions)
        return tokens


class HfsegSegformerEncoder(nn.Module):
    """The Mix Transformer: four stages at 1/4, 1/8, 1/16 and 1/32 of the image."""

    def __init__(self, config: HfsegSegformerConfig) -> None:
        super().__init__()
        stages, depths = range(config.num_encoder_blocks), config.depths
        channels = (config.num_channels, *config.hidden_sizes)
        # The chance of dropping a branch rises linearly from the first block to the last.
        rates = [config.drop_path_rate * index / max(1, sum(depths) - 1) for index in range(sum(depths))]
        self.patch_embeddings = nn.ModuleList(
            HfsegSegformerPatchEmbeddings(config.patch_sizes[i], config.strides[i], channels[i], channels[i + 1])
            for i in stages
        )
        self.block = nn.ModuleList(
            HfsegSegformerBlocks(HfsegSegformerLayer(config, i, rates[sum(depths[:i]) + j]) for j in range(depths[i]))
            for i in stages
        )
        self.layer_norm = nn.ModuleList(nn.LayerNorm(channels[i + 1]) for i in stages)

    def forward(self, image: torch.Tensor, attentions: list[torch.Tensor] | None = None) -> tuple[torch.Tensor, ...]:
        """(B, 3, H, W) -> one (B, C_i, h_i, w_i) per stage, channels-last; each block's weights into `attentions`."""
        features = []
        image = image.contiguous(memory_format=torch.channels_last)
        for embed, blocks, norm in zip(self.patch_embeddings, self.block, self.layer_norm, strict=True):
            tokens, height, width = embed(image)
            image = to_image(norm(blocks(tokens, height, width, attentions)), height, width)
            features.append(image)
        return tuple(features)


class HfsegSegformerPreTrainedModel(PreTrainedModel):
    """What `transformers` needs to know to build, load and save the models below."""

    config_class = HfsegSegformerConfig
    config: HfsegSegformerConfig
    base_model_prefix = "segformer"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _no_split_modules = ("HfsegSegformerLayer",)
    # `forward` takes no `num_items_in_batch`; its loss is a mean, which the Trainer has to scale itself.
    accepts_loss_kwargs = False

    @classmethod
    def from_pretrained(cls, *arguments: Any, **keywords: Any) -> "HfsegSegformerPreTrainedModel":
        """The stock method; it also reads the renamed layout that `save_original_format=False` writes."""
        keywords.setdefault("key_mapping", dict(RENAMED))
        loaded = super().from_pretrained(*arguments, **keywords)
        # Saving would turn the names round again, and must write the published ones whatever was read.
        (loaded[0] if isinstance(loaded, tuple) else loaded)._weight_conversions = []
        return loaded

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # As usual for ViTs, but with variance-preserving convolutions: from scratch they learn faster than std 0.02.
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            is_classifier = isinstance(module, HfsegSegformerClassifier)
            nn.init.normal_(module.weight, std=0.01 if is_classifier else (2.0 / fan_out) ** 0.5)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm | nn.BatchNorm2d):
            module.reset_parameters()


class HfsegSegformerModel(HfsegSegformerPreTrainedModel):
    """The encoder."""

    def __init__(self, config: HfsegSegformerConfig) -> None:
        super().__init__(config)
        self.encoder = HfsegSegformerEncoder(config)
        self.post_init()

    def forward(
        self,
        pixel_values: torch.Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutput | tuple[torch.Tensor, ...]:
        """Computes the features of an image.

        Args:
            pixel_values: normalised images (B, 3, H, W).
            output_hidden_states: also return the features of all stages; by default what the config says.
            output_attentions: also return the attention weights of all blocks, likewise. They are computed as with
                `attn_implementation="eager"`.
            return_dict: False returns a tuple; likewise.

        Returns:
            `last_hidden_state` (B, C, H/32, W/32), `hidden_states` (four of (B, C_i, h_i, w_i)), `attentions` (of each
            block (B, heads, N, N / r^2), r its stage's reduction).

        Raises:
            UserError: images of another shape.
        """
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise UserError(
                f"pixel_values must be (batch, {self.config.num_channels}, height, width); got "
                f"{tuple(pixel_values.shape)}. Convert images to RGB and add the batch dimension."
            )
        has_weights = self.config.output_attentions if output_attentions is None else output_attentions
        attentions: list[torch.Tensor] | None = [] if has_weights else None
        features = self.encoder(pixel_values, attentions)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = BaseModelOutput(
            last_hidden_state=features[-1],
            hidden_states=features if wanted else None,
            attentions=None if attentions is None else tuple(attentions),
        )
        return output.to_tuple() if is_tuple(self.config, return_dict) else output


def is_tuple(config: HfsegSegformerConfig, return_dict: bool | None) -> bool:
    """Whether a model returns a tuple."""
    return not (config.return_dict if return_dict is None else return_dict)


class HfsegSegformerForSemanticSegmentation(HfsegSegformerPreTrainedModel):
    """SegFormer with the all-MLP head.

    Example:
        >>> import torch
        >>> from hfseg import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation, LabelSet
        >>> config = HfsegSegformerConfig.from_size("b0", LabelSet(["pet", "background", "boundary"]))
        >>> model = HfsegSegformerForSemanticSegmentation(config)
        >>> model(pixel_values=torch.zeros(1, 3, 96, 128)).logits.shape
        torch.Size([1, 3, 24, 32])
    """

    def __init__(self, config: HfsegSegformerConfig) -> None:
        super().__init__(config)
        self.segformer = HfsegSegformerModel(config)
        self.decode_head = HfsegSegformerDecodeHead(config)
        self.post_init()

    def encoder_stages(self) -> list[list[nn.Module]]:
        """The parts that freezing counts, first to last."""
        encoder = self.segformer.encoder
        return [list(parts) for parts in zip(encoder.patch_embeddings, encoder.block, encoder.layer_norm, strict=True)]

    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> SemanticSegmenterOutput | tuple[torch.Tensor, ...]:
        """Computes logits, and the loss where labels are given.

        Args:
            pixel_values: normalised images (B, 3, H, W).
            labels: int64 (B, H', W') of 0..K-1 or `config.semantic_loss_ignore_index`, of any size.
            output_hidden_states: as in `HfsegSegformerModel`.
            output_attentions: likewise.
            return_dict: likewise.

        Returns:
            `loss` (scalar or None, see `mean_loss`), `logits` (B, K, H/4, W/4), `hidden_states`, `attentions`.

        Raises:
            UserError: images of another shape.
        """
        encoded = self.segformer(pixel_values, True, output_attentions, return_dict=True)
        logits = self.decode_head(encoded.hidden_states)
        loss = None if labels is None else mean_loss(logits, labels, self.config.semantic_loss_ignore_index)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = SemanticSegmenterOutput(
            loss=loss,
            logits=logits,
            hidden_states=encoded.hidden_states if wanted else None,
            attentions=encoded.attentions,
        )
        return output.to_tuple() if is_tuple(self.config, return_dict) else output
