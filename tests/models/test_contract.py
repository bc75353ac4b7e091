"""What every model type of hfseg must do."""

import json
import subprocess
import sys
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoModelForSemanticSegmentation, PreTrainedModel, SegformerImageProcessor, pipeline

from hfseg.models import freeze_encoder, segmentation_loss
from tests.builders import make_fcn, make_segformer, model_kind

SAVED_FILES = {
    "segformer": {"config.json", "model.safetensors"},
    "fcn": {"config.json", "model.safetensors", "configuration_fcn.py", "modeling_fcn.py"},
}
STRIDE = {"segformer": 4, "fcn": 8}


@pytest.fixture(params=[make_segformer, make_fcn], ids=["segformer", "fcn"])
def model(request: pytest.FixtureRequest) -> PreTrainedModel:
    made = request.param()
    made.eval()
    with torch.no_grad():
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return made


@pytest.mark.parametrize("shape", [(1, 3, 64, 96), (3, 3, 65, 47)])
def test_shapes(model: PreTrainedModel, shape: tuple[int, ...]) -> None:
    stride = STRIDE[model_kind(model)]
    logits = model(pixel_values=torch.randn(shape)).logits
    assert tuple(logits.shape) == (shape[0], 3, -(-shape[2] // stride), -(-shape[3] // stride))


def test_loss_is_the_mean_over_valid_pixels_at_the_labels_size(model: PreTrainedModel) -> None:
    pixel_values, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 50, 70))
    labels[:, :9] = 255
    output = model(pixel_values=pixel_values, labels=labels)
    upsampled = F.interpolate(output.logits, size=(50, 70), mode="bilinear", align_corners=False)
    torch.testing.assert_close(output.loss, F.cross_entropy(upsampled, labels, ignore_index=255))


def test_every_parameter_learns(model: PreTrainedModel) -> None:
    model.train()
    output = model(pixel_values=torch.randn(2, 3, 64, 64), labels=torch.randint(0, 3, (2, 64, 64)))
    total = output.loss
    if output.get("auxiliary_logits") is not None:
        total = total + output["auxiliary_logits"].square().mean()
    total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_nothing_valid_is_zero_with_zero_gradient(model: PreTrainedModel) -> None:
    output = model(pixel_values=torch.randn(1, 3, 64, 64), labels=torch.full((1, 64, 64), 255))
    assert output.loss == 0
    output.loss.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_four_images_are_four_times_one(model: PreTrainedModel) -> None:
    """Gradient accumulation: the sum of four steps' losses over the pixels of all is one step's (norms frozen)."""
    model = model.double()  # in evaluation mode: BatchNorm's statistics are fixed and dropout is off
    pixel_values, labels = torch.randn(4, 3, 64, 64).double(), torch.randint(0, 3, (4, 64, 64))
    labels[1], labels[2, :50] = 255, 255  # different numbers of valid pixels, in one image none

    def gradients(parts: list[slice]) -> torch.Tensor:
        model.zero_grad()
        for part in parts:
            loss = segmentation_loss(model(pixel_values=pixel_values[part]).logits, labels[part])
            (loss.total / (labels != 255).sum()).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    together = gradients([slice(0, 4)])
    split = gradients([slice(index, index + 1) for index in range(4)])
    assert together.norm() > 0
    assert (split - together).abs().max() <= 1e-9 * together.abs().max()


def test_saved_and_loaded_it_is_the_same(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == SAVED_FILES[model_kind(model)]
    again, info = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert again(pixel_values=pixel_values).logits.equal(model(pixel_values=pixel_values).logits)


WITHOUT_HFSEG = """
import sys, json
sys.modules["hfseg"] = None  # not importable
import logging, torch, transformers
records = []
handler = logging.Handler()
handler.emit = lambda record: records.append(record.getMessage())
transformers.logging.disable_default_handler()
transformers.logging.add_handler(handler)
from transformers import AutoModelForSemanticSegmentation, pipeline
folder = sys.argv[1]
trust = len(sys.argv) > 2
model = AutoModelForSemanticSegmentation.from_pretrained(folder, trust_remote_code=trust).eval()
torch.manual_seed(1)
with torch.no_grad():
    logits = model(pixel_values=torch.randn(1, 3, 64, 64)).logits
segment = pipeline("image-segmentation", model=folder, trust_remote_code=trust)
from PIL import Image
parts = segment(Image.new("RGB", (60, 40), (200, 100, 50)))
print(json.dumps({"logits": logits.flatten().tolist(), "size": parts[0]["mask"].size, "records": records}))
"""


def test_a_saved_folder_needs_no_hfseg(model: PreTrainedModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    words = [sys.executable, "-c", WITHOUT_HFSEG, str(tmp_path)] + ["trust"] * (model_kind(model) == "fcn")
    result = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout.splitlines()[-1])
    torch.manual_seed(1)
    with torch.no_grad():
        expected = model(pixel_values=torch.randn(1, 3, 64, 64)).logits.flatten()
    assert (torch.tensor(seen["logits"]) - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert seen["size"] == [60, 40]
    assert seen["records"] == []


def test_the_pipeline_says_nothing(
    model: PreTrainedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import logging

    model.save_pretrained(tmp_path)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path)
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level("WARNING"):
        segment = pipeline("image-segmentation", model=str(tmp_path), trust_remote_code=model_kind(model) == "fcn")
    assert caplog.records == []
    assert type(AutoModelForSemanticSegmentation.from_config(model.config)) is type(model)
    assert segment.model.config.num_labels == 3


def test_compiles_to_one_graph(model: PreTrainedModel) -> None:
    pixel_values = torch.randn(2, 3, 64, 64)
    compiled = torch.compile(lambda x: model(pixel_values=x).logits, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixel_values), model(pixel_values=pixel_values).logits)
    model.train()
    compiled(pixel_values).sum().backward()


def test_exports(model: PreTrainedModel) -> None:
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        program = torch.export.export(model, (), {"pixel_values": pixel_values}, strict=False)
        exported = program.module()(pixel_values=pixel_values)["logits"]
        torch.testing.assert_close(exported, model(pixel_values=pixel_values).logits)


def test_half_precision_stays_close(model: PreTrainedModel) -> None:
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(pixel_values=pixel_values).logits
        half = model.to(torch.bfloat16)(pixel_values=pixel_values.bfloat16()).logits
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().max() <= 0.1 * expected.abs().max()


@pytest.mark.parametrize("num_stages", [None, 1, 3])
def test_frozen_parts_are_a_fixed_function(model: PreTrainedModel, num_stages: int | None) -> None:
    pixel_values = torch.randn(2, 3, 64, 64)
    freeze_encoder(model, num_stages)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    encoder = {name for name, _ in model.named_parameters() if name.startswith(model.base_model_prefix + ".")}
    assert frozen == encoder if num_stages is None else frozen < encoder
    assert frozen
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(2):
        model.train()
        loss = model(pixel_values=pixel_values, labels=torch.randint(0, 3, (2, 64, 64))).loss
        loss.backward()
        optimizer.step()
    after = model.state_dict()
    parts = (
        [getattr(model, model.base_model_prefix)]
        if num_stages is None
        else list(chain.from_iterable(model.encoder_stages()[:num_stages]))
    )
    kept = {id(value) for part in parts for value in part.state_dict(keep_vars=True).values()}
    for name, value in model.state_dict(keep_vars=True).items():
        if id(value) in kept:  # weights and BatchNorm statistics alike
            assert after[name].equal(before[name]), name
    changed = [name for name in before if not after[name].equal(before[name])]
    assert changed
    assert not set(changed) & frozen
    assert all(model.get_parameter(name).grad is None for name in frozen)


def test_a_frozen_encoder_costs_no_backward_pass(model: PreTrainedModel) -> None:
    freeze_encoder(model)
    model.train()
    features: list[torch.Tensor] = []
    encoder = getattr(model, model.base_model_prefix)

    def keep(module: nn.Module, inputs: object, output: object) -> None:
        values = output.values() if hasattr(output, "values") else output
        features.extend(value for value in values if isinstance(value, torch.Tensor))

    encoder.register_forward_hook(keep)
    assert model(pixel_values=torch.randn(1, 3, 64, 64)).logits.requires_grad
    assert features
    assert not any(feature.requires_grad for feature in features)


def test_activation_checkpointing_changes_nothing() -> None:
    model = make_segformer().train()
    model.config.drop_path_rate = 0.0
    pixel_values, labels = torch.randn(2, 3, 64, 64), torch.randint(0, 3, (2, 64, 64))
    gradients = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()  # its name in every supported version
        torch.manual_seed(0)
        model.zero_grad()
        model(pixel_values=pixel_values, labels=labels).loss.backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, checkpointed in zip(*gradients, strict=True):
        torch.testing.assert_close(checkpointed, plain)


def test_fused_fcn_is_the_same_function_without_norms() -> None:
    model = make_fcn().eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        pixel_values = torch.randn(1, 3, 97, 131)
        fused = model.fuse()
        expected, logits = model(pixel_values).logits, fused(pixel_values).logits
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fused.modules())
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    assert (logits - expected).abs().max() <= 1e-4 * expected.abs().max()


MAKERS: list[Callable[[], PreTrainedModel]] = [make_segformer, make_fcn]


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 4, 64, 64)])
def test_wrong_input_is_named(make: Callable[[], PreTrainedModel], shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"must be \(batch, 3, height, width\)"):
        make()(torch.zeros(shape))
