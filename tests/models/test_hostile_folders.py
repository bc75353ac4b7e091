"""Folders whose makers were careless or hostile: each gives a result or a UserError, in every door; no code runs."""

import ast
import contextlib
import json
import os
import pty
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSemanticSegmentation,
    BeitConfig,
    MobileViTConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from hfseg import LabelSet, SegmentationPipeline, UserError, predict
from hfseg.config import ModelConfig, RunConfig
from hfseg.inference import predict_images
from hfseg.inference.onnx import check_beside, metadata, own_size
from hfseg.inference.predictor import with_processor
from hfseg.inference.run_predictor import load_predictor
from hfseg.models import build_model, dry_run, load_model, load_processor
from hfseg.models.model_files import ModelConfigSchema, read_config_file
from tests.conftest import REPOSITORY

LABELS = LabelSet(["a", "b", "c"])
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
DEEP: Any = 0
for _ in range(60):
    DEEP = [DEEP]
ESCAPE = "\x1b[31mred\x1b]0;title\x07"


def test_a_pipe_in_a_config_s_place_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "config.json")
    for name, said in {"config.json": "no regular file", "nothing.json": "not there"}.items():
        with pytest.raises(
            UserError, match=rf"{said}, where a text file is needed\. Save or download the model again"
        ):
            read_config_file(tmp_path / name, ModelConfigSchema)


def by_predict(folder: Path) -> None:
    predict(folder, IMAGE, return_probabilities=True)


def by_predictor(folder: Path) -> None:
    predictor, labels, _ = load_predictor(str(folder), {}, torch.device("cpu"))
    (found,) = predictor.segment([predictor.prepare(IMAGE)], confidence=True)
    assert found.ids.shape == (IMAGE.height, IMAGE.width)
    assert 0 < found.confidence <= 1
    assert all(str(name).isprintable() for name in labels.names)


def by_pipeline_and_export(folder: Path) -> None:
    """Of the export all but the tracing, which takes seconds and sees nothing of the folder's text."""
    model, processor = with_processor(folder)  # as `predict` loads what it gets a folder of
    predict(model, IMAGE, processor, return_probabilities=True)
    check_beside(folder / "out" / "x.onnx", processor, str(folder))
    metadata(model, processor)
    own_size(processor)
    assert all(0 < part["score"] <= 1 for part in SegmentationPipeline(model, processor)(IMAGE))


def by_training(folder: Path) -> None:
    config = RunConfig(name="x", data={"name": "synthetic_pet"}, model={"type": "auto", "init": str(folder)})
    load_processor(config)
    build_model(config.model, LABELS, exact=True)(pixel_values=torch.zeros(1, 3, 32, 32))


def by_segformer(folder: Path) -> None:
    build_model(ModelConfig(type="segformer", init=str(folder)), LABELS)


DOORS = (by_predict, by_predictor, by_pipeline_and_export, by_training, by_segformer)

NUMBERS = (0, -1, 10**9, 10**30, 1.5, "8", None, [], {}, True)
CONFIGS: list[dict[str, Any]] = [
    *({"hfseg": value} for value in (5, "text", [1], True, {"palette": 3}, {"palette": "red"})),
    *({"hfseg": {"palette": value}} for value in ([[0, 0, 256]] * 3, [[0, 0]] * 3, [[0, 0, -1]] * 3, [[0, 0, 0]] * 2)),
    *({"hfseg": {"palette": value}} for value in (["#ff0000"] * 3, [[0.5, 0, 0]] * 3, [], [None] * 3)),
    *({"hfseg": {"temperature": value}} for value in (0, -1, "2", [], {}, True, 1e400, float("nan"))),
    *({"id2label": value} for value in (["a", "b", "c"], "abc", 3, {}, {"0": "a", "2": "b", "3": "c"}, {"x": "a"})),
    *({"id2label": value} for value in ({"-1": "a"}, {"0": ["a"]}, {"0": None}, {"0": "a"}, {"1.0": "a"}, {"٣": "a"})),
    {"id2label": {"0": "a", "1": "a", "2": "a"}},
    {"id2label": {"0": ESCAPE, "1": ESCAPE, "2": "c"}},
    {"id2label": {"0": "x" * 10**6, "1": "b", "2": "c"}},
    {"id2label": {"0": 1, "1": 2, "2": 3}},
    {"label2id": ["a", "b", "c"]},
    {"label2id": {"z": 7}},
    *({"num_labels": value} for value in (0, -3, 2, "3", 10**12)),
    *(
        {"model_type": value}
        for value in (5, None, ["segformer"], "bert", "nothing-known", "../../etc/passwd", ESCAPE)
    ),
    *({"hidden_sizes": value} for value in ("8", 8, [8, 8, 16], [8, 8, 16, "16"], [-8, 8, 16, 16], [10**7] * 4)),
    *({"depths": value} for value in ("2", [-2, 1, 1, 1], [0, 0, 0, 0], [10**9] * 4, [1, 1, 1, 1], [2, 1, 1], [None])),
    *({"num_attention_heads": value} for value in ([0, 0, 0, 0], [3, 3, 3, 3], "1", [-1, 1, 2, 2])),
    *({"decoder_hidden_size": value} for value in NUMBERS),
    *({"num_channels": value} for value in (1, 4, "3", 0)),
    *({"strides": value} for value in ([0, 2, 2, 2], [4, 2, 2], "4222")),
    *({"patch_sizes": value} for value in ([0, 3, 3, 3], [10**6, 3, 3, 3])),
    *({"sr_ratios": value} for value in ([0, 4, 2, 1], [-1, 4, 2, 1])),
    *({"mlp_ratios": value} for value in ([10**9] * 4, [0.1] * 4, ["4"] * 4)),
    *({"hidden_act": value} for value in ("evil", 7, None)),
    *({"layer_norm_eps": value} for value in ("x", -1e9)),
    {"drop_path_rate": 7},
    {"semantic_loss_ignore_index": "255"},
    {"attn_implementation": "someone/kernel"},
    {"quantization_config": {"quant_method": "bitsandbytes"}},
    {"quantization_config": 3},
    {"dtype": "nothing"},
    {"backbone_config": DEEP},
    {"deep": DEEP},
]
PROCESSORS: list[dict[str, Any]] = [
    *({"size": value} for value in (0, -1, "32", [32, 32], {}, {"height": 0, "width": 32}, {"height": 10**9})),
    *({"size": value} for value in ({"height": -4, "width": 4}, {"height": "4", "width": 4}, {"shortest_edge": 1e9})),
    *({"image_mean": value} for value in ([0.5], "x", [0.5, "x", 0.5], [float("nan")] * 3, None, 7, [])),
    *({"image_std": value} for value in ([0, 0, 0], [-1, 1, 1], [float("inf")] * 3, None, 0, "x")),
    *({"rescale_factor": value} for value in (0, -1, "x", float("nan"), None)),
    *({"resample": value} for value in (99, "bilinear", -1)),
    *({"do_resize": value} for value in ("no", 7, None)),
    *({"do_normalize": value} for value in ("no", None, False)),
    *({"image_processor_type": value} for value in ("Nothing", 5, None, "BertModel")),
    {"deep": DEEP},
]
BYTES = (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'{"x": "' + b"x" * (17 << 20) + b'"}')


def folders(plain: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """What was changed, and the folder with the change."""
    described = {name: json.loads((plain / name).read_text()) for name in ("config.json", "preprocessor_config.json")}
    texts = [("config.json", json.dumps(described["config.json"] | change).encode()) for change in CONFIGS]
    name = "preprocessor_config.json"
    texts += [(name, json.dumps(described[name] | change).encode()) for change in PROCESSORS]
    texts += [(each, content) for each in described for content in BYTES]
    texts += [("run_config.yaml", content) for content in (b"\xff", b"eval: 3", b"[", b"eval: {size: -1}", b"5")]
    texts += [("model.safetensors.index.json", b"{"), ("processor_config.json", b"[]")]
    for name, content in texts:
        shutil.copytree(plain, scratch, dirs_exist_ok=True)
        (scratch / name).write_bytes(content)
        yield f"{name} {content[-300:]!r}", scratch
        shutil.rmtree(scratch)


@pytest.mark.parametrize("door", DOORS[1:], ids=lambda door: door.__name__)
def test_a_result_or_an_error_that_says_why(door: Callable[[Path], None], plain: Path, tmp_path: Path) -> None:
    wrong, num_refused, longest = [], 0, 0
    for change, folder in folders(plain, tmp_path / "folder"):
        try:
            door(folder)
        except UserError as error:
            num_refused += 1
            longest = max(longest, len(str(error)))
        except Exception as error:
            wrong.append(f"{change}: {type(error).__name__}: {error}"[:600])
    assert not wrong, f"{len(wrong)}: " + "\n".join(wrong)
    assert num_refused > 80
    assert longest < 1500
    if door is not by_segformer:  # which takes published sizes
        door(plain)


def described_as(folder: Path, target: Path, **changes: Any) -> Path:
    shutil.copytree(folder, target)
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | changes))
    return target


@pytest.mark.parametrize("door", [by_predict, by_predictor, by_pipeline_and_export, by_training])
def test_weights_of_a_deeper_model_are_refused(door: Callable[[Path], None], plain: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"left over|its weights are not those of its config"):
        door(described_as(plain, tmp_path / "x", depths=[1, 1, 1, 1]))


def test_what_only_the_training_needs_may_be_left_over(plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "x")
    state = load_file(folder / "model.safetensors")
    more = {"auxiliary_head.classifier.weight": torch.zeros(3), "decode_head.batch_norm.position_ids": torch.zeros(3)}
    save_file(state | more, folder / "model.safetensors", metadata={"format": "pt"})
    by_predict(folder)
    save_file(state | {"decode_head.extra.weight": torch.zeros(3)}, folder / "model.safetensors", {"format": "pt"})
    for door in (by_predict, by_training):
        with pytest.raises(UserError, match=r"decode_head\.extra\.weight"):
            door(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["decode_head.classifier.bias", "decode_head.batch_norm.running_var"])
def test_weights_that_are_no_numbers_are_refused(value: float, name: str, plain: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(plain, tmp_path / "x")
    state = load_file(folder / "model.safetensors")
    state[name][0] = value
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    for door in (by_predict, by_predictor, by_pipeline_and_export, by_training):
        with pytest.raises(UserError, match=f"{name} is not finite"):
            door(folder)


def test_scores_that_are_no_numbers_are_refused(plain: Path) -> None:
    """Of a model in memory, which no door has looked at."""
    model, processor = with_processor(plain)
    model.decode_head.classifier.bias.data[0] = float("nan")
    segment = SegmentationPipeline(model, processor)
    for attempt in (lambda: predict(model, IMAGE, processor), lambda: segment(IMAGE)):
        with pytest.raises(UserError, match="class scores are not finite"):
            attempt()


def test_every_door_takes_a_runs_folder(plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "run" / "model")
    for door in (by_predict, by_predictor, by_pipeline_and_export, by_training):
        door(tmp_path / "run")


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Small models of other architectures, whose config is first looked at by their first image."""
    folder = tmp_path_factory.mktemp("others")
    sizes: dict[str, Any] = {"num_attention_heads": 2, "image_size": 64, "num_labels": 3}
    beit = BeitConfig(
        hidden_size=16, num_hidden_layers=4, intermediate_size=16, patch_size=16, out_indices=[1, 2, 3, 4],
        use_auxiliary_head=False, **sizes,
    )  # fmt: skip
    mobilevit = MobileViTConfig(hidden_sizes=[16] * 3, neck_hidden_sizes=[8] * 7, aspp_out_channels=8, **sizes)
    for config in (beit, mobilevit):
        AutoModelForSemanticSegmentation.from_config(config).save_pretrained(folder / config.model_type)
        SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / config.model_type)
    return {path.name: path for path in folder.iterdir()}


def by_dry_run(folder: Path) -> None:
    problem, _ = dry_run(build_model(ModelConfig(type="auto", init=str(folder)), LABELS), (64, 64))
    if problem is not None:
        raise UserError(problem)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("beit", {"patch_size": [16, 16]}),
        ("beit", {"out_indices": "abc"}),
        ("mobilevit", {"patch_size": [2, 2]}),
        ("mobilevit", {"patch_size": 0}),
        ("mobilevit", {"patch_size": 10**9}),
        ("mobilevit", {"atrous_rates": [0, 0, 0]}),
    ],
    ids=str,
)
def test_what_only_the_first_image_shows(
    kind: str, changes: dict[str, Any], others: dict[str, Path], tmp_path: Path
) -> None:
    by_predict(others[kind])
    folder = described_as(others[kind], tmp_path / "x", **changes)
    for door in (by_predict, by_predictor, by_dry_run):
        with pytest.raises(UserError):
            door(folder)


CODE = """
from pathlib import Path
Path({marker!r}).write_text("I ran")
from transformers import PretrainedConfig, SegformerForSemanticSegmentation, SegformerImageProcessor, SegformerConfig
class Config(SegformerConfig):
    model_type = "nothing-known"
class Model(SegformerForSemanticSegmentation):
    config_class = Config
class Processor(SegformerImageProcessor):
    pass
"""
LOCAL = {"AutoConfig": "code.Config", "AutoModelForSemanticSegmentation": "code.Model"}
FOREIGN = {name: f"someone/else--{value}" for name, value in LOCAL.items()}
AUTO_MAPS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"auto_map": LOCAL, "model_type": "nothing-known"}, {}),
    ({"auto_map": FOREIGN, "model_type": "nothing-known"}, {}),
    ({"auto_map": LOCAL}, {}),
    ({"auto_map": LOCAL, "model_type": None}, {}),
    ({"auto_map": {"AutoConfig": "code.Config"}, "model_type": "hfseg-nothing"}, {}),
    ({"auto_map": {"AutoModelForSemanticSegmentation": "code.Model"}}, {}),
    ({"auto_map": {"AutoModelForSemanticSegmentation": "code.Model"}, "model_type": "bert"}, {}),
    ({"auto_map": {"AutoConfig": ["code.Config", None]}, "model_type": "nothing-known"}, {}),
    ({"auto_map": {"AutoConfig": "../code.Config"}, "model_type": "nothing-known"}, {}),
    ({"auto_map": {"AutoConfig": 5}, "model_type": "nothing-known"}, {}),
    ({"backbone_config": {"model_type": "nothing-known", "auto_map": LOCAL}, "model_type": "upernet"}, {}),
    ({"attn_implementation": "someone/kernel", "auto_map": LOCAL}, {}),
    ({}, {"auto_map": {"AutoImageProcessor": "code.Processor"}, "image_processor_type": "Processor"}),
    ({}, {"auto_map": {"AutoImageProcessor": ["code.Processor", "code.Processor"]}}),
    ({"auto_map": {"AutoImageProcessor": "code.Processor"}}, {"image_processor_type": "Processor"}),
    ({}, {"auto_map": {"AutoImageProcessor": "someone/else--code.Processor"}, "image_processor_type": "Processor"}),
]


def hostile(plain: Path, folder: Path, config: dict[str, Any], processor: dict[str, Any]) -> Path:
    """A folder with code that leaves `marker` beside it where it is run."""
    described_as(plain, folder, **config)
    own = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(own | processor))
    (folder / "code.py").write_text(CODE.format(marker=str(folder.parent / "marker")))
    return folder


@pytest.mark.parametrize("changes", AUTO_MAPS, ids=lambda changes: str(AUTO_MAPS.index(changes)))
def test_code_is_not_run_and_not_asked_for(
    changes: tuple[dict[str, Any], dict[str, Any]], plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = hostile(plain, tmp_path / "x", *changes)
    asked: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question="": asked.append(question) or "y")
    for door in DOORS:
        with contextlib.suppress(UserError):
            door(folder)
    assert not asked
    assert not (tmp_path / "marker").exists()


def test_code_is_run_where_the_user_says_so(plain: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = hostile(plain, tmp_path / "x", {"auto_map": LOCAL, "model_type": "nothing-known"}, {})
    with pytest.raises(UserError, match=r"which was not run.*--trust-remote-code"):
        load_model(str(folder))
    stock = SegformerForSemanticSegmentation.from_pretrained(plain)
    stock.save_pretrained(tmp_path / "renamed", save_original_format=False)  # as the class of the code has them
    shutil.copy(tmp_path / "renamed" / "model.safetensors", folder)
    with caplog.at_level("WARNING"):
        load_model(folder, trust_remote_code=True)
    assert (tmp_path / "marker").exists()
    assert f"in the local folder {folder}" in caplog.text
    model = ModelConfig(type="auto", init=str(folder), trust_remote_code=True)
    build_model(model, LABELS, exact=True)
    with pytest.raises(ValueError, match="is for `type: auto`"):
        ModelConfig(trust_remote_code=True)


def test_a_terminal_that_says_yes_is_not_asked(plain: Path, tmp_path: Path) -> None:
    """Standard input is a terminal where `y` is typed already."""
    folder = hostile(plain, tmp_path / "x", {"auto_map": LOCAL, "model_type": "nothing-known"}, {})
    IMAGE.save(tmp_path / "image.png")
    leader, follower = pty.openpty()
    os.write(leader, b"y\ny\ny\n")
    before = os.dup(0)
    os.dup2(follower, 0)
    try:
        with open(0, closefd=False) as terminal, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", terminal)
            with pytest.raises(UserError, match="--trust-remote-code"):
                predict_images([str(tmp_path / "image.png")], str(folder), tmp_path / "out")
            assert input() == "y"  # which nobody has read
    finally:
        os.dup2(before, 0)
        for descriptor in (before, leader, follower):
            os.close(descriptor)
    assert not (tmp_path / "marker").exists()


def test_whoever_loads_says_whether_code_may_run() -> None:
    """Every call that loads by a name: transformers would ask on the terminal where it is told nothing."""
    silent = []
    for path in sorted((REPOSITORY / "hfseg").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            function = ast.unparse(node.func)
            words = [ast.unparse(keyword) for keyword in node.keywords]
            told = any(word.startswith(("trust_remote_code=", "**options", "**code_options(")) for word in words)
            if function.endswith((".from_pretrained", ".from_config")) and not told and "super()" not in function:
                silent.append(f"{path.name}:{node.lineno} {function}")
    assert not silent
