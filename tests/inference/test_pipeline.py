"""The stock pipeline with our models, and ours."""

import base64
import http.server
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image
from torch import nn
from transformers import (
    MobileViTImageProcessor,
    PreTrainedModel,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
    pipeline,
)

import hfseg
from hfseg import EvalConfig, SegmentationPipeline, UserError
from hfseg.inference import predict
from tests.builders import make_fcn, make_segformer, model_kind
from tests.hub.server import HubServer

PROCESSOR = SegformerImageProcessor(size={"height": 64, "width": 64})
NAMES = {0: "pet", 1: "background", 2: "boundary"}


@pytest.fixture(scope="module", params=[make_segformer, make_fcn], ids=["segformer", "fcn"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model that has an opinion on every pixel, and its processor."""
    torch.manual_seed(0)
    model = request.param()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d) and name.endswith(("classifier", "classifier.4")):
            nn.init.normal_(module.weight, std=2.0)
    model.config.id2label, model.config.label2id = NAMES, {name: index for index, name in NAMES.items()}
    model.config.hfseg = {"temperature": 2.0}
    path = tmp_path_factory.mktemp(model_kind(model)) / "model"
    model.save_pretrained(path)
    PROCESSOR.save_pretrained(path)
    return path


def load(folder: Path) -> PreTrainedModel:
    return hfseg.load_model(folder)


def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    shapes = ((40, 60), (70, 30), (40, 60))
    return [Image.fromarray(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]


def ids_of(parts: list[dict[str, Any]]) -> np.ndarray[Any, Any]:
    """The class ids that masks stand for; every pixel is in one mask."""
    masks = np.stack([np.asarray(part["mask"]) > 0 for part in parts])
    assert (masks.sum(0) == 1).all()
    order = [next(index for index, name in NAMES.items() if name == part["label"]) for part in parts]
    assert order == sorted(order)
    return np.asarray(order)[masks.argmax(0)]


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with 0.png, 1.png, 2.png and page.png, which is no image."""
    root = tmp_path_factory.mktemp("web")
    for index, image in enumerate(pictures()):
        image.save(root / f"{index}.png")
    (root / "page.png").write_text("<html>sign in</html>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(root)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level("WARNING"):
        yield
    assert [record.getMessage() for record in caplog.get_records("call")] == []


def test_the_stock_pipeline_takes_folders_and_objects(folder: Path, web: str, quiet: None) -> None:
    model, images = load(folder), pictures()
    expected = predict(model, images)
    made = [
        pipeline("image-segmentation", model=str(folder)),  # no remote code: hfseg knows both models
        pipeline("image-segmentation", model=model, image_processor=PROCESSOR),
    ]
    for segment in made:
        for found in (segment(images, batch_size=2), segment([f"{web}/{index}.png" for index in range(3)])):
            assert [np.mean(ids_of(parts) == mask) > 0.999 for parts, mask in zip(found, expected, strict=True)] == (
                [True] * 3
            )
    assert len({int(label) for mask in expected for label in np.unique(mask)}) > 1


def test_ours_gives_what_predict_gives(folder: Path, tmp_path: Path, web: str, quiet: None) -> None:
    model, images = load(folder), pictures()
    segment = pipeline("image-segmentation", model=str(folder), pipeline_class=SegmentationPipeline)
    assert not isinstance(segment.model, SegformerForSemanticSegmentation)  # the fast form
    expected = predict(model, images, batch_size=1)
    images[1].save(tmp_path / "one.png")
    data = "data:image/png;base64," + base64.b64encode((tmp_path / "one.png").read_bytes()).decode()
    text = base64.encodebytes((tmp_path / "one.png").read_bytes()).decode()  # in lines, as stock takes it, too
    for source in (images[1], tmp_path / "one.png", str(tmp_path / "one.png"), f"{web}/1.png", data, text):
        assert np.array_equal(ids_of(segment(source)), expected[1])
    assert np.array_equal(ids_of(segment(np.asarray(images[1]))), expected[1])
    assert segment([]) == []
    for size in (1, 2, 3):
        found = segment(images, batch_size=size)
        masks = predict(model, images, batch_size=size)
        assert all(np.array_equal(ids_of(parts), mask) for parts, mask in zip(found, masks, strict=True))
    streamed = list(segment(image for image in images))
    assert all(np.array_equal(ids_of(parts), mask) for parts, mask in zip(streamed, expected, strict=True))


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "whole"},
        {"mode": "slide", "crop": 32, "stride": 20},
        {"mode": "whole", "flip": True, "scales": (1.0, 1.5)},
        {"flip": True},
    ],
)
@pytest.mark.parametrize("folder", [make_segformer], ids=["segformer"], indirect=True)
def test_every_mode_in_batches_of_mixed_sizes(folder: Path, options: dict[str, Any]) -> None:
    model, images, mode = load(folder), pictures(), EvalConfig(**options)
    segment = SegmentationPipeline(model)  # the processor is the one in the folder
    expected = predict(model, images, eval=mode, batch_size=1)
    for size in (1, 2):
        found = segment(images, eval=mode, batch_size=size)
        for parts, mask in zip(found, expected, strict=True):
            assert np.mean(ids_of(parts) == mask) > 0.999
    assert any(not np.array_equal(*pair) for pair in zip(expected, predict(model, images), strict=True))


def test_scores_are_calibrated_means_over_the_masks(folder: Path) -> None:
    model, images = load(folder), pictures()
    masks, calibrated = predict(model, images, return_probabilities=True, batch_size=1)
    model.config.hfseg = {}
    _, raw = predict(model, images, return_probabilities=True, batch_size=1)
    found = SegmentationPipeline(str(folder))(images, return_probabilities=True)
    for parts, mask, values, uncalibrated in zip(found, masks, calibrated, raw, strict=True):
        logits = torch.from_numpy(uncalibrated).double().log()  # of softmax(x) / T is x / T, but for a constant
        np.testing.assert_allclose(values, (logits / 2.0).softmax(0), atol=1e-5)
        for part in parts:
            label = next(index for index, name in NAMES.items() if name == part["label"])
            np.testing.assert_allclose(part["probability"], values[label], atol=1e-5)
            assert part["probability"].dtype == np.float32
            assert part["score"] == pytest.approx(values[label][mask == label].mean(), abs=1e-5)
            assert part["score"] < uncalibrated[label][mask == label].mean()  # a temperature of 2 makes it less sure
    assert set(found[0][0]) == {"score", "label", "mask", "probability"}
    assert set(SegmentationPipeline(str(folder))(images[0])[0]) == {"score", "label", "mask"}


def test_ours_finds_the_processor_of_an_object(folder: Path, quiet: None) -> None:
    model = load(folder)
    segment = pipeline("image-segmentation", model=model, pipeline_class=SegmentationPipeline)
    assert np.array_equal(ids_of(segment(pictures()[0])), predict(model, pictures()[0])[0])


def test_a_model_whose_processor_crops_sees_the_whole_image(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    own = MobileViTImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64})  # BGR, too
    own.save_pretrained(copy)
    segment, num_classes = SegmentationPipeline(copy), set()
    found = zip(pictures(), segment(pictures()), predict(segment.model, pictures()), strict=True)
    for image, parts, mask in found:
        pixels = own(image, do_center_crop=False, return_tensors="pt")["pixel_values"]
        assert max(pixels.shape[-2:]) > 72 == min(pixels.shape[-2:])
        with torch.no_grad():
            logits = segment.model(pixels).logits
        ids = nn.functional.interpolate(logits, (image.height, image.width), mode="bilinear").argmax(1)[0].numpy()
        num_classes.add(len(np.unique(ids)))
        assert np.mean(ids_of(parts) == ids) > 0.999
        assert np.mean(mask == ids) > 0.999
    assert max(num_classes) > 1


def test_what_is_wrong_is_named(folder: Path, tmp_path: Path, web: str) -> None:
    segment = SegmentationPipeline(folder)
    deep = tmp_path / "deep.png"
    Image.fromarray(np.array([[0, 300, 65535]], dtype=np.uint16)).save(deep)
    cases: list[tuple[Any, dict[str, Any], str]] = [
        (f"{web}/nowhere.png", {}, r"nowhere.png' could not be downloaded.*404"),
        (f"{web}/page.png", {}, r"page.png' cannot be read"),
        ("http://127.0.0.1:9/x.png", {}, r"http://127.0.0.1:9/x.png' could not be downloaded"),
        ("nowhere.png", {}, r"nowhere.png' is missing"),
        (str(deep), {}, r"deep.png is a I;16 image with values 0..65535"),
        (Image.open(deep), {}, r"The image is a I;16 image with values 0..65535"),
        (torch.zeros(4, 4, 3), {}, "got an object of type Tensor"),
        (np.zeros((0, 4, 3), np.uint8), {}, r"got uint8 \(0, 4, 3\)"),
        ("data:image/png;base64,AAAA", {}, "cannot be read"),
        ("AAAA", {}, "'AAAA' cannot be read"),
        ("A" * 24_000, {}, r"'A+\.\.\. cannot be read"),
        ("=" * 24_001, {}, r"'=+\.\.\. is missing"),
        (pictures()[0], {"treshold": 0.5}, "'treshold' is no option"),
        (
            pictures()[0],
            {"subtask": "panoptic"},
            "Subtask panoptic is not supported for model .*Segmentation",
        ),
        (pictures()[0], {"eval": "slide"}, "must be an hfseg.EvalConfig"),
    ]
    for source, options, message in cases:
        with pytest.raises(UserError, match=message) as error:
            segment(source, **options)
        assert len(str(error.value)) < 700
    for name in (tmp_path / "nowhere", "~nobody-is-called-so/x", "x" * 300, ""):
        with pytest.raises(UserError, match="is no folder here"):
            SegmentationPipeline(name)
    bare = tmp_path / "bare"
    shutil.copytree(folder, bare, ignore=shutil.ignore_patterns("preprocessor_config.json"))
    with pytest.raises(UserError, match=r"bare.*has no image processor"):
        SegmentationPipeline(str(bare))
    with pytest.raises(UserError, match="bare has no image processor"):
        pipeline("image-segmentation", model=str(bare), pipeline_class=SegmentationPipeline)
    with pytest.raises(UserError, match="pass its image `processor`"):
        SegmentationPipeline(make_segformer())


def test_stocks_options_have_stocks_meaning(folder: Path) -> None:
    """Its thresholds are for models that find instances: of semantic ones they change nothing."""
    image, model = pictures()[0], load(folder)
    stock = pipeline("image-segmentation", model=model, image_processor=PROCESSOR)
    ours = SegmentationPipeline(model, PROCESSOR)
    options = {"threshold": 0.99, "mask_threshold": 0.9, "overlap_mask_area_threshold": 0.9, "subtask": "semantic"}
    for segment in (stock, ours):
        plain, found = segment(image), segment(image, **options)
        assert [part["label"] for part in found] == [part["label"] for part in plain]
        assert np.array_equal(ids_of(found), ids_of(plain))
        with pytest.raises(ValueError, match="panoptic"):
            segment(image, subtask="panoptic")
    made = SegmentationPipeline(model, PROCESSOR, threshold=0.99)
    assert np.array_equal(ids_of(made(image)), ids_of(ours(image)))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({0: "a", 1: "b"}, "its weights are not those of its config"),
        ({5: "a", 6: "b", 7: "c"}, r"names the classes \[5, 6, 7\], not 0 to 2"),
    ],
)
def test_a_config_of_other_classes_is_named(folder: Path, tmp_path: Path, names: dict[int, str], message: str) -> None:
    copy = shutil.copytree(folder, tmp_path / "model")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"id2label": names}))
    with pytest.raises(UserError, match=message):
        SegmentationPipeline(copy)


@pytest.mark.parametrize("temperature", [0, -1.0, "2", float("inf")])
def test_a_temperature_that_is_none_is_named(temperature: object) -> None:
    model = make_segformer()
    model.config.hfseg = {"temperature": temperature}
    with pytest.raises(UserError, match="not a positive number"):
        SegmentationPipeline(model, PROCESSOR)
    model.config.hfseg = {"temperature": None}
    assert SegmentationPipeline(model, PROCESSOR).predictor.temperature == 1.0


WITHOUT_HFSEG = """
import json, logging, sys
sys.modules["hfseg"] = None  # not importable
import numpy as np
from transformers import pipeline
import transformers
records = []
handler = logging.Handler()
handler.emit = lambda record: records.append(record.getMessage())
transformers.logging.disable_default_handler()
transformers.logging.add_handler(handler)
trusted = {"trust_remote_code": True, "revision": sys.argv[5] or None} if sys.argv[2] == "fcn" else {}
segment = pipeline("image-segmentation", model=sys.argv[1], **trusted)
found = segment([sys.argv[3], sys.argv[4]], batch_size=2)
masks = [{part["label"]: np.asarray(part["mask"]).tolist() for part in parts} for parts in found]
print(json.dumps({"masks": masks, "records": records, "class": type(segment.model).__name__}))
"""


def segment_without_hfseg(source: str, folder: Path, scratch: Path, revision: str = "") -> dict[str, Any]:
    """What a process that cannot import hfseg makes of the first two pictures, and every line it logs.

    transformers warns of code from the Hub that is of no pinned `revision`.
    """
    images = pictures()[:2]
    for index, image in enumerate(images):
        image.save(scratch / f"{index}.png")
    words = [sys.executable, "-c", WITHOUT_HFSEG, source, kind_of(folder), "0.png", "1.png", revision]
    result = subprocess.run(words, cwd=scratch, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    seen: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    seen["ids"] = []
    for masks, image in zip(seen["masks"], images, strict=True):
        ids = np.full((image.height, image.width), -1)
        for index, name in NAMES.items():
            ids[np.asarray(masks.get(name, np.zeros(ids.shape))) > 0] = index
        seen["ids"].append(ids)
    return seen


def kind_of(folder: Path) -> str:
    return folder.parent.name.rstrip("0123456789")


def test_a_moved_folder_segments_without_hfseg(folder: Path, tmp_path: Path) -> None:
    expected = predict(load(folder), pictures()[:2])
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(folder, moved)
    seen = segment_without_hfseg(str(moved), folder, tmp_path)
    assert seen["records"] == []
    stock = {"segformer": "SegformerForSemanticSegmentation", "fcn": "HfsegFCNForSemanticSegmentation"}
    assert seen["class"] == stock[kind_of(folder)]
    for ids, mask in zip(seen["ids"], expected, strict=True):
        assert np.mean(ids == mask) > 0.999


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_from_the_hub_no_task_name_is_needed(folder: Path, hub: HubServer, tmp_path: Path, quiet: None) -> None:
    repo, images, api = f"tester/{folder.parent.name}", pictures(), HfApi()
    expected = predict(load(folder), images, batch_size=1)
    api.create_repo(repo)
    api.upload_folder(repo_id=repo, folder_path=folder)
    card = "---\npipeline_tag: image-segmentation\nlibrary_name: transformers\n---\n# A model\n"
    api.upload_file(repo_id=repo, path_in_repo="README.md", path_or_fileobj=card.encode())
    for found in (pipeline(model=repo)(images), pipeline(model=repo, pipeline_class=SegmentationPipeline)(images)):
        for parts, mask in zip(found, expected, strict=True):
            assert np.mean(ids_of(parts) == mask) > 0.999
    assert np.array_equal(ids_of(SegmentationPipeline(repo)(images[0])), expected[0])
    seen = segment_without_hfseg(repo, folder, tmp_path, hub.repo(repo).head.oid)
    assert seen["records"] == []
    assert np.mean(seen["ids"][1] == expected[1]) > 0.999


def test_a_name_that_is_nowhere_on_the_hub(hub: HubServer) -> None:
    with pytest.raises(UserError, match="model='tester/nowhere' is no folder here and cannot be had from the Hub"):
        SegmentationPipeline("tester/nowhere")
