"""LoRA on the encoder: what is trained, that every update counts, and that the merged model is an ordinary one."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSemanticSegmentation,
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    PreTrainedModel,
    SegformerConfig,
    SegformerForSemanticSegmentation,
)

from hfseg import HfsegFCNConfig, HfsegFCNForSemanticSegmentation, LabelSet, RunConfig, UserError, run, speed_up
from hfseg.models import build_model, encoder_name, has_lora, merge_lora
from hfseg.training import early_stopping
from tests.builders import (
    assert_same_run,
    make_trainer,
    tiny_model,
    unfinished,
    write_config,
    write_resume_config,
)
from tests.conftest import REPOSITORY
from tests.extras import needs

needs("peft")

from hfseg.models.lora import add_lora  # noqa: E402

LABELS = LabelSet(["pet", "background", "boundary"])
CLASSES = {"id2label": LABELS.id2label, "label2id": LABELS.label2id}
KINDS = ("segformer", "stock", "fast", "fcn", "mobilenet_v2")
RANK = 2


def build(kind: str) -> PreTrainedModel:
    """Our SegFormer, transformers' as it is and with fast parts, and two encoders without an `nn.Linear`."""
    if kind == "segformer":
        return tiny_model(LABELS)
    if kind == "fcn":
        return HfsegFCNForSemanticSegmentation(HfsegFCNConfig(blocks_per_stage=1, **CLASSES))
    if kind == "mobilenet_v2":
        config = MobileNetV2Config(depth_multiplier=0.35, semantic_loss_ignore_index=255, **CLASSES)
        model = MobileNetV2ForSemanticSegmentation(config)
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight)  # by its own, activations vanish before the last layer
        return model
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
        **CLASSES,
    )  # fmt: skip
    if kind == "fast":
        with speed_up():
            return AutoModelForSemanticSegmentation.from_config(config)
    return SegformerForSemanticSegmentation(config)


def linear_sizes(model: PreTrainedModel) -> list[int]:
    """Inputs and outputs together, of each linear layer and 1x1 convolution of the encoder."""
    sizes = []
    for layer in model.get_submodule(str(encoder_name(model))).modules():
        if isinstance(layer, nn.Linear):
            sizes.append(layer.in_features + layer.out_features)
        elif isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
            sizes.append(layer.in_channels + layer.out_channels)
    return sizes


def is_of_encoder(model: PreTrainedModel, name: str) -> bool:
    return name.startswith(f"{encoder_name(model)}.")


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def with_updates(model: PreTrainedModel) -> PreTrainedModel:
    """LoRA as after a training, when B is no longer zero."""
    add_lora(model, RANK, 4.0)
    for name, parameter in model.named_parameters():
        if ".lora_B." in name:
            nn.init.normal_(parameter, std=0.1)
    return model


@pytest.mark.parametrize("kind", KINDS)
def test_the_updates_and_the_head_are_trained(kind: str) -> None:
    model = build(kind).eval()
    image = torch.randn(1, 3, 64, 64)
    before, sizes = model(image).logits, linear_sizes(model)
    head = sum(each.numel() for name, each in model.named_parameters() if not is_of_encoder(model, name))
    add_lora(model, RANK, 4.0)
    trained = {name: each.numel() for name, each in model.named_parameters() if each.requires_grad}
    assert all(".lora_" in name for name in trained if is_of_encoder(model, name))
    assert len(sizes) > 10
    assert sum(trained.values()) == RANK * sum(sizes) + head
    torch.testing.assert_close(model(image).logits, before)  # B starts at zero


@pytest.mark.parametrize("kind", KINDS)
def test_every_update_counts_and_is_merged(kind: str) -> None:
    """On an image that is large enough for bands of rows, which read weights where a layer would be called."""
    model = build(kind).eval()
    image = torch.randn(1, 3, 576, 576) if kind in ("segformer", "stock", "fast") else torch.randn(1, 3, 96, 96)
    names, base = set(model.state_dict()), model(image).logits
    with_updates(model)
    logits = model(image).logits
    logits.square().sum().backward()
    unused = "mobilenet_v2.conv_1x1."  # by the head
    updates = {name: each for name, each in model.named_parameters() if ".lora_" in name and unused not in name}
    assert [name for name, each in updates.items() if not each.grad.any()] == []
    assert (logits - base).abs().max() > 1e-3 * base.abs().max()
    merge_lora(model)
    assert set(model.state_dict()) == names
    assert not has_lora(model)
    torch.testing.assert_close(model(image).logits, logits, rtol=0.0, atol=1e-5 * logits.abs().max().item())


@pytest.mark.parametrize("kind", ["segformer", "fcn"])
def test_checkpointed_activations_have_the_same_gradients(kind: str) -> None:
    plain = with_updates(build(kind))
    checkpointed = copy.deepcopy(plain)
    checkpointed.gradient_checkpointing_enable()
    image = torch.randn(2, 3, 64, 64)
    for model in (plain.train(), checkpointed.train()):
        torch.manual_seed(1)
        model(image).logits.square().sum().backward()
    for (name, one), other in zip(plain.named_parameters(), checkpointed.parameters(), strict=True):
        if one.requires_grad and "aux_classifier" not in name:
            torch.testing.assert_close(one.grad, other.grad, msg=name)


@pytest.mark.parametrize("kind", ["segformer", "stock", pytest.param("fcn", marks=pytest.mark.slow)])
def test_training(kind: str, tmp_path: Path) -> None:
    """Averaged, scored and stopped as any other, bitwise the same after a resume; stock code loads the merged one."""
    settings = {
        "ema": 0.5, "save_steps": 1, "eval_steps": 1, "eval_strategy": "steps", "load_best_model_at_end": True,
        "metric_for_best_model": "eval_num_pixels", "learning_rate": 0.01, "max_steps": 6,
        "restore_callback_states_from_checkpoint": True,
    }  # fmt: skip
    torch.manual_seed(0)
    model = build(kind)
    start = copy_of(model)
    add_lora(model, RANK, 4.0)
    resumed = make_trainer(tmp_path, LABELS, copy.deepcopy(model), **settings)
    trainer = make_trainer(tmp_path, LABELS, model, **settings)
    for each in (trainer, resumed):
        each.add_callback(early_stopping(2, each.args)[0])
    trainer.train()
    assert (trainer.state.global_step, trainer.state.best_global_step) == (3, 1)  # none is better than the first
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    end = copy_of(model)
    assert all(value.equal(resumed.model.state_dict()[name]) for name, value in end.items())
    best = load_file(tmp_path / "checkpoint-1" / "ema.safetensors")
    assert all(value.equal(best[name]) for name, value in end.items())
    for name, value in end.items():
        before = start.get(name.replace(".base_layer", ""))
        if before is None:
            assert value.any(), name
        elif is_of_encoder(model, name):
            assert value.equal(before), name  # running statistics too
        elif value.is_floating_point():
            assert not value.equal(before), name
    check_merged(trainer.model, build(kind), tmp_path)


def check_merged(model: PreTrainedModel, plain: PreTrainedModel, folder: Path) -> None:
    """What is saved has the names that a model without LoRA is saved with, and computes the same."""
    image = torch.randn(1, 3, 64, 64)
    logits = model.eval()(image).logits
    merge_lora(model)
    for name, each in (("merged", model), ("plain", plain)):
        each.save_pretrained(folder / name)
    saved, expected = (load_file(folder / name / "model.safetensors") for name in ("merged", "plain"))
    assert saved.keys() == expected.keys()
    loaded, info = type(model).from_pretrained(folder / "merged", output_loading_info=True)
    assert not any(info.values())
    torch.testing.assert_close(loaded.eval()(image).logits, logits, rtol=0.0, atol=1e-5 * logits.abs().max().item())


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "scripts/run_seg.py", *map(str, words)]
    return subprocess.run(line, cwd=REPOSITORY, capture_output=True, text=True)


def test_a_run_and_a_resumed_one(pets: Path, tmp_path: Path) -> None:
    """The whole command; its model folder is stock's, and scored again it has the same scores."""
    settings = ["train.save_total_limit=4", "model.lora={r: 2, alpha: 4}"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    optim = {"ema": 0.9, "layer_decay": 0.8}
    result = command("--config", write_resume_config(whole, pets, **optim), *settings)
    assert result.returncode == 0, result.stderr
    folder = whole / "run"
    model, info = AutoModelForSemanticSegmentation.from_pretrained(folder / "model", output_loading_info=True)
    assert type(model) is SegformerForSemanticSegmentation
    assert not any(info.values())
    made = json.loads((folder / "provenance.json").read_text())
    assert made["num_parameters"] == model.num_parameters()
    head = sum(each.numel() for each in model.decode_head.parameters())
    assert made["num_trained"] == RANK * sum(linear_sizes(model)) + head
    assert (
        "* **LoRA:** the encoder's linear layers, by updates of rank 2 (alpha 4)" in (folder / "README.md").read_text()
    )
    output_dir = unfinished(whole, parts)
    for step in (9, 12):
        (output_dir / f"checkpoint-{step}").rename(tmp_path / str(step))
    config = RunConfig.load(write_resume_config(parts, pets, **optim), settings)
    run(config, resume=True)
    assert_same_run(whole, parts)
    scores = json.loads((output_dir / "metrics.json").read_text())
    again = run(config, eval_only=True)
    assert all(again[key] == scores[key] for key in scores if key.endswith("iou"))


def test_what_is_scored_as_it_is_has_no_updates(tmp_path: Path) -> None:
    config = RunConfig.from_tree(
        {"name": "a", "data": {"name": "synthetic_pet"}, "model": {"lora": {"r": 2, "alpha": 4}}}, "test"
    ).model
    assert has_lora(build_model(config, LABELS))
    assert not has_lora(build_model(config, LABELS, exact=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.lora={r: 2, alpha: 4}", "model.freeze=encoder"], r"`lora` freezes the encoder's own weights"),
        (["model.lora={r: 0, alpha: 4}"], r"model\.lora\.r: .*greater than or equal to 1"),
        (["model.lora={r: 2, alpha: 0}"], r"model\.lora\.alpha: .*greater than 0"),
        (["model.lora={r: 2}"], r"model\.lora\.alpha: .*required"),
        (["model.lora={rank: 2}"], r"model\.lora\.rank"),
        (
            ["model.lora={r: 2, alpha: 4}", "train.push_to_hub=true", "hub.repo=tester/pets"],
            r"hub_strategy=every_save sends checkpoints",
        ),
        (
            ["model.lora={r: 2, alpha: 4}", "train.gradient_checkpointing=true",
             "train.gradient_checkpointing_kwargs={use_reentrant: true}"],
            "no gradient reaches the updates",
        ),
    ],
)  # fmt: skip
def test_refused_before_the_first_step(pets: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(RunConfig.load(write_config(tmp_path, pets), overrides))
    assert not (tmp_path / "run").exists()


def test_a_missing_extra_is_named(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)  # as where it is not installed
    with pytest.raises(UserError, match=r"^model\.lora needs .*: pip install 'hfseg\[peft\]'\.$"):
        run(RunConfig.load(write_config(tmp_path, pets), ["model.lora={r: 2, alpha: 4}"]))
    assert not (tmp_path / "run").exists()


def test_an_encoder_without_linear_layers_or_a_name() -> None:
    model: Any = tiny_model(LABELS)
    model.segformer = nn.Conv2d(3, 8, 3)
    with pytest.raises(UserError, match=r"^model\.lora: the encoder of .* has no linear layers\.$"):
        add_lora(model, RANK, 4.0)
    model.base_model_prefix = "nothing"
    with pytest.raises(UserError, match=r"^model\.lora: HfsegSegformerForSemanticSegmentation does not say which"):
        add_lora(model, RANK, 4.0)
