import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import EvalPrediction

from hfseg import SegMetrics
from hfseg.metrics import upsampled_class_ids

SIDES = st.integers(1, 9)


@settings(max_examples=150, deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from([1, 2, 19, 300]), st.sampled_from([0, 3, 30]), st.integers(0, 99))
def test_equals_upsampling_everything(
    height: int, width: int, rows: int, columns: int, num_labels: int, calm: int, seed: int
) -> None:
    """From noise, where every cell has several classes, to regions, where hardly any has."""
    torch.manual_seed(seed)
    logits = torch.randn(2, num_labels, height, width, dtype=torch.float64)
    logits += calm * torch.randn(2, num_labels, 1, 1, dtype=torch.float64)
    size = height * rows, width * columns
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(upsampled_class_ids(logits, *size).long(), expected)


@pytest.mark.parametrize("size", [(30, 41), (32, 45), (5, 3)])
def test_sizes_that_are_no_multiples(size: tuple[int, int]) -> None:
    logits = torch.randn(2, 5, 8, 9, dtype=torch.float64)
    expected = F.interpolate(logits, size=size, mode="bilinear", align_corners=False).argmax(1)
    assert torch.equal(upsampled_class_ids(logits, *size).long(), expected)


@pytest.mark.parametrize("size", [(64, 64), (50, 70)])
def test_metrics_of_logits_under_a_stock_trainer(size: tuple[int, int]) -> None:
    """As `compute_metrics` with numpy logits in half precision."""
    logits = torch.randn(3, 6, 16, 16).half()
    labels = torch.randint(0, 6, (3, *size))
    labels[:, :5] = 255
    expected = SegMetrics(6)
    upsampled = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
    expected.update(upsampled.argmax(1), labels)
    metrics = SegMetrics(6)
    metrics(EvalPrediction(logits.numpy(), labels.numpy()))
    assert (metrics.confusion == expected.confusion).all()
