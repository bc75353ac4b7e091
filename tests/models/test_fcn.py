"""FCN: it starts as torchvision's does, and its files load with older versions of transformers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from transformers import SegformerImageProcessor

from hfseg import HfsegFCNConfig, HfsegFCNForSemanticSegmentation, LabelSet
from hfseg.config import ModelConfig
from hfseg.models import build_model

LABELS = LabelSet([f"class {index}" for index in range(21)])


def assert_same_distribution(ours: torch.nn.Module, prefix: str = "") -> None:
    """Mean and standard deviation of every tensor, within six times what chance makes of them."""
    network = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=21, aux_loss=True
    )
    found = ours.state_dict()
    assert found.keys() == network.state_dict().keys()
    for name, expected in network.state_dict().items():
        if not name.startswith(prefix) or not expected.is_floating_point():
            continue
        assert found[name].shape == expected.shape
        spread, chance = float(expected.std()), expected.numel() ** -0.5
        assert float(found[name].std()) == pytest.approx(spread, rel=6 * chance), name
        assert float(found[name].mean()) == pytest.approx(float(expected.mean()), abs=6 * 1.5 * spread * chance), name


def test_it_starts_as_torchvisions() -> None:
    model = HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=21))
    assert_same_distribution(model)
    assert float(model.classifier[0].weight.detach().std()) == pytest.approx(0.00425, rel=0.02)


def test_a_new_head_on_a_trained_encoder_does_too(tmp_path: Path) -> None:
    torch.save(torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "resnet50.pth")
    model = build_model(ModelConfig(type="fcn", init=str(tmp_path / "resnet50.pth")), LABELS)
    for prefix in ("classifier.", "aux_classifier."):
        assert_same_distribution(model, prefix)


LOAD = """
import sys, torch, transformers
from PIL import Image
from transformers import AutoModelForSemanticSegmentation, pipeline
assert transformers.__version__ == sys.argv[2], transformers.__version__
options = {"trust_remote_code": True}
model, info = AutoModelForSemanticSegmentation.from_pretrained(sys.argv[1], output_loading_info=True, **options)
assert not any(info.values()), info
pixels, expected = torch.load(sys.argv[1] + "/expected.pt")
with torch.no_grad():
    assert (model.eval()(pixels).logits - expected).abs().max() < 1e-5
segment = pipeline("image-segmentation", model=sys.argv[1], image_processor=sys.argv[1], **options)
assert segment(Image.new("RGB", (60, 40)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("version", "others"),
    [
        ("4.57.6", ("huggingface-hub<1.0", "tokenizers<0.23")),
        ("4.40.2", ("huggingface-hub<0.30", "tokenizers<0.20")),
    ],
)
def test_its_files_load_with_older_transformers(version: str, others: tuple[str, ...], tmp_path: Path) -> None:
    words = ["pip", "install", "-q", "--no-deps", "--target", str(tmp_path / "old"), f"transformers=={version}"]
    result = subprocess.run([sys.executable, "-m", *words, *others], capture_output=True, text=True)
    if result.returncode != 0:
        pytest.skip(f"transformers {version} cannot be installed here")
    model = HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3)).eval()
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        torch.save((pixels, model(pixels).logits), folder / "expected.pt")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "old"), "HF_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-c", LOAD, str(folder), version]
    result = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
