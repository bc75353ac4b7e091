"""Models of transformers, built small from their configs: trained by the whole run, saved, loaded by stock code."""

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    AutoModelForSemanticSegmentation,
    BaseImageProcessor,
    BertConfig,
    BertForMaskedLM,
    ConvNextConfig,
    DPTConfig,
    DPTForSemanticSegmentation,
    DPTImageProcessor,
    MobileNetV2Config,
    MobileNetV2ForImageClassification,
    MobileNetV2ForSemanticSegmentation,
    MobileNetV2ImageProcessor,
    MobileViTImageProcessor,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    UperNetConfig,
    UperNetForSemanticSegmentation,
)

from hfseg import LabelSet, RunConfig, SegMetrics, UserError, load_dataset, predict, run
from hfseg.config import ModelConfig
from hfseg.config.sections import FreezeStages
from hfseg.models import build_model, encoder_name, processor_beside, reload
from tests.builders import write_config

LABELS = LabelSet(["a", "b", "c"])
MODES = {
    "segformer": "eval={mode: slide, crop: 32, stride: 24}",
    "upernet": "eval={mode: whole, flip: true}",
    "mobilenet_v2": "eval={}",
}
KINDS = (*MODES, "dpt")


def build(kind: str, num_labels: int = 5) -> tuple[PreTrainedModel, BaseImageProcessor]:
    torch.manual_seed(0)
    if kind == "segformer":
        config = SegformerConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2],
            decoder_hidden_size=16, num_labels=num_labels,
        )  # fmt: skip
        return SegformerForSemanticSegmentation(config), SegformerImageProcessor(size={"height": 64, "width": 64})
    if kind == "upernet":
        backbone = ConvNextConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], out_features=["stage1", "stage2", "stage3", "stage4"]
        )
        config = UperNetConfig(
            backbone_config=backbone,
            hidden_size=16,
            auxiliary_in_channels=16,
            auxiliary_channels=8,
            num_labels=num_labels,
        )
        return UperNetForSemanticSegmentation(config), SegformerImageProcessor(size={"height": 64, "width": 64})
    if kind == "dpt":
        config = DPTConfig(
            hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, image_size=64,
            backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
            num_labels=num_labels,
        )  # fmt: skip
        return DPTForSemanticSegmentation(config), DPTImageProcessor(size={"height": 96, "width": 96})
    config = MobileNetV2Config(depth_multiplier=0.35, num_labels=num_labels)
    processor = MobileNetV2ImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 48, "width": 48})
    return MobileNetV2ForSemanticSegmentation(config), processor


def save(kind: str, folder: Path, num_labels: int = 5) -> PreTrainedModel:
    model, processor = build(kind, num_labels)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def load(source: Path, **changes: object) -> PreTrainedModel:
    return build_model(ModelConfig(type="auto", init=str(source), **changes), LABELS)


def verdict(caplog: pytest.LogCaptureFixture) -> str:
    (record,) = caplog.records
    assert record.name == "hfseg.models.loading"
    return record.getMessage()


@pytest.mark.parametrize("kind", MODES)
def test_trains_scores_and_reloads(kind: str, pets: Path, tmp_path: Path) -> None:
    save(kind, tmp_path / "init")
    overrides = [
        f"model={{type: auto, init: {tmp_path / 'init'}}}", MODES[kind], "train.max_steps=2", "train.eval_steps=1",
        "train.save_steps=1", "train.logging_steps=1", "train.learning_rate=1e-2",
    ]  # fmt: skip
    config = RunConfig.load(write_config(tmp_path, pets), overrides)
    metrics = run(config)
    assert 0 < metrics["test_mean_iou"] < 1
    folder = tmp_path / "run" / "model"
    stock, info = AutoModelForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values())
    assert stock.config.id2label == {0: "pet", 1: "background", 2: "boundary"}
    ours = build_model(ModelConfig(type="auto", init=str(folder)), LabelSet(["pet", "background", "boundary"]))
    pixel_values = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(pixel_values).logits, stock.eval()(pixel_values).logits, rtol=1e-5, atol=0
        )
    assert all(tensor.equal(stock.state_dict()[name]) for name, tensor in ours.state_dict().items())
    data, labels = load_dataset(config.data)
    scored = SegMetrics(labels)
    masks = predict(stock, [row["image"] for row in data["test"]], eval=config.eval)
    scored.update(masks, [np.array(row["label"]) for row in data["test"]])
    assert scored.compute()["mean_iou"] == pytest.approx(metrics["test_mean_iou"], abs=1e-9)
    # the best checkpoint, not the last and not a new head: scoring it again gives what the training saw
    again = run(config, eval_only=True)
    assert {key: again[key] for key in metrics if "iou" in key} == {
        key: metrics[key] for key in metrics if "iou" in key
    }
    assert "transformers" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_or_all_but_the_classifier(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model = save(kind, tmp_path, num_labels=3).eval()
    same = load(tmp_path).eval()
    assert "exact: every tensor was loaded" in verdict(caplog)
    expected = model.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in same.state_dict().items())
    caplog.clear()
    other = build_model(ModelConfig(type="auto", init=str(tmp_path)), LabelSet(["a", "b"])).eval()
    assert "all but the classifier, which is new: the checkpoint has 3 classes, this task 2" in verdict(caplog)
    assert other(torch.randn(1, 3, 64, 64)).logits.shape[1] == 2
    shapes = {name: tensor for name, tensor in other.state_dict().items() if tensor.shape[:1] != (2,)}
    assert all(tensor.equal(expected[name]) for name, tensor in shapes.items())
    assert 0 < len(expected) - len(shapes) <= 4  # weight and bias of the classifier, and of an auxiliary one


def test_a_classification_checkpoint_gives_the_encoder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    model = MobileNetV2ForImageClassification(MobileNetV2Config(depth_multiplier=0.35))
    model.save_pretrained(tmp_path)
    ours = load(tmp_path)
    assert "encoder only: 1" in verdict(caplog)
    expected = model.mobilenet_v2.state_dict()
    assert all(tensor.equal(expected[name]) for name, tensor in ours.mobilenet_v2.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("segformer", "segformer.encoder.layer_norm.0.weight"),
        ("mobilenet_v2", "mobilenet_v2.conv_stem.first_conv.convolution.weight"),
        ("upernet", "backbone.embeddings.patch_embeddings.weight"),
    ],
)
def test_a_missing_encoder_tensor_is_an_error(kind: str, name: str, tmp_path: Path) -> None:
    save(kind, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    del state[name]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match="1 tensors are missing, left over or of another shape"):
        load(tmp_path)


def spoil_model(folder: Path) -> None:
    BertForMaskedLM(
        BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=9)
    ).save_pretrained(folder)


def spoil_type(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "nothing-known"}))


def spoil_torn(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def spoil_missing(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("spoil", [spoil_model, spoil_type, spoil_torn, spoil_missing])
def test_what_is_no_such_model_is_refused(spoil: Callable[[Path], None], tmp_path: Path) -> None:
    save("segformer", tmp_path)
    spoil(tmp_path)
    with pytest.raises(
        UserError, match=r"cannot be loaded as a semantic segmentation model|is torn|holds no model.safetensors"
    ) as error:
        load(tmp_path)
    assert "\n" not in str(error.value)


def test_processors_keep_their_size_and_colours(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    own = DPTImageProcessor(size={"height": 32, "width": 64}, image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6])
    own.save_pretrained(tmp_path)
    ours = processor_beside(tmp_path, None, "x")
    found, expected = (each(images=image, return_tensors="pt")["pixel_values"] for each in (ours, own))
    assert found.shape == (1, 3, 32, 64)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert processor_beside(tmp_path, 48, "x").size == {"height": 48, "width": 48}
    MobileNetV2ImageProcessor(size={"shortest_edge": 40}, do_normalize=False).save_pretrained(tmp_path)
    ours = processor_beside(tmp_path, None, "x")
    assert ours(images=image, return_tensors="pt")["pixel_values"].shape == (1, 3, 40, 40)  # nothing is cut off
    torch.testing.assert_close(
        ours(images=image, do_resize=False, return_tensors="pt")["pixel_values"][0],
        torch.from_numpy(image).permute(2, 0, 1) / 255,
    )
    SegformerImageProcessor(do_rescale=False, image_mean=[100.0] * 3, image_std=[50.0] * 3).save_pretrained(tmp_path)
    torch.testing.assert_close(
        processor_beside(tmp_path, 40, "x")(images=image, do_resize=False, return_tensors="pt")["pixel_values"][0],
        (torch.from_numpy(image).permute(2, 0, 1).float() - 100) / 50,
    )


def test_processors_that_cannot_be_kept_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"processor\.save_pretrained"):
        processor_beside(tmp_path, None, "x")
    MobileViTImageProcessor().save_pretrained(tmp_path)  # blue, green, red
    with pytest.raises(UserError, match="swapping channels"):
        processor_beside(tmp_path, None, "x")
    assert AutoImageProcessor.from_pretrained(tmp_path).do_flip_channel_order


def test_the_encoder_can_be_frozen(tmp_path: Path) -> None:
    for kind, name in (("segformer", "segformer"), ("upernet", "backbone"), ("dpt", "dpt")):
        save(kind, tmp_path / kind)
        model = load(tmp_path / kind, freeze="encoder")
        frozen = {each for each, parameter in model.named_parameters() if not parameter.requires_grad}
        assert frozen == {each for each, _ in model.named_parameters() if each.startswith(name + ".")}
        with pytest.raises(UserError, match=r"stages of .* are not known"):
            load(tmp_path / kind, freeze=FreezeStages(stages=1))
    model.base_model_prefix = ""
    assert encoder_name(model) is None


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model, _ = build("segformer")
    save("segformer", tmp_path, num_labels=3)
    with pytest.raises(UserError, match="does not fit the model"):
        reload(model, tmp_path)
    model.save_pretrained(tmp_path)
    expected = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    reload(model, tmp_path)
    assert all(tensor.equal(expected[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"init": None}, "needs `init`"), ({"init": "a/b", "size": "b1"}, "`size` is for segformer and fcn")],
)
def test_settings_that_mean_nothing(changes: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ModelConfig(type="auto", **changes)
