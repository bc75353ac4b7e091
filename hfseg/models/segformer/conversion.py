"""SegFormer weights of every layout in use, brought to the published names.

* published: what transformers writes and our model has, `segformer.encoder.block.0.1.attention.self.query.weight`;
* renamed: transformers 5 in memory, on disk with `save_original_format=False`, `segformer.stages.0.blocks.1...`;
* classification: an encoder under either name with an ImageNet `classifier`, as in the `mit-b*` repositories;
* research: the original code's, `backbone.block1.1.attn.q.weight`, keys and values fused.
"""

import re
from collections.abc import Mapping

import torch

State = dict[str, torch.Tensor]

# transformers 5 in memory -> published, in this order
RENAMED = (
    (r"\bstages\.(\d+)\.patch_embeddings\.", r"encoder.patch_embeddings.\1."),
    (r"\bstages\.(\d+)\.blocks\.", r"encoder.block.\1."),
    (r"\bstages\.(\d+)\.layer_norm\.", r"encoder.layer_norm.\1."),
    (r"attention\.q_proj\.", "attention.self.query."),
    (r"attention\.k_proj\.", "attention.self.key."),
    (r"attention\.v_proj\.", "attention.self.value."),
    (r"attention\.sequence_reduction\.sequence_reduction\.", "attention.self.sr."),
    (r"attention\.sequence_reduction\.layer_norm\.", "attention.self.layer_norm."),
    (r"attention\.o_proj\.", "attention.output.dense."),
    (r"mlp\.fc1\.", "mlp.dense1."),
    (r"mlp\.fc2\.", "mlp.dense2."),
    (r"layernorm_before\.", "layer_norm_1."),
    (r"layernorm_after\.", "layer_norm_2."),
    (r"^decode_head\.linear_projections\.", "decode_head.linear_c."),
)
# the original research code -> published; its stages and its head's inputs count from 1
RESEARCH = (
    (r"^patch_embed(\d)\.proj\.", r"segformer.encoder.patch_embeddings.\1.proj."),
    (r"^patch_embed(\d)\.norm\.", r"segformer.encoder.patch_embeddings.\1.layer_norm."),
    (r"^block(\d)\.", r"segformer.encoder.block.\1."),
    (r"^norm(\d)\.", r"segformer.encoder.layer_norm.\1."),
    (r"\.attn\.q\.", ".attention.self.query."),
    (r"\.attn\.k\.", ".attention.self.key."),
    (r"\.attn\.v\.", ".attention.self.value."),
    (r"\.attn\.sr\.", ".attention.self.sr."),
    (r"\.attn\.norm\.", ".attention.self.layer_norm."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".mlp.dense1."),
    (r"\.mlp\.fc2\.", ".mlp.dense2."),
    (r"\.norm1\.", ".layer_norm_1."),
    (r"\.norm2\.", ".layer_norm_2."),
    (r"^decode_head\.linear_c(\d)\.", r"decode_head.linear_c.\1."),
    (r"^decode_head\.linear_fuse\.conv\.", "decode_head.linear_fuse."),
    (r"^decode_head\.linear_fuse\.bn\.", "decode_head.batch_norm."),
    (r"^decode_head\.linear_pred\.", "decode_head.classifier."),
)
FROM_ONE = re.compile(r"(patch_embeddings|encoder\.block|encoder\.layer_norm|decode_head\.linear_c)\.(\d)\.")


def published_names(state: Mapping[str, torch.Tensor]) -> State:
    """The same tensors under the published names; classification heads are left out.

    Args:
        state: tensors in any of the layouts above.

    Returns:
        Tensors as they are (the fused keys and values of the research layout in two halves). Names of no known layout
        stay, so that loading reports them.
    """
    if any("patch_embed1." in name for name in state):
        return _from_research(state)
    renamed = {_substitute(name, RENAMED): tensor for name, tensor in state.items()}
    renamed = {f"segformer.{name}" if name.startswith("encoder.") else name: x for name, x in renamed.items()}
    return {name: tensor for name, tensor in renamed.items() if not name.startswith("classifier.")}


def _from_research(state: Mapping[str, torch.Tensor]) -> State:
    converted: State = {}
    for name, tensor in state.items():
        name = name.removeprefix("module.").removeprefix("backbone.")
        if name.startswith(("head.", "decode_head.conv_seg.")):
            continue  # the classifier of ImageNet, and a leftover that the original code never uses
        parts = [(name, tensor)]
        if ".attn.kv." in name:  # rows of keys, then rows of values
            parts = list(zip((name.replace(".kv.", f".{part}.") for part in "kv"), tensor.chunk(2), strict=True))
        for part, value in parts:
            published = _substitute(part, RESEARCH)
            converted[FROM_ONE.sub(lambda match: f"{match[1]}.{int(match[2]) - 1}.", published, count=1)] = value
    return converted


def _substitute(name: str, table: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in table:
        name = re.sub(pattern, replacement, name)
    return name
