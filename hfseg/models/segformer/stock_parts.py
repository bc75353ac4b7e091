"""The slow parts of transformers' SegFormer made fast: the same constructors, parameters, names and function."""

from typing import Any, cast

import torch
from torch import nn
from transformers.models.segformer import modeling_segformer

from hfseg.models.segformer.decode_head import FoldedDecodeHead
from hfseg.models.segformer.layers import mix_ffn, reduce_sequence
from hfseg.models.segformer.layout import to_tokens


class FastSegformerOverlapPatchEmbeddings(modeling_segformer.SegformerOverlapPatchEmbeddings):
    """In channels-last memory, where tokens are a view of the convolution's output."""

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, int, int]:
        image = self.proj(pixel_values.contiguous(memory_format=torch.channels_last))  # (B, C, h, w)
        return self.layer_norm(to_tokens(image)), image.shape[2], image.shape[3]


class FastSegformerSequenceReduction(modeling_segformer.SegformerSequenceReduction):
    """As a matrix product."""

    def forward(self, hidden_states: torch.Tensor, height: int, width: int) -> torch.Tensor:
        return reduce_sequence(hidden_states, height, width, self.sequence_reduction, self.layer_norm)


class FastSegformerMixMLP(modeling_segformer.SegformerMixMLP):
    """Over bands of rows."""

    def forward(self, hidden_states: torch.Tensor, height: int, width: int) -> torch.Tensor:
        conv, activation = self.dwconv.dwconv, self.activation_fn
        return mix_ffn(hidden_states, height, width, self.fc1, conv, activation, self.fc2, self.dropout)


class FastSegformerDecodeHead(FoldedDecodeHead, modeling_segformer.SegformerDecodeHead):
    """Folded, see `FoldedDecodeHead`."""

    @property
    def projections(self) -> list[nn.Linear]:
        return [cast(nn.Linear, mlp.proj) for mlp in cast(nn.ModuleList, self.linear_projections)]

    def forward(self, features: tuple[torch.Tensor, ...], **kwargs: Any) -> torch.Tensor:
        if features[-1].ndim == 3:  # config.reshape_last_stage=False
            return modeling_segformer.SegformerDecodeHead.forward(self, features, **kwargs)
        return FoldedDecodeHead.forward(self, features)


PARTS: dict[str, type[nn.Module]] = {
    "SegformerOverlapPatchEmbeddings": FastSegformerOverlapPatchEmbeddings,
    "SegformerSequenceReduction": FastSegformerSequenceReduction,
    "SegformerMixMLP": FastSegformerMixMLP,
    "SegformerDecodeHead": FastSegformerDecodeHead,
}  # not those that `output_hidden_states` and `output_attentions` watch: transformers would not go back to its own
