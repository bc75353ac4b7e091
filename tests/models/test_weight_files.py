"""Weights as training programs leave them: unwrapped, converted by the command that is named, strays not read."""

import argparse
import json
import logging
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfseg import LabelSet, UserError
from hfseg.config import ModelConfig
from hfseg.models import build_model, load_model
from hfseg.models.weight_files import convert, read_safetensors, read_weights

STATE = {"backbone.a.weight": torch.arange(6.0).reshape(2, 3), "classifier.bias": torch.ones(2)}


def with_prefix(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in STATE.items()}


@pytest.mark.parametrize(
    "content",
    [
        STATE,
        {"model": STATE, "optimizer": {"state": {}}, "epoch": 2, "args": argparse.Namespace(lr=0.01)},
        {"state_dict": with_prefix("model."), "epoch": 1, "pytorch-lightning_version": "2.0", "callbacks": {}},
        {"state_dict": with_prefix("net._orig_mod."), "hyper_parameters": {"lr": 0.1}},
        {"model_state_dict": with_prefix("module."), "loss": 0.5},
        with_prefix("_orig_mod.module."),
        {"state_dict": with_prefix("model.") | {"criterion.weight": torch.ones(2)}},
        {"model": STATE, "model_ema": with_prefix("other.")},
        {"meta": {"CLASSES": ("a", "b")}, "state_dict": STATE, "state_dict_ema": with_prefix("other.")},
        {"ema_state_dict": with_prefix("module."), "epoch": 1},
    ],
    ids=["plain", "torchvision", "lightning", "compiled", "parallel", "both", "loss", "ema", "mmseg", "only-ema"],
)
def test_the_weights_are_taken_out(content: dict, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.save(content, tmp_path / "x.ckpt")
    found = read_weights(tmp_path / "x.ckpt", "x")
    assert found.keys() == STATE.keys()
    assert all(found[name].equal(tensor) for name, tensor in STATE.items())
    for beside in ("criterion.weight", "model_ema", "state_dict_ema"):
        there = beside in content or beside in content.get("state_dict", ())
        assert (beside in caplog.text) == there


@pytest.mark.parametrize("content", [b"<html>", b"version https://git-lfs", b"\x89HDF\r\n", b"\0" * 600])
def test_what_is_no_file_of_torch_is_told(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(UserError, match="is no checkpoint of torch: it begins with") as error:
        read_weights(tmp_path / "x.pth", "x")
    assert "weights_only" not in str(error.value)


def test_two_states_of_which_none_is_the_models(tmp_path: Path) -> None:
    torch.save({"teacher": STATE, "student": STATE}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"no state dict in it, but \['teacher', 'student'\]"):
        read_weights(tmp_path / "x.pth", "x")


def test_a_safetensors_file(tmp_path: Path) -> None:
    save_file(with_prefix("module."), tmp_path / "x.safetensors")
    assert read_weights(tmp_path / "x.safetensors", "x").keys() == STATE.keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [({"state_dict": Path}, "holds more than plain tensors"), ({"a": 1}, "no state dict"), (3, "no state dict")],
)
@pytest.mark.parametrize("kind", ["segformer", "fcn"])
def test_what_has_no_weights_is_told(content: object, said: str, kind: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match=said) as error:
        build_model(ModelConfig(type=kind, init=str(tmp_path / "x.pth")), LabelSet(["a", "b"]))
    assert len(str(error.value)) < 900
    assert "\\x1b" not in str(error.value)


def test_strays_are_named_and_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    save_file({"backbone.a.weight": torch.zeros(2, 3)}, tmp_path / "model-00001-of-00002.safetensors")
    save_file({"old": torch.zeros(1)}, tmp_path / "model_old.safetensors")
    with caplog.at_level(logging.WARNING):
        found = read_safetensors(tmp_path)
    assert found.keys() == STATE.keys()
    assert found["backbone.a.weight"].equal(STATE["backbone.a.weight"])
    assert "model_old.safetensors" in caplog.text
    assert "model-00001-of-00002.safetensors" in caplog.text


@pytest.mark.parametrize(
    ("weight_map", "said"),
    [
        ({"old": "model_old.safetensors", "a": "model-2.safetensors"}, r"names 1 of 2 files .*'model-2\.safetensors'"),
        ({"old": "../x/model_old.safetensors"}, "not in the folder"),
        ({"old": 3}, "has no `weight_map`"),
        (None, "has no `weight_map`"),
    ],
)
def test_an_index_decides(weight_map: object, said: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    save_file({"old": torch.zeros(1)}, folder / "model_old.safetensors")
    with pytest.raises(UserError, match=r"There is \['model_old\.safetensors'\]: give"):
        read_safetensors(folder)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError, match=said):
        read_safetensors(folder)
    index.write_text(json.dumps({"weight_map": {"old": "model_old.safetensors"}}))
    assert read_safetensors(folder).keys() == {"old"}


def test_the_command_that_is_named_converts(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(plain, tmp_path / "it's a folder")
    expected = load_file(folder / "model.safetensors")
    torch.save(expected, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError) as error:
        load_model(str(folder))
    python, option, code, argument = shlex.split(str(error.value).partition("Convert it once: ")[2])
    assert (python, option) == ("python", "-c")
    monkeypatch.setattr(sys, "argv", [option, argument])
    exec(code, {})
    assert all(load_file(folder / "model.safetensors")[name].equal(tensor) for name, tensor in expected.items())
    load_model(str(folder))


def test_a_folders_shards_are_converted_under_their_own_names(tmp_path: Path) -> None:
    """Some models have parts that are called as a wrapper is."""
    shards = {"model.a": torch.zeros(1), "head.b": torch.ones(2)}, {"model.c": torch.ones(3)}
    for number, shard in enumerate(shards):
        torch.save(shard, tmp_path / f"pytorch_model-0000{number + 1}-of-00002.bin")
    convert(tmp_path)
    assert read_safetensors(tmp_path).keys() == {"model.a", "head.b", "model.c"}


def test_pickled_shards_are_those_of_the_index(tmp_path: Path) -> None:
    names = [f"pytorch_model-0000{number}-of-00002.bin" for number in (1, 2)]
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": names[0], "b": names[1]}}))
    torch.save({"a": torch.zeros(1)}, tmp_path / names[0])
    with pytest.raises(UserError, match=r"index\.json names 1 of 2 files that are not in the folder"):
        convert(tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    torch.save({"b": torch.zeros(1)}, tmp_path / names[1])
    torch.save({"old": torch.zeros(1)}, tmp_path / "pytorch_model_old.bin")
    convert(tmp_path)
    assert read_safetensors(tmp_path).keys() == {"a", "b"}
    torch.save({"c": torch.zeros(1)}, tmp_path / "pytorch_model.bin")  # what transformers looks for first
    convert(tmp_path)
    assert read_safetensors(tmp_path).keys() == {"c"}


def test_a_run_without_a_model_is_told(tmp_path: Path) -> None:
    (tmp_path / "run_config.yaml").write_text("name: x")
    (tmp_path / "model").mkdir()
    for load in (load_model, lambda source: build_model(ModelConfig(init=source), LabelSet(["a", "b"]))):
        with pytest.raises(UserError, match=r"a run that has left no model: .*--resume"):
            load(str(tmp_path))
