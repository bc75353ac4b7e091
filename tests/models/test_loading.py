"""Weights in: every layout, with a true verdict; and what is refused."""

import json
import logging
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from transformers import SegformerConfig, SegformerForImageClassification, SegformerForSemanticSegmentation

from hfseg import HfsegSegformerForSemanticSegmentation, LabelSet, UserError
from hfseg.config import ModelConfig
from hfseg.config.sections import FreezeStages
from hfseg.models import build_model

LABELS = LabelSet(["a", "b", "c"])
SIZE = {"id2label": LABELS.id2label, "label2id": LABELS.label2id}


@pytest.fixture(autouse=True)
def _hear(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)


def verdict(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = [record for record in caplog.records if record.name == "hfseg.models.loading"]
    return record.getMessage()


def load(source: Path, **changes: object) -> torch.nn.Module:
    return build_model(ModelConfig(init=str(source), **changes), LABELS).eval()


def stock() -> SegformerForSemanticSegmentation:
    model = SegformerForSemanticSegmentation(SegformerConfig(**SIZE)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
        model.decode_head.batch_norm.running_mean.normal_()
    return model


def assert_same_function(ours: torch.nn.Module, other: torch.nn.Module) -> None:
    pixel_values = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = other(pixel_values).logits
        assert (ours(pixel_values).logits - expected).abs().max() <= 1e-5 * expected.abs().max()


def to_research(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:  # noqa: C901
    """The original code's names, written here a second time and the other way round."""
    names = {"query": "q", "sr": "sr", "layer_norm": "norm"}
    result = {}
    for name, tensor in state.items():
        match name.split("."):
            case ["segformer", "encoder", "patch_embeddings", stage, part, leaf]:
                new = f"backbone.patch_embed{int(stage) + 1}.{'proj' if part == 'proj' else 'norm'}.{leaf}"
            case ["segformer", "encoder", "layer_norm", stage, leaf]:
                new = f"backbone.norm{int(stage) + 1}.{leaf}"
            case ["segformer", "encoder", "block", stage, layer, "attention", "self", "value", leaf]:
                continue
            case ["segformer", "encoder", "block", stage, layer, "attention", "self", "key", leaf]:
                tensor = torch.cat([tensor, state[name.replace("key", "value")]])
                new = f"backbone.block{int(stage) + 1}.{layer}.attn.kv.{leaf}"
            case ["segformer", "encoder", "block", stage, layer, "attention", "self", part, leaf]:
                new = f"backbone.block{int(stage) + 1}.{layer}.attn.{names[part]}.{leaf}"
            case ["segformer", "encoder", "block", stage, layer, "attention", "output", "dense", leaf]:
                new = f"backbone.block{int(stage) + 1}.{layer}.attn.proj.{leaf}"
            case ["segformer", "encoder", "block", stage, layer, "mlp", *rest]:
                rest = [{"dense1": "fc1", "dense2": "fc2"}.get(word, word) for word in rest]
                new = f"backbone.block{int(stage) + 1}.{layer}.mlp.{'.'.join(rest)}"
            case ["segformer", "encoder", "block", stage, layer, norm, leaf]:
                new = f"backbone.block{int(stage) + 1}.{layer}.norm{norm[-1]}.{leaf}"
            case ["decode_head", "linear_c", stage, "proj", leaf]:
                new = f"decode_head.linear_c{int(stage) + 1}.proj.{leaf}"
            case ["decode_head", part, leaf]:
                table = {
                    "linear_fuse": "linear_fuse.conv",
                    "batch_norm": "linear_fuse.bn",
                    "classifier": "linear_pred",
                }
                new = f"decode_head.{table[part]}.{leaf}"
        result[new] = tensor
    result["decode_head.conv_seg.weight"] = torch.zeros(3, 128, 1, 1)  # the original's unused leftover
    return result


@pytest.mark.parametrize("original_format", [True, False])
def test_both_stock_layouts_are_exact(original_format: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = stock()
    model.save_pretrained(tmp_path, save_original_format=original_format)
    assert_same_function(load(tmp_path), model)
    assert "exact" in verdict(caplog)


@pytest.mark.parametrize("original_format", [True, False])
def test_from_pretrained_reads_both_layouts_and_saves_published_names(original_format: bool, tmp_path: Path) -> None:
    model = stock()
    model.save_pretrained(tmp_path / "stock", save_original_format=original_format)
    ours, info = HfsegSegformerForSemanticSegmentation.from_pretrained(tmp_path / "stock", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert_same_function(ours, model)
    ours.save_pretrained(tmp_path / "ours")
    assert set(load_file(tmp_path / "ours" / "model.safetensors")) == set(ours.state_dict())
    assert "segformer.encoder.block.0.0.attention.self.query.weight" in ours.state_dict()


def test_research_layout_is_exact(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = stock()
    model.save_pretrained(tmp_path)
    state = to_research(load_file(tmp_path / "model.safetensors"))
    torch.save({"state_dict": state, "meta": {}}, tmp_path / "segformer.b0.pth")
    assert_same_function(load(tmp_path / "segformer.b0.pth"), model)
    assert "exact" in verdict(caplog)


@pytest.mark.parametrize("original_format", [True, False])
def test_classification_checkpoints_give_the_encoder(
    original_format: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = SegformerForImageClassification(SegformerConfig(num_labels=10)).eval()
    model.save_pretrained(tmp_path, save_original_format=original_format)
    ours = load(tmp_path)
    pixel_values = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        features = model.segformer(pixel_values).last_hidden_state
        torch.testing.assert_close(
            ours(pixel_values, output_hidden_states=True).hidden_states[-1], features, rtol=1e-4, atol=1e-5
        )
    assert "encoder only, because it has no head" in verdict(caplog)
    assert ours.config.id2label == LABELS.id2label


def test_other_classes_keep_all_but_the_classifier(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = SegformerForSemanticSegmentation(SegformerConfig(num_labels=19))
    model.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert "all but the classifier, which is new: the checkpoint has 19 classes, this task 3" in verdict(caplog)
    assert ours.decode_head.linear_fuse.weight.equal(model.decode_head.linear_fuse.weight)
    assert ours.config.id2label == LABELS.id2label


def test_another_head_is_not_half_loaded(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stock().save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["decode_head.convs.0.conv.weight"] = state.pop("decode_head.linear_c.0.proj.weight")
    save_file(state, tmp_path / "model.safetensors")
    ours = load(tmp_path)
    assert "encoder only, because its head is another one" in verdict(caplog)
    assert not ours.decode_head.linear_c[1].proj.weight.equal(state["decode_head.linear_c.1.proj.weight"])


def describe_as(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def spoil_torn(folder: Path) -> str:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    return "is torn"


def spoil_type(folder: Path) -> str:
    describe_as(folder, model_type="bert")
    return "is a 'bert' checkpoint"


def spoil_depth(folder: Path) -> str:
    describe_as(folder, depths=[3, 4, 6, 3], hidden_sizes=[64, 128, 320, 512], decoder_hidden_size=768)
    return "set model.size=b2"


def spoil_encoder(folder: Path) -> str:
    state = load_file(folder / "model.safetensors")
    del state["segformer.encoder.layer_norm.0.weight"]
    save_file(state, folder / "model.safetensors")
    return "holds no weights of this encoder"


def spoil_config(folder: Path) -> str:
    (folder / "config.json").write_text("{not json")
    return "config.json is no JSON that can be read"


def spoil_missing(folder: Path) -> str:
    (folder / "model.safetensors").unlink()
    return "no model.safetensors"


@pytest.mark.parametrize("spoil", [spoil_torn, spoil_type, spoil_depth, spoil_encoder, spoil_config, spoil_missing])
def test_what_does_not_fit_is_refused(tmp_path: Path, spoil: object) -> None:
    stock().save_pretrained(tmp_path)
    said = spoil(tmp_path)  # type: ignore[operator]
    with pytest.raises(UserError) as error:
        load(tmp_path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": "b9"}, "b0, b1, b2, b3, b4, b5"),
        ({"type": "fcn", "size": "b0"}, "resnet50, resnet101"),
        ({"init": "/nowhere/at/all"}, "is no folder here and cannot be had from the Hub"),
        ({"init": "someone/something"}, "cannot be had from the Hub"),
        ({"type": "fcn", "size": "resnet50", "init": "ResNet50_Weights.NONE"}, "not one of torchvision's weights"),
        ({"freeze": FreezeStages(stages=5)}, "this encoder has 4 stages"),
    ],
)
def test_wrong_settings_are_named(changes: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        build_model(ModelConfig(**changes), LABELS)
    assert said in str(error.value)


def test_pickled_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": Path}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="holds more than plain tensors"):
        load(tmp_path / "evil.pth")


FCN = {"type": "fcn", "size": "resnet50"}


@pytest.mark.parametrize(
    ("classes", "auxiliary", "said"),
    [(3, True, "exact"), (21, True, "21 classes, this task 3"), (3, False, "all but the auxiliary head")],
)
def test_torchvision_fcn(
    classes: int, auxiliary: bool, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    network = torchvision.models.segmentation.fcn_resnet50(
        weights=None, weights_backbone=None, num_classes=classes, aux_loss=auxiliary
    ).eval()
    torch.save(network.state_dict(), tmp_path / "fcn.pth")
    ours = load(tmp_path / "fcn.pth", **FCN)
    assert said in verdict(caplog)
    if classes == 3:
        pixel_values = torch.randn(1, 3, 97, 131)
        with torch.no_grad():
            logits = ours(pixel_values).logits
            upsampled = torch.nn.functional.interpolate(logits, size=(97, 131), mode="bilinear", align_corners=False)
            assert (upsampled - network(pixel_values)["out"]).abs().max() <= 1e-5 * max(1.0, upsampled.abs().max())


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_imagenet_resnet(suffix: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = torchvision.models.resnet50(weights=None).state_dict()  # timm's ResNet-50 has the same names
    if suffix == "pth":
        torch.save(state, tmp_path / "resnet50.pth")
        ours = load(tmp_path / "resnet50.pth", **FCN)
    else:
        save_file(state, tmp_path / "model.safetensors")
        ours = load(tmp_path, **FCN)
    assert "encoder only, because it has no head" in verdict(caplog)
    assert ours.backbone["layer4"][2].conv3.weight.equal(state["layer4.2.conv3.weight"])


def test_torchvision_enum_is_asked_for_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real download code, against a cache that already holds the file under its official name."""
    weights = torchvision.models.ResNet50_Weights.IMAGENET1K_V2
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(
        torchvision.models.resnet50(weights=None).state_dict(), tmp_path / "checkpoints" / Path(weights.url).name
    )
    ours = build_model(ModelConfig(**FCN, init="ResNet50_Weights.IMAGENET1K_V2"), LABELS)
    saved = torch.load(tmp_path / "checkpoints" / Path(weights.url).name, weights_only=True)
    assert ours.backbone["conv1"].weight.equal(saved["conv1.weight"])
