import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from hfseg import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation, LabelSet, UserError, speed_up
from hfseg.models import SIZES
from hfseg.models.segformer.banded_head import keep_mask

Pair = tuple[SegformerForSemanticSegmentation, HfsegSegformerForSemanticSegmentation]
LABELS = LabelSet([f"class {index}" for index in range(19)])


def make_pair(size: str, folder: Path) -> Pair:
    """Stock and ours with the same weights, scaled so that rounding differences would show."""
    config = HfsegSegformerConfig.from_size(size, LABELS)
    stock = SegformerForSemanticSegmentation(SegformerConfig(**{**config.to_dict(), "model_type": "segformer"}))
    with torch.no_grad():
        for parameter in stock.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
        stock.decode_head.batch_norm.running_mean.normal_()
        stock.decode_head.batch_norm.running_var.uniform_(0.5, 2)
        stock.decode_head.classifier.weight.mul_(30)
    stock.save_pretrained(folder)
    ours, info = HfsegSegformerForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return stock.eval(), ours.eval()


def turn_off_randomness(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "drop_prob"):
            module.drop_prob = 0.0
        elif isinstance(getattr(module, "drop_path", None), float):
            module.drop_path = 0.0


def assert_close_logits(logits: torch.Tensor, expected: torch.Tensor) -> None:
    assert expected.abs().max() >= 10
    assert (logits - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert (logits.argmax(1) == expected.argmax(1)).float().mean() > 0.9999


@pytest.mark.parametrize("size", SIZES)
def test_same_function_as_stock(size: str, tmp_path: Path) -> None:
    stock, ours = make_pair(size, tmp_path)
    with torch.no_grad():
        for shape in ((3, 3, 64, 96), (1, 3, 97, 131), (1, 3, 33, 40)):
            pixel_values = torch.randn(shape)
            assert_close_logits(ours(pixel_values).logits, stock(pixel_values).logits)
        expected, half = stock(pixel_values).logits, pixel_values.bfloat16()
        theirs = (stock.bfloat16()(half).logits.float() - expected).norm()
        assert (ours.bfloat16()(half).logits.float() - expected).norm() <= 1.5 * theirs


@pytest.mark.slow
@pytest.mark.parametrize("size", ["b0", "b2"])
def test_same_function_when_compiled(size: str, tmp_path: Path) -> None:
    stock, ours = make_pair(size, tmp_path)
    compiled = torch.compile(ours, fullgraph=True)
    with torch.no_grad():
        for shape in ((1, 3, 97, 131), (3, 3, 64, 96)):
            pixel_values = torch.randn(shape)
            assert_close_logits(compiled(pixel_values).logits, stock(pixel_values).logits)


@pytest.mark.parametrize("size", ["b0", "b2"])
def test_same_gradients_as_stock(size: str, tmp_path: Path) -> None:
    stock, ours = make_pair(size, tmp_path)
    labels = torch.randint(0, 19, (2, 97, 131))
    labels[:, :20] = 255
    pixel_values = torch.randn(2, 3, 97, 131, dtype=torch.float64)
    losses = []
    for model in (stock, ours):
        turn_off_randomness(model)
        model.double().train()
        losses.append(model(pixel_values, labels=labels).loss)
        losses[-1].backward()
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-12, atol=0)
    with torch.no_grad():  # stock's names differ in memory: its own save brings its gradients back to the file's names
        for parameter in stock.parameters():
            parameter.copy_(parameter.grad)
    stock.save_pretrained(tmp_path / "gradients")
    gradients = load_file(tmp_path / "gradients" / "model.safetensors")
    largest = max(parameter.abs().max() for parameter in stock.parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad - gradients[name]).abs().max() <= 1e-9 * largest, name

    ours.float().zero_grad()  # in fp32 a flipped ReLU moves single entries: compare all of them together
    ours(pixel_values.float(), labels=labels).loss.backward()
    difference = sum((p.grad - gradients[name]).square().sum() for name, p in ours.named_parameters())
    total = sum(gradients[name].square().sum() for name, _ in ours.named_parameters())
    assert (difference / total).sqrt() <= 1e-3


def test_stock_and_auto_classes_load_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size("b0", LABELS)).eval()
    ours.save_pretrained(tmp_path)
    logging.getLogger("transformers").propagate = True
    with caplog.at_level("WARNING"):
        stock, info = SegformerForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
        again, our_info = HfsegSegformerForSemanticSegmentation.from_pretrained(tmp_path, output_loading_info=True)
    logging.getLogger("transformers").propagate = False
    assert not any(info.values()), info
    assert not any(our_info.values()), our_info
    assert not caplog.records
    assert type(AutoModelForSemanticSegmentation.from_pretrained(tmp_path)) is SegformerForSemanticSegmentation
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = ours(pixel_values).logits
        assert again(pixel_values).logits.equal(expected)
        torch.testing.assert_close(stock.eval()(pixel_values).logits, expected, rtol=1e-4, atol=1e-5)
    assert again.config.id2label == stock.config.id2label == LABELS.id2label


@pytest.mark.parametrize("size", SIZES)
def test_published_parameter_counts(size: str) -> None:
    """Encoder and decoder of Table 1, counted exactly with stock transformers at 19 classes."""
    counts = {
        "b0": (3_319_392, 399_635),
        "b1": (13_151_424, 530_707),
        "b2": (24_196_288, 3_164_947),
        "b3": (44_072_128, 3_164_947),
        "b4": (60_842_688, 3_164_947),
        "b5": (81_443_008, 3_164_947),
    }
    with torch.device("meta"):
        model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size(size, LABELS))
    parts = (model.segformer, model.decode_head)
    assert tuple(sum(parameter.numel() for parameter in part.parameters()) for part in parts) == counts[size]


def test_registered_with_the_auto_classes() -> None:
    config = AutoConfig.for_model("hfseg-segformer")
    assert type(config) is HfsegSegformerConfig
    assert type(AutoModelForSemanticSegmentation.from_config(config)) is HfsegSegformerForSemanticSegmentation


def test_outputs() -> None:
    model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size("b0", LABELS)).eval()
    pixel_values = torch.randn(2, 3, 64, 96)
    output = model(pixel_values, output_hidden_states=True)
    assert output.logits.shape == (2, 19, 16, 24)
    assert [tuple(state.shape[1:]) for state in output.hidden_states] == [
        (32, 16, 24), (64, 8, 12), (160, 4, 6), (256, 2, 3),
    ]  # fmt: skip
    assert model(pixel_values).hidden_states is None
    assert isinstance(model(pixel_values, return_dict=False), tuple)
    assert model(pixel_values, labels=torch.full((2, 100, 90), 255)).loss == 0


def test_untrained_model_gives_even_odds() -> None:
    model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size("b0", LABELS))
    labels = torch.randint(0, 19, (2, 64, 64))
    assert abs(model(torch.randn(2, 3, 64, 64), labels=labels).loss - torch.log(torch.tensor(19.0))) < 0.3


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64)])
def test_wrong_input_is_named(shape: tuple[int, ...]) -> None:
    model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size("b0", LABELS))
    with pytest.raises(UserError, match=r"must be \(batch, 3, height, width\)"):
        model(torch.zeros(shape))


def test_unknown_size_is_named() -> None:
    with pytest.raises(UserError, match="b0, b1, b2, b3, b4, b5"):
        HfsegSegformerConfig.from_size("b9", LABELS)


def test_dropout_of_everything_leaves_the_bias() -> None:
    keep, factor = keep_mask(torch.Size((2, 3, 5, 7)), 1.0, torch.device("cpu"))
    assert not keep.any()
    assert factor == 0
    keep, factor = keep_mask(torch.Size((64, 64, 3, 9)), 0.1, torch.device("cpu"))
    assert keep.float().mean() * factor == pytest.approx(1, abs=0.01)


def test_a_norm_without_running_statistics_uses_the_batch() -> None:
    reference = SegformerForSemanticSegmentation(SegformerConfig(num_labels=2)).eval()
    model = speed_up(reference)
    for each in (model, reference):
        each.decode_head.batch_norm.track_running_stats = False
        each.decode_head.batch_norm.running_mean = each.decode_head.batch_norm.running_var = None
    pixel_values = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(pixel_values).logits, reference(pixel_values).logits, rtol=1e-4, atol=1e-5)
