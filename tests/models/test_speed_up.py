from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    AutoModelForSemanticSegmentation,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    pipeline,
)
from transformers.models.segformer.modeling_segformer import SegformerDecodeHead

import hfseg
from hfseg import HfsegSegformerForSemanticSegmentation, UserError
from hfseg.models.segformer.stock_parts import FastSegformerDecodeHead


def stock() -> SegformerForSemanticSegmentation:
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=4)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    return model


def test_same_logits_and_shared_parameters() -> None:
    model = stock()
    model.segformer.requires_grad_(False)
    fast = hfseg.speed_up(model)
    assert type(fast) is HfsegSegformerForSemanticSegmentation
    assert not fast.training
    pixel_values = torch.randn(1, 3, 97, 131)
    for _ in range(2):
        with torch.no_grad():
            expected = model(pixel_values).logits
            assert (fast(pixel_values).logits - expected).abs().max() <= 1e-5 * expected.abs().max()
            for parameter in model.parameters():  # the second time round, changed through the stock model
                parameter.add_(0.01)
            model.decode_head.batch_norm.running_mean.add_(0.3)
    assert {id(p) for p in fast.parameters()} == {id(p) for p in model.parameters()}
    assert not any(parameter.requires_grad for parameter in model.segformer.parameters())
    assert all(parameter.requires_grad for parameter in model.decode_head.parameters())


def test_a_pipeline_gives_the_same(tmp_path: Path) -> None:
    stock().save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    segment = pipeline("image-segmentation", model=str(tmp_path))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    before = segment(image)
    assert hfseg.speed_up(segment) is segment
    assert type(segment.model) is HfsegSegformerForSemanticSegmentation
    after = segment(image)
    assert [part["label"] for part in after] == [part["label"] for part in before]
    for one, other in zip(before, after, strict=True):
        assert np.mean(np.asarray(one["mask"]) != np.asarray(other["mask"])) < 1e-3


def test_other_models_are_refused() -> None:
    with pytest.raises(UserError, match="got Linear"):
        hfseg.speed_up(torch.nn.Linear(1, 1))


def saved_stock(folder: Path) -> Path:
    torch.manual_seed(4)
    model = stock()
    with torch.no_grad():
        model.decode_head.batch_norm.running_mean.uniform_(-1, 1)
        model.decode_head.batch_norm.running_var.uniform_(0.5, 2)
    model.save_pretrained(folder)
    return folder


def test_models_that_are_loaded_later(tmp_path: Path) -> None:
    """Of stock's own class, with its parameters, states, logits, gradients and files."""
    folder = saved_stock(tmp_path / "stock")
    expected = SegformerForSemanticSegmentation.from_pretrained(folder)
    with hfseg.speed_up():
        fast = AutoModelForSemanticSegmentation.from_pretrained(folder)
    after = SegformerForSemanticSegmentation.from_pretrained(folder)
    assert type(fast.decode_head) is FastSegformerDecodeHead
    assert type(after.decode_head) is type(expected.decode_head) is SegformerDecodeHead
    assert type(fast) is type(expected)
    assert list(fast.state_dict()) == list(expected.state_dict())
    pixels = torch.randn(2, 3, 224, 160, dtype=torch.float64)
    mine, theirs = (model.double()(pixels, output_hidden_states=True) for model in (fast, expected))
    for one, other in zip((mine.logits, *mine.hidden_states), (theirs.logits, *theirs.hidden_states), strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 1e-9 * other.abs().max()
    mine.logits.sum().backward()
    theirs.logits.sum().backward()
    largest = max(float(each.grad.abs().max()) for each in expected.parameters())
    for (name, one), other in zip(fast.named_parameters(), expected.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-6, atol=1e-12 * largest), name
    assert len(after(pixels.float(), output_hidden_states=True).hidden_states) == 4
    fast.float().save_pretrained(tmp_path / "fast")
    expected.float().save_pretrained(tmp_path / "expected")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "fast" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_it_is_undone_also_after_a_failure(tmp_path: Path) -> None:
    folder = saved_stock(tmp_path)
    faster = hfseg.speed_up()
    with hfseg.speed_up():  # once more: the end of this one is not the end of the first
        pass
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    assert type(pipeline("image-segmentation", model=str(folder)).model.decode_head) is FastSegformerDecodeHead
    broken = SegformerConfig(depths=[1])
    with pytest.raises(IndexError):
        AutoModelForSemanticSegmentation.from_config(broken)
    faster.undo()
    faster.undo()  # a second time does nothing
    assert type(SegformerForSemanticSegmentation(SegformerConfig()).decode_head) is SegformerDecodeHead
    assert type(AutoModelForSemanticSegmentation.from_pretrained(folder).decode_head) is SegformerDecodeHead
