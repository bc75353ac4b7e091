"""ONNX files compute what the model computes, or are not written."""

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel, SegformerImageProcessor

from hfseg import LabelSet, UserError
from tests.builders import make_fcn, make_segformer, opinionated_model
from tests.conftest import REPOSITORY
from tests.extras import needs

needs("onnx")

import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from hfseg.inference import ParityError, export_onnx  # noqa: E402
from hfseg.inference import onnx as export  # noqa: E402
from hfseg.inference.onnx import ExportForm, check_beside, check_parity  # noqa: E402
from hfseg.models import load_model  # noqa: E402

SIZES = ((33, 47), (64, 64), (90, 201))
FILES = {"preprocessor_config.json", "x.json", "x.onnx"}


def save(model: PreTrainedModel, folder: Path) -> Path:
    """With statistics and a classifier that make logits of different sizes."""
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
            if isinstance(module, nn.Conv2d) and name.endswith(("classifier", "classifier.4")):
                nn.init.normal_(module.weight, std=2.0)
    names = ["pet", "background", "boundary"]
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {n: i for i, n in enumerate(names)}
    model.config.hfseg = {"temperature": 1.5}
    model.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 80}).save_pretrained(folder)
    return folder


def run_script(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / "export.py"), *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save(make_segformer(), tmp_path_factory.mktemp("models") / "segformer")


@pytest.fixture(scope="module")
def exported(segformer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """x.onnx of the SegFormer with `ids`, by the command line."""
    folder = tmp_path_factory.mktemp("exported") / "made"
    result = run_script(str(segformer), "--onnx", str(folder / "x.onnx"), "--argmax")
    assert result.returncode == 0, result.stderr
    assert "equal to the model in 10 cases" in result.stdout
    assert "Warning" not in result.stderr
    return folder / "x.onnx"


def assert_same_function(folder: Path, path: Path, batch_sizes: Sequence[int] = (1, 2, 5)) -> None:
    """Logits at sizes that the export itself did not try, against the saved model."""
    model = load_model(folder)
    session = onnxruntime.InferenceSession(str(path))
    for batch_size in batch_sizes:
        for size in SIZES:
            pixel_values = torch.randn(batch_size, 3, *size)
            with torch.no_grad():
                expected = model(pixel_values=pixel_values).logits
            logits, *ids = session.run(None, {"pixel_values": pixel_values.numpy()})
            assert expected.std() > 0.01
            assert np.abs(logits - expected.numpy()).max() < 1e-5 * float(expected.abs().max())
            if ids:
                assert ids[0].dtype == np.int64
                large = F.interpolate(expected, size=size, mode="bilinear", align_corners=False)
                assert np.mean(ids[0] == large.argmax(1).numpy()) > 0.999
                assert len(np.unique(ids[0])) > 1


def test_segformer(segformer: Path, exported: Path) -> None:
    assert {path.name for path in exported.parent.iterdir()} == FILES
    assert_same_function(segformer, exported)


@pytest.mark.slow
def test_fcn(tmp_path: Path) -> None:
    folder = save(make_fcn(), tmp_path / "fcn")
    report = export_onnx(str(folder), tmp_path / "out" / "x.onnx")
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    assert report["max_difference"] < 1e-4
    assert_same_function(folder, tmp_path / "out" / "x.onnx", batch_sizes=(3,))
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(tmp_path / "out" / "x.onnx").graph.node}


def test_what_is_beside_the_file(segformer: Path, exported: Path) -> None:
    report = json.loads(exported.with_suffix(".json").read_text())
    assert report["verdict"] == "equal"
    assert report["outputs"] == ["logits", "ids"]
    cases = {(case["batch_size"], case["height"], case["width"]) for case in report["cases"]}
    assert {batch_size for batch_size, _, _ in cases} == {1, 2, 5}
    assert len({size for _, *size in cases for size in [tuple(size)]}) == 4
    assert (1, 64, 80) in cases  # the image processor's
    assert all(case["max_difference"] < 1e-4 and case["num_different"] == 0 for case in report["cases"])
    assert report["versions"]["onnxruntime"] == onnxruntime.__version__
    assert str(segformer.parent) not in exported.with_suffix(".json").read_text()
    processor = SegformerImageProcessor.from_pretrained(exported.parent)
    assert processor.size == {"height": 64, "width": 80}


def test_the_file_says_how_to_use_it(exported: Path) -> None:
    file = onnx.load(exported)
    onnx.checker.check_model(file)
    said = {item.key: json.loads(item.value) for item in file.metadata_props}
    assert said["names"] == ["pet", "background", "boundary"]
    assert said["ignore_index"] == 255
    assert said["temperature"] == 1.5
    assert said["image_mean"] == pytest.approx([0.485, 0.456, 0.406])
    assert said["size"] == {"height": 64, "width": 80}
    assert {entry.domain: entry.version for entry in file.opset_import}[""] == export.OPSET
    axes = [axis.dim_param for axis in file.graph.input[0].type.tensor_type.shape.dim]
    assert axes == ["batch", "", "height", "width"]


def test_one_output_is_exported_as_two_classes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = opinionated_model(LabelSet(["pet"]))
    model.save_pretrained(tmp_path / "model")
    SegformerImageProcessor(size={"height": 64, "width": 80}).save_pretrained(tmp_path / "model")
    export.export_onnx(str(tmp_path / "model"), tmp_path / "x.onnx", argmax=True)
    said = {item.key: json.loads(item.value) for item in onnx.load(tmp_path / "x.onnx").metadata_props}
    assert said["names"] == ["background", "pet"]
    pixels = torch.randn(1, 3, 64, 80)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    ids = session.run(["ids"], {"pixel_values": pixels.numpy()})[0][0]
    with torch.no_grad():
        logits = F.interpolate(model(pixels).logits, size=(64, 80), mode="bilinear")[0, 0]
    assert 0 < ids.mean() < 1
    assert np.mean((logits.sigmoid().numpy() > 0.5) == ids) > 0.999


def damaged(exported: Path, target: Path) -> Path:
    """The same file with one bias of the classifier changed by a thousandth of the largest logit."""
    file = onnx.load(exported)
    (bias,) = [each for each in file.graph.initializer if each.name.endswith("decode_head.classifier.bias")]
    values = onnx.numpy_helper.to_array(bias).copy()
    values[1] += 0.01
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(file, target)
    return target


def test_a_damaged_file_is_not_equal(segformer: Path, exported: Path, tmp_path: Path) -> None:
    network = ExportForm(load_model(segformer), with_ids=True).eval()
    assert all(case.is_equal for case in check_parity(network, exported))
    cases = check_parity(network, damaged(exported, tmp_path / "damaged.onnx"))
    assert not any(case.is_equal for case in cases)
    (tmp_path / "torn.onnx").write_bytes(exported.read_bytes()[:1000])
    with pytest.raises(ParityError, match="does not take"):
        check_parity(network, tmp_path / "torn.onnx")


def test_without_parity_nothing_is_written(
    segformer: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_damaged(network: ExportForm, path: Path, properties: dict[str, str]) -> None:
        damaged(exported, path)

    monkeypatch.setattr(export, "write_onnx", write_damaged)  # a fault of the exporter
    (tmp_path / "x.onnx").write_text("an older file")
    with pytest.raises(ParityError, match=r"something else than the model in 10 of 10 cases[^N]*Nothing was written"):
        export_onnx(str(segformer), tmp_path / "x.onnx", argmax=True)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"x.onnx": "an older file"}


def test_other_classes_are_found_and_ties_are_none() -> None:
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[:, 0] = 10.0
    other = logits.copy()
    assert export.differences([logits], [other]) == (0.0, 0)
    other[0, 1, 0, 0] = 10.00005
    assert export.differences([logits], [other])[0] == pytest.approx(10.00005, rel=1e-6)
    tie = logits.copy()
    tie[0, 1] = 10.0
    moved = tie.copy()
    moved[0, 1] += 1e-5
    scaled, num_different = export.differences([tie], [moved])
    assert scaled < 1e-4
    assert num_different == 0
    ids = np.zeros((1, 4, 4), np.int64)
    assert export.differences([logits, ids], [logits, ids]) == (0.0, 0)
    assert export.differences([logits, ids], [logits, ids + 1]) == (0.0, 16)
    assert np.isnan(export.differences([logits], [logits * np.nan])[0])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "--onnx", "{tmp}/x.onnx"], "model='nowhere' is no folder here"),
        (["{model}", "--onnx", "{tmp}/x.pb"], "must end in .onnx"),
        (["{bare}", "--onnx", "{tmp}/out/x.onnx"], "has no image processor"),
        (["{model}", "--onnx", "{tmp}/other/x.onnx"], "not the image processor of"),
    ],
)
def test_bad_input_is_named(segformer: Path, tmp_path: Path, words: list[str], message: str) -> None:
    bare, other = tmp_path / "bare", tmp_path / "other"
    shutil.copytree(segformer, bare, ignore=shutil.ignore_patterns("preprocessor_config.json"))
    other.mkdir()
    SegformerImageProcessor(size={"height": 9, "width": 9}).save_pretrained(other)
    filled = [word.format(tmp=tmp_path, model=segformer, bare=bare) for word in words]
    with pytest.raises(UserError, match=message):
        export_onnx(filled[0], filled[2])
    assert not list(tmp_path.rglob("*.onnx"))


WITHOUT_ONNX = """
import runpy, sys
sys.modules["onnxruntime"] = None
sys.argv = ["export.py", sys.argv[1], "--onnx", "x.onnx"]
runpy.run_path("scripts/export.py", run_name="__main__")
"""


def test_a_missing_extra_is_named(segformer: Path) -> None:
    words = [sys.executable, "-c", WITHOUT_ONNX, str(segformer)]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert result.returncode == 2
    assert "pip install 'hfseg[onnx]'" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("model", ["segformer", "fcn"])
def test_full_size(model: str, tmp_path: Path) -> None:
    from hfseg import HfsegSegformerConfig, HfsegSegformerForSemanticSegmentation, LabelSet

    labels = LabelSet([f"class {index}" for index in range(19)])
    made: Any = make_fcn()
    if model == "segformer":
        made = HfsegSegformerForSemanticSegmentation(HfsegSegformerConfig.from_size("b0", labels))
    made.save_pretrained(tmp_path / "model")
    SegformerImageProcessor().save_pretrained(tmp_path / "model")  # 512 x 512
    result = run_script(str(tmp_path / "model"), "--onnx", str(tmp_path / "out" / "x.onnx"))
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "out" / "x.json").read_text())["verdict"] == "equal"


def test_what_lies_beside_is_not_overwritten(tmp_path: Path) -> None:
    processor = SegformerImageProcessor()
    path = tmp_path / "config.onnx"
    for content in ('{"mine": 1}', "5", "{torn"):
        path.with_suffix(".json").write_text(content)
        with pytest.raises(UserError, match=r"config\.json is not the report of an export"):
            check_beside(path, processor, "x")
    path.with_suffix(".json").write_text('{"verdict": "equal"}')
    check_beside(path, processor, "x")
    (tmp_path / "preprocessor_config.json").write_text("{torn")
    with pytest.raises(UserError, match=r"preprocessor_config\.json is not the image processor of x"):
        check_beside(path, processor, "x")
