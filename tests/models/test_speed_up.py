from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor, pipeline

import hfseg
from hfseg import HfsegSegformerForSemanticSegmentation, UserError


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
