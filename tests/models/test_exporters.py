"""What `transformers.exporters` make of hfseg's models gives what the models give, at every size."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from hfseg import HfsegFCNConfig, HfsegFCNForSemanticSegmentation, LabelSet
from tests.builders import tiny_model
from tests.conftest import REPOSITORY
from tests.extras import needs

pytest.importorskip(
    "transformers.exporters.metadata",
    reason="this transformers' exporters return programs (5.17), or it has none: an ExportedModel came later",
)

from transformers.exporters import DynamoConfig, DynamoExporter, ExportedModel, OnnxConfig, OnnxExporter

KINDS = ["segformer", pytest.param("fcn", marks=pytest.mark.slow)]
SIZES = ((2, 64, 96), (1, 96, 64), (1, 97, 131))  # images, height and width; the first is exported with


def make(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if kind == "fcn":
        return HfsegFCNForSemanticSegmentation(HfsegFCNConfig(num_labels=3, blocks_per_stage=1)).eval()
    return tiny_model(LabelSet(["a", "b", "c"])).eval()


def pixels(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


def assert_equal(exported: ExportedModel, model: PreTrainedModel, **more: Any) -> None:
    for size in SIZES:
        found = exported(pixel_values=pixels(*size))
        with torch.no_grad():
            expected = model(pixel_values=pixels(*size), **more)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            parts = zip(found[name], value, strict=True) if isinstance(value, tuple) else [(found[name], value)]
            for mine, other in parts:
                assert mine.shape == other.shape, name
                assert (mine - other).abs().max() < 1e-4 * other.abs().max(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_torch_program(kind: str, tmp_path: Path) -> None:
    model = make(kind)
    before = copy.deepcopy(model.state_dict())
    exported = DynamoExporter().export(model, {"pixel_values": pixels(*SIZES[0])}, DynamoConfig(dynamic=True))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    exported.save_pretrained(tmp_path)
    loaded = ExportedModel.from_pretrained(tmp_path, trust_remote_code=True)  # torch's programs are pickled
    assert loaded.config.id2label == model.config.id2label  # a SegFormer is saved as a stock one
    assert_equal(loaded, model)


@pytest.mark.parametrize("kind", KINDS)
def test_an_onnx_program(kind: str, tmp_path: Path) -> None:
    needs("onnx")
    model = make(kind)
    inputs = {"pixel_values": pixels(*SIZES[0]), "output_hidden_states": True}
    OnnxExporter().export(model, inputs, OnnxConfig(dynamic=True)).save_pretrained(tmp_path)
    assert_equal(ExportedModel.from_pretrained(tmp_path), model, output_hidden_states=True)


@pytest.mark.slow
def test_the_example_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needs("onnx")
    monkeypatch.chdir(tmp_path)
    make("segformer").save_pretrained("runs/pets/model")
    text = (REPOSITORY / "docs" / "deployment.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["logits"].shape == (1, 3, 96, 160)
