"""What every model of transformers answers to, also hfseg's."""

import copy

import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModel, PreTrainedModel, SegformerConfig, SegformerForSemanticSegmentation, SegformerModel

from hfseg import HfsegFCNConfig, HfsegFCNForSemanticSegmentation, HfsegSegformerConfig
from hfseg.models import HfsegSegformerForSemanticSegmentation, HfsegSegformerModel, speed_up

SMALL = {
    "depths": [1, 2, 1, 1], "hidden_sizes": [8, 16, 16, 32], "num_attention_heads": [1, 2, 2, 4],
    "decoder_hidden_size": 16, "drop_path_rate": 0.0, "classifier_dropout_prob": 0.0,
}  # fmt: skip


def stock(num_labels: int = 3) -> SegformerForSemanticSegmentation:
    torch.manual_seed(0)
    return SegformerForSemanticSegmentation(SegformerConfig(num_labels=num_labels, **SMALL)).eval()


def small_fcn(num_labels: int = 3) -> HfsegFCNForSemanticSegmentation:
    torch.manual_seed(0)
    return HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=num_labels, blocks_per_stage=1))


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_hidden_states_and_attentions_are_those_of_stock() -> None:
    theirs = stock()
    theirs.set_attn_implementation("eager")
    ours = speed_up(theirs)
    expected = theirs(images(), output_hidden_states=True, output_attentions=True)
    found = ours(images(), output_hidden_states=True, output_attentions=True)
    for name in ("hidden_states", "attentions"):
        assert len(found[name]) == len(expected[name])
        for mine, other in zip(found[name], expected[name], strict=True):
            assert mine.shape == other.shape
            assert (mine - other).abs().max() < 1e-4 * other.abs().max()
    assert ours(images()).hidden_states is None
    assert ours(images()).attentions is None


def test_eager_attention_is_the_fused_one() -> None:
    ours = speed_up(stock())
    fused = ours(images()).logits
    ours.set_attn_implementation("eager")
    assert (ours(images()).logits - fused).abs().max() < 1e-5 * fused.abs().max()


def test_the_encoder_alone() -> None:
    theirs = stock()
    ours = speed_up(theirs)
    base = AutoModel.from_config(HfsegSegformerConfig(**SMALL)).eval()
    assert isinstance(base, HfsegSegformerModel)
    base.load_state_dict(ours.segformer.state_dict())
    assert isinstance(theirs.segformer, SegformerModel)
    expected = theirs.segformer(images()).last_hidden_state
    assert (base(images()).last_hidden_state - expected).abs().max() < 1e-4 * expected.abs().max()
    assert [tuple(each.shape[1:]) for each in base(images(), output_hidden_states=True).hidden_states] == [
        (8, 16, 24), (16, 8, 12), (16, 4, 6), (32, 2, 3)
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["segformer", "fcn"])
def test_the_config_chooses_what_is_returned(kind: str) -> None:
    model: PreTrainedModel = small_fcn().eval() if kind == "fcn" else speed_up(stock())
    logits = model(images()).logits
    model.config.output_hidden_states = True
    assert len(model(images()).hidden_states) == 4
    model.config.return_dict = False
    found = model(images())
    assert isinstance(found, tuple)
    assert torch.equal(found[0], logits)
    assert torch.equal(model(images(), return_dict=True).logits, logits)


@pytest.mark.parametrize("kind", ["segformer", "fcn"])
def test_one_output_has_the_loss_of_stock(kind: str) -> None:
    theirs = stock(num_labels=1)
    model = small_fcn(num_labels=1).eval() if kind == "fcn" else speed_up(theirs)
    labels = torch.randint(2, (2, 64, 96), generator=torch.Generator().manual_seed(2))
    labels[:, :20] = 255
    output = model(images(), labels=labels)
    wide = F.interpolate(output.logits, size=(64, 96), mode="bilinear", align_corners=False)[:, 0]
    losses = F.binary_cross_entropy_with_logits(wide, labels.float().clamp(max=1), reduction="none")
    expected = (losses * (labels != 255)).mean()
    assert output.loss.item() == pytest.approx(expected.item(), rel=1e-5)
    if kind == "segformer":
        assert output.loss.item() == pytest.approx(theirs(images(), labels=labels).loss.item(), rel=1e-4)


def test_checkpointed_activations_change_nothing() -> None:
    """Neither the loss nor a gradient, nor the running statistics, which are counted once."""
    plain = small_fcn().train()
    saving = copy.deepcopy(plain)
    saving.gradient_checkpointing_enable()
    labels = torch.randint(3, (2, 64, 96), generator=torch.Generator().manual_seed(2))
    for model in (plain, saving):
        torch.manual_seed(3)  # of the heads' dropout
        model(images(), labels=labels).loss.backward()
    for (name, mine), other in zip(saving.named_parameters(), plain.parameters(), strict=True):
        if other.grad is not None:  # the auxiliary head has no part in the loss
            assert torch.allclose(mine.grad, other.grad, rtol=1e-4, atol=1e-7), name
    for (name, mine), other in zip(saving.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(mine, other), name


def test_checkpointed_activations_are_freed() -> None:
    def kept(model: HfsegFCNForSemanticSegmentation) -> int:
        total = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal total
            total += 0 if tensor.is_leaf else tensor.numel()  # leaves: parameters and the image
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            model(images(), labels=torch.zeros(2, 64, 96, dtype=torch.int64))
        return total

    saving = small_fcn().train()
    before = kept(saving)
    saving.gradient_checkpointing_enable()
    assert kept(saving) < before / 2


def test_a_small_fcn_is_saved_and_loaded(tmp_path: object) -> None:
    model = small_fcn().eval()
    model.save_pretrained(tmp_path)
    again = HfsegFCNForSemanticSegmentation.from_pretrained(tmp_path).eval()
    assert again.num_parameters() < 20e6
    assert torch.equal(again(images()).logits, model(images()).logits)
    assert isinstance(model, PreTrainedModel)
    assert isinstance(speed_up(stock()), HfsegSegformerForSemanticSegmentation)
