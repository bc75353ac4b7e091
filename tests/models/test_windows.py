"""Evaluation modes against the plainest reading of them: whole tensors, every window by itself."""

import itertools
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hfseg import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation, LabelSet, UserError
from hfseg.config import EvalConfig
from hfseg.models import augmented_scores, logit_bands, score_image
from hfseg.models.windows import window_starts
from tests.builders import tiny_model
from tests.conftest import REPOSITORY

LABELS = LabelSet(["a", "b", "c"])


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(1)
    model = tiny_model(LABELS).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


@pytest.fixture(autouse=True)
def _strips_of_a_few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hfseg.models.windows.BAND_ELEMENTS_CPU", 3 * 7 * 100)


def resize(logits: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def mmseg_slide(network: nn.Module, image: torch.Tensor, crop: int, stride: int) -> torch.Tensor:
    """mmseg/models/segmentors/encoder_decoder.py, slide_inference, in its own order of steps."""
    height, width = image.shape[-2:]
    h_grids = max(height - crop + stride - 1, 0) // stride + 1
    w_grids = max(width - crop + stride - 1, 0) // stride + 1
    preds, count_mat = torch.zeros(1, 3, height, width, dtype=image.dtype), torch.zeros(1, 1, height, width)
    for h_idx, w_idx in itertools.product(range(h_grids), range(w_grids)):
        y2, x2 = min(h_idx * stride + crop, height), min(w_idx * stride + crop, width)
        y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
        crop_img = image[:, :, y1:y2, x1:x2]
        crop_seg_logit = resize(network(crop_img).logits, crop_img.shape[2:])
        preds += F.pad(crop_seg_logit, (x1, width - x2, y1, height - y2))
        count_mat[:, :, y1:y2, x1:x2] += 1
    assert (count_mat == 0).sum() == 0
    return preds / count_mat


def strips(network: nn.Module, image: torch.Tensor, size: tuple[int, int], options: EvalConfig) -> torch.Tensor:
    parts = list(logit_bands(augmented_scores(network, image, options), size))
    assert len(parts) > 2
    return torch.cat(parts, dim=1)[None]


@pytest.mark.parametrize(
    ("height", "width", "crop", "stride"),
    [
        (96, 128, 64, 32),
        (101, 67, 64, 48),
        (97, 131, 33, 20),
        (64, 64, 64, 64),
        (128, 128, 64, 64),
        (40, 50, 64, 48),  # smaller than a window
        (40, 150, 64, 48),
        (65, 64, 64, 1),
        (70, 90, 32, 7),  # many rows of windows over each other
    ],
)
@torch.no_grad()
def test_slide_is_that_of_mmseg(network: nn.Module, height: int, width: int, crop: int, stride: int) -> None:
    image = torch.randn(1, 3, height, width, dtype=torch.float64)
    expected = mmseg_slide(network, image, crop, stride)
    options = EvalConfig(mode="slide", crop=crop, stride=stride)
    torch.testing.assert_close(strips(network, image, (height, width), options), expected)
    for size in ((height // 2 + 1, width + 13), (2 * height + 1, 37)):  # labels of another size than the image
        torch.testing.assert_close(strips(network, image, size, options), resize(expected, size))


@pytest.mark.parametrize("mode", ["whole", "slide"])
@torch.no_grad()
def test_scales_and_flip_average_probabilities(network: nn.Module, mode: str) -> None:
    image = torch.randn(1, 3, 75, 110, dtype=torch.float64)
    window = {"crop": 48, "stride": 30} if mode == "slide" else {}
    options = EvalConfig(mode=mode, scales=(0.5, 1.0, 1.5), flip=True, **window)
    total = torch.zeros(1, 3, 75, 110, dtype=torch.float64)
    for size in ((38, 55), (75, 110), (112, 165)):
        scaled = F.interpolate(image, size=size, mode="bilinear", antialias=True)
        for flip in (False, True):
            pixels = scaled.flip(-1) if flip else scaled
            logits = mmseg_slide(network, pixels, 48, 30) if mode == "slide" else network(pixels).logits
            total += resize(logits.flip(-1) if flip else logits, (75, 110)).softmax(dim=1)
    probabilities = strips(network, image, (75, 110), options)
    torch.testing.assert_close(probabilities.exp(), total / 6)
    torch.testing.assert_close(probabilities.softmax(dim=1), total / 6)


@torch.no_grad()
def test_scores_are_those_of_the_whole_map(network: nn.Module) -> None:
    image, labels = torch.randn(1, 3, 75, 110, dtype=torch.float64), torch.randint(0, 3, (75, 110))
    labels[10:30, 40:] = 255
    score = score_image(augmented_scores(network, image, EvalConfig(mode="slide", crop=48, stride=30)), labels, 255)
    logits = mmseg_slide(network, image, 48, 30)
    expected = F.cross_entropy(logits, labels[None], ignore_index=255, reduction="sum")
    torch.testing.assert_close(score.total, expected)
    assert int(score.num_valid) == int((labels != 255).sum())
    pairs = labels.where(labels != 255, 3) * 3 + logits[0].argmax(0)
    assert score.confusion.flatten().equal(torch.bincount(pairs.flatten(), minlength=12))


def test_windows_cover_everything_and_never_leave() -> None:
    for length, crop, stride in itertools.product(range(1, 40), (8, 13), (1, 5, 8)):
        starts = window_starts(length, crop, stride)
        assert starts[0] == 0
        assert starts == sorted(set(starts))
        assert starts[-1] + crop >= length
        assert all(0 <= start <= max(length - crop, 0) for start in starts)
        assert all(later - earlier <= stride for earlier, later in itertools.pairwise(starts))


class OnlySquares(nn.Module):
    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        raise ValueError("Input image size (40*60) doesn't match model (64*64).")


def test_a_size_that_the_model_refuses_is_said() -> None:
    with pytest.raises(UserError, match=r"40 x 60 pixels.*eval\.crop"):
        augmented_scores(OnlySquares(), torch.zeros(1, 3, 40, 60), EvalConfig(mode="whole"))


@pytest.mark.parametrize("options", [EvalConfig(mode="whole"), EvalConfig(mode="slide", crop=64, stride=32)])
def test_an_image_that_is_too_small_is_said(options: EvalConfig) -> None:
    model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig(num_labels=3)).eval()
    image, labels = torch.zeros(1, 3, 16, 40), torch.zeros(16, 40, dtype=torch.int64)
    with torch.no_grad(), pytest.raises(UserError, match=r"does not take images of 16 x 40 pixels.*eval\.mode=resize"):
        score_image(augmented_scores(model, image, options), labels, 255)


MEASURE = """
import torch
from transformers import SegformerConfig
from hfseg import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation
from hfseg.config import EvalConfig
from hfseg.models.windows import score_image, augmented_scores
torch.manual_seed(0)
model = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig(num_labels=19)).eval()
image, labels = torch.randn(1, 3, 3648, 5472), torch.randint(0, 19, (3648, 5472))
with torch.no_grad():
    score = score_image(augmented_scores(model, image, EvalConfig(mode="slide", crop=1024, stride=768)), labels, 255)
assert int(score.confusion.sum()) == 3648 * 5472
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_a_large_image_takes_less_than_4_gb() -> None:
    """The whole map of scores would take 1.5 GB, and as much again for each step on it."""
    result = subprocess.run([sys.executable, "-c", MEASURE], cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 4e6  # kB
