"""The command as a user gives it: a folder of images to masks, killed, resumed and in two processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi
from PIL import Image
from transformers import (
    MobileNetV2Config,
    MobileNetV2ForSemanticSegmentation,
    MobileNetV2ImageProcessor,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    SegformerImageProcessor,
)

from hfseg import EvalConfig, LabelSet, UserError, predict, predict_images
from hfseg.data import cityscapes_labels
from hfseg.inference.folder import print_shares
from hfseg.inference.image_paths import find_images
from hfseg.inference.predictor import classify_bands
from hfseg.inference.run_predictor import labels_of
from hfseg.labels import default_palette
from hfseg.reporting import print_table
from tests.builders import opinionated_model, tiny_model
from tests.conftest import REPOSITORY
from tests.hub.server import HubServer

LABELS = LabelSet(["pet", "background", "boundary"])
PROCESSOR = SegformerImageProcessor(size={"height": 64, "width": 64})
SCRIPT = str(REPOSITORY / "scripts" / "run_seg.py")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "PYTHONPATH": str(REPOSITORY)}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    opinionated = opinionated_model(LABELS)
    opinionated.config.hfseg = {"temperature": 2.0, "palette": [[1, 2, 3], [40, 50, 60], [250, 0, 90]]}
    opinionated.save_pretrained(folder)
    PROCESSOR.save_pretrained(folder)
    return folder


def draw(path: Path, seed: int, size: tuple[int, int] = (60, 40)) -> Path:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse.resize(size, Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Equal names in two folders, and every kind of image that there is."""
    folder = tmp_path / "photos"
    for index in range(4):
        draw(folder / "a" / f"{index}.png", index, (60 + index, 40))
    draw(folder / "b" / "0.jpg", 10)
    draw(folder / "b" / "c" / "last.webp", 11, (31, 77))
    drawn = Image.open(draw(folder / "turned.png", 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn.save(folder / "turned.png", exif=exif)
    drawn.convert("L").save(folder / "grey.bmp")
    drawn.convert("RGBA").save(folder / "transparent.png")
    drawn.convert("P").save(folder / "palette.gif")
    (folder / "notes.md").write_text("no image")
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes below have, for sums that are equal to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def command(*arguments: object, launcher: Sequence[object] = (SCRIPT,)) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *map(str, launcher), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT)


def lines_of(output: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == sorted({line["name"] for line in lines})
    return {line["name"]: line for line in lines}


def files_of(output: Path) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in output.rglob("*") if path.is_file()}


def times_of(output: Path) -> dict[str, int]:
    """Of the pictures; not of what a killed process was writing, of which nothing is to be left later."""
    folders = [output / name for name in ("masks", "colours", "overlays")]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix != ".partial" and path.is_file()]
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_a_folder_gives_what_predict_gives(tmp_path: Path, photos: Path, model: Path) -> None:
    output = tmp_path / "out"
    (photos / "bad.jpg").write_bytes(b"no image")
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(photos / "deep.png")
    result = command("--predict", photos, "--model", model, "--output", output, "--batch-size", 3)
    assert result.returncode == 2  # after everything else
    assert "2 of 12 images could not be segmented" in result.stderr
    assert f"skipped: {photos / 'bad.jpg'} cannot be read" in result.stderr
    assert f"skipped: {photos / 'deep.png'} is a I;16 image" in result.stderr
    assert "Traceback" not in result.stderr
    images = find_images([photos]).images
    good = {name: path for name, path in images.items() if name not in ("bad", "deep")}
    assert list(good) == ["a/0", "a/1", "a/2", "a/3", "b/0", "b/c/last", "grey", "palette", "transparent", "turned"]
    loaded = type(tiny_model(LABELS)).from_pretrained(model)
    masks, probabilities = predict(loaded, list(good.values()), return_probabilities=True)
    lines, pixels = lines_of(output), np.zeros(3)
    assert lines.keys() == good.keys()
    for (name, path), mask, values in zip(good.items(), masks, probabilities, strict=True):
        written = Image.open(output / "masks" / f"{name}.png")
        assert written.mode == "L"
        assert np.array_equal(written, mask)
        coloured = Image.open(output / "colours" / f"{name}.png")
        assert coloured.mode == "P"
        assert np.array_equal(coloured, mask)
        palette = np.array([[1, 2, 3], [40, 50, 60], [250, 0, 90]])
        assert np.array_equal(coloured.convert("RGB"), palette[mask])
        overlay = Image.open(output / "overlays" / f"{name}.jpg")
        assert overlay.size == written.size
        line = lines[name]
        assert line["file"] == str(path)
        assert (line["height"], line["width"]) == mask.shape
        for index, label in enumerate(LABELS.names):
            assert line["shares"][label] == pytest.approx(np.mean(mask == index), abs=1e-9)
        assert line["confidence"] == pytest.approx(values.max(0).mean(), abs=1e-4)
        pixels += np.bincount(mask.flat, minlength=3)
    assert Image.open(output / "masks" / "turned.png").size == (40, 60)
    shares = pixels / pixels.sum()
    assert np.count_nonzero(pixels) == 3
    for label, share in zip(LABELS.names, shares, strict=True):
        assert f"{label} " in result.stdout
        assert f"{share:.2%}" in result.stdout
    overlay = np.asarray(Image.open(output / "overlays" / "a" / "0.jpg"), dtype=float)
    expected = 0.45 * np.asarray(Image.open(images["a/0"]), dtype=float) + 0.55 * palette[masks[0]]
    assert np.abs(overlay - expected).mean() < 6  # JPEG


def test_killed_at_any_point_it_goes_on(tmp_path: Path, model: Path, one_thread: None) -> None:
    for index in range(120):
        draw(tmp_path / "photos" / f"{index:03}.png", index)
    words = ["--predict", tmp_path / "photos", "--model", model, "--batch-size", 2, "--output"]
    predict_images(tmp_path / "photos", str(model), tmp_path / "whole", batch_size=2)
    output = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, words), str(output)], env=ENVIRONMENT, stderr=subprocess.DEVNULL
    )
    part = output / ".parts" / "0.jsonl"
    while not part.is_file() or part.read_bytes().count(b"\n") < 10:
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = [json.loads(line)["name"] for line in part.read_text().splitlines(keepends=True) if line[-1] == "\n"]
    assert 10 <= len(finished) < 120
    with part.open("a") as file:
        file.write('{"name": "119", "fi')  # what a power cut may leave
    (output / "masks" / f"{finished[0]}.png").unlink()  # without a picture it is not finished
    before = times_of(output)
    result = command(*words, output)
    assert result.returncode == 0, result.stderr
    after = times_of(output)
    redone = {path for path in before if after[path] != before[path]}
    assert not {path for path in redone if Path(path).stem in finished[1:]}
    assert str(output / "colours" / f"{finished[0]}.png") in redone
    assert files_of(output) == files_of(tmp_path / "whole")
    assert not list((output / ".parts").iterdir())
    predict_images(tmp_path / "photos", str(model), output)
    assert times_of(output) == after


def test_two_processes_share_the_images(tmp_path: Path, photos: Path, model: Path, one_thread: None) -> None:
    predict_images(photos, str(model), tmp_path / "one", batch_size=2)
    (photos / "bad.jpg").write_bytes(b"no image")
    worker = tmp_path / "worker.py"  # the command, which leaves a copy of what each process has done
    worker.write_text(
        "import runpy, shutil, sys\n"
        "from hfseg.inference.prediction_files import PARTS, PredictionFolder\n"
        "merge = PredictionFolder.merge\n"
        "def keep(self):\n"
        f"    shutil.copytree(self.root / PARTS, {str(tmp_path / 'kept')!r})\n"
        "    return merge(self)\n"
        "PredictionFolder.merge = keep\n"
        f"runpy.run_path({SCRIPT!r}, run_name='__main__')\n"
    )
    words = ["--predict", photos, "--model", model, "--batch-size", 2, "--output", tmp_path / "two"]
    result = command(*words, launcher=("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", worker))
    assert result.returncode != 0
    assert "1 of 11 images could not be segmented" in result.stderr
    assert "10 images in" in result.stdout
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    parts = [path.read_text().splitlines() for path in sorted((tmp_path / "kept").iterdir())]
    names = [[json.loads(line)["name"] for line in part] for part in parts]
    assert sorted(map(len, names)) == [5, 5]  # disjoint, as all ten are there
    before = times_of(tmp_path / "two")
    (photos / "bad.jpg").unlink()
    predict_images(photos, str(model), tmp_path / "two", batch_size=3)  # one process finds nothing left to do
    assert times_of(tmp_path / "two") == before


def test_another_model_view_image_or_folder_is_refused(tmp_path: Path, photos: Path, model: Path) -> None:
    output = tmp_path / "out"
    predict_images(photos, str(model), output)
    before = files_of(output)
    other = tmp_path / "other"
    shutil.copytree(model, other)
    predict_images(photos, str(other), output)  # the same weights in another folder
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"hfseg": {"temperature": 3.0}}))
    with pytest.raises(UserError, match=r"by another model .* weights differ"):
        predict_images(photos, str(other), output)
    with pytest.raises(UserError, match="eval differ"):
        predict_images(photos, str(model), output, ["eval.flip=true"])
    draw(tmp_path / "more" / "a" / "0.png", 99)
    with pytest.raises(UserError, match=r"masks/a/0\.png was made of .*photos/a/0\.png"):
        predict_images(tmp_path / "more", str(model), output)
    (tmp_path / "taken" / "masks").mkdir(parents=True)
    with pytest.raises(UserError, match="holds masks of something else"):
        predict_images(photos, str(model), tmp_path / "taken")
    after = files_of(output)
    assert {name: after[name] for name in before if name != "settings.json"} == {
        name: content for name, content in before.items() if name != "settings.json"
    }


def test_a_changed_image_is_redone_and_a_moved_one_is_not(tmp_path: Path, photos: Path, model: Path) -> None:
    output = tmp_path / "out"
    predict_images(photos, str(model), output)
    moved = photos.rename(tmp_path / "moved")
    before = times_of(output)
    draw(moved / "grey.bmp", 77, (50, 50))
    with pytest.raises(UserError, match="was made of"):  # moved and changed: it may be another
        predict_images(moved, str(model), output)
    moved.rename(photos)
    predict_images(photos, str(model), output)
    after = times_of(output)
    assert {Path(path).stem for path in before if after[path] != before[path]} == {"grey"}
    assert lines_of(output)["grey"]["width"] == 50
    photos.rename(tmp_path / "moved")
    predict_images(tmp_path / "moved", str(model), output)
    assert times_of(output) == after


def test_the_output_may_lie_among_the_images(tmp_path: Path, photos: Path, model: Path) -> None:
    predict_images(photos, str(model), photos)
    before = times_of(photos)
    predict_images(photos, str(model), photos)
    assert times_of(photos) == before
    assert len(lines_of(photos)) == 10


def names_in(*inputs: str | Path) -> list[str]:
    return list(find_images(inputs).images)


def test_images_are_found(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_images([photos / "a"]).images == {str(index): photos / "a" / f"{index}.png" for index in range(4)}
    assert names_in(f"{photos}/**/*.png") == ["a/0", "a/1", "a/2", "a/3", "transparent", "turned"]
    assert names_in(f"{photos}/*/0.*") == ["a/0", "b/0"]
    assert names_in(photos / "a" / "0.png", photos / "a" / "2.png") == ["0", "2"]
    assert names_in(photos / "a", photos / "b") == ["a/0", "a/1", "a/2", "a/3", "b/0", "b/c/last"]
    brackets = draw(tmp_path / "2024 [may]" / "x" / "0.png", 1)
    monkeypatch.chdir(tmp_path / "2024 [may]")
    assert find_images(["*/*.png"]).images == {"x/0": brackets}
    assert find_images([f"../{photos.name}/b/*/*.webp"]).images == {"c/last": photos / "b" / "c" / "last.webp"}
    monkeypatch.chdir(photos)
    assert names_in("a", "a/0.png") == ["0", "1", "2", "3"]  # twice the same is once


def test_a_line_of_a_list_has_a_name_of_its_own(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos)
    listing = tmp_path / "elsewhere" / "list.txt"
    beside = draw(listing.parent / "beside.png", 1)
    lines = {
        "a/0.png": "a/0",
        f"{photos}/b/0.jpg": f"{photos}/b/0"[1:],
        "beside.png": "beside",
        "gone/x.png": "gone/x",
    }
    lines["../photos/./a/1.png"] = f"{photos}/a/1"[1:]
    for start in range(len(lines)):  # whatever the other lines are
        some = dict(list(lines.items())[start:])
        listing.write_text("\n\n".join(some))
        found = find_images([listing]).images
        assert sorted(found) == sorted(some.values())
    listing.write_text("beside.png\nmissing.png\n./missing.png")
    assert list(find_images([listing]).images.values()) == [beside, photos / "missing.png"]
    for encoding in ("utf-8", "utf-16"):  # the latter is what PowerShell writes
        listing.write_text("a/0.png\n", encoding=encoding)
        assert names_in(listing, "b") == ["0", "a/0", "c/last"]
    listing.write_text("0.png\n")
    with pytest.raises(UserError, match=r"b/0\.jpg would both be written to masks/0\.png|0\.png and .*b/0\.jpg"):
        find_images([listing, "b"])


def test_odd_lines_of_a_list_stop_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(draw(tmp_path / "a" / "0.png", 1).parent)
    listing = tmp_path / "list.txt"
    for line in (".", "./", "/"):
        listing.write_text(f"{line}\n0.png\n")
        found = find_images([listing])
        assert list(found.images) == ["0"]
        assert found.problems == [f"{listing}: the line '{line}' is a folder. Leave it out, or list its images."]
    listing.write_text(f"{'x' * 5000}.png\n0.png\n")
    assert len(find_images([listing]).images) == 2
    listing.write_text("0.png\n", encoding="utf-16")
    assert list(find_images([listing]).images) == ["0"]


def test_nothing_is_no_folder() -> None:
    for inputs in ([], [""], ["x.png", ""]):
        with pytest.raises(UserError, match="No image is given"):
            find_images(inputs)
    with pytest.raises(UserError, match="is not there"):
        find_images(["x" * 5000])


def test_names_in_two_unicode_forms_are_one(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    path = draw(tmp_path / decomposed / f"{decomposed}.png", 1)
    listing = tmp_path / "list.txt"
    listing.write_text(f"{composed}/{composed}.png\n", encoding="utf-8")
    assert find_images([listing]).images == {f"{composed}/{composed}": path}
    assert find_images([tmp_path / composed / f"{composed}.png"]).images == {composed: path}
    draw(tmp_path / decomposed / f"{composed}.png", 1)
    with pytest.raises(UserError, match="would both be written"):
        find_images([tmp_path / decomposed])


@pytest.mark.parametrize("entry", ["photos", "photos/**/*"])
def test_what_is_left_out_is_known(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    monkeypatch.chdir(tmp_path)
    expected = names_in("photos")
    (photos / "camera.dng").write_bytes(b"raw")
    (photos / "phone.HEIC").write_bytes(b"heif")
    os.mkfifo(photos / "pipe.jpg")
    (photos / "dangling.png").symlink_to("nowhere.png")
    (photos / "a" / "loop").symlink_to(photos, target_is_directory=True)
    (photos / "Thumbs.db").write_bytes(b"")
    (photos / ".hidden.heic").write_bytes(b"")
    for folder in ("masks", "colours", "overlays"):
        draw(photos / "old" / folder / "a" / "0.png", 1)
        draw(photos / "c" / folder / "mine.png", 1)
    (photos / "old" / "predictions.jsonl").write_text("")
    (photos / "old" / "settings.json").write_text("{}")
    found = find_images([entry])
    mine = [f"c/{folder}/mine" for folder in ("masks", "colours", "overlays")]
    assert list(found.images) == sorted([*expected, *mine])  # a folder within itself is once
    assert found.outputs == {photos / "old"}
    problems = "\n".join(found.problems)
    for file, what in (
        ("camera.dng", "does not read here. Save it as PNG"), ("phone.HEIC", "does not read here"),
        ("pipe.jpg", "is no file but a pipe"), ("dangling.png", "a link to a file that is not there"),
    ):  # fmt: skip
        assert re.search(f"{re.escape(str(photos / file))} .*{re.escape(what)}", problems)
    assert "hidden" not in problems
    assert {path.name for path in found.others} == {"Thumbs.db", "notes.md"}


def test_wrong_inputs_are_named(tmp_path: Path, photos: Path) -> None:
    draw(photos / "b" / "0.png", 1)
    with pytest.raises(UserError, match=r"b/0\.jpg and .*b/0\.png would both be written to masks/b/0\.png"):
        find_images([photos])
    with pytest.raises(UserError, match=r"b/0\.jpg and .*b/0\.png would both be written to masks/0\.png"):
        find_images([f"{photos}/b/*"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("\n")
    for entry in ("empty", "empty.txt", "*.tiff"):
        with pytest.raises(UserError, match="holds no image"):
            find_images([tmp_path / entry])
    (tmp_path / "empty" / "x.heic").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds no image that can be read(.|\n)*x\.heic is of a format"):
        find_images([tmp_path / "empty"])
    with pytest.raises(UserError, match="is not there"):
        find_images([tmp_path / "nowhere"])
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(UserError, match=r"pipe\.jpg is no file but"):
        find_images([tmp_path / "pipe.jpg"])
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match="UTF-8"):
        find_images([tmp_path / "binary.txt"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predict", "x"], "needs --model and --output"),
        (["--config", "x", "--output", "y"], "only it takes"),
        (["--predict", "nowhere", "--model", "m", "--output", "o"], "nowhere is not there"),
        (
            ["--predict", "PHOTOS", "--model", "nowhere/at-all", "--output", "o"],
            "--model='nowhere/at-all' is no folder",
        ),
        (["--predict", "PHOTOS", "--model", "MODEL", "--output", "o", "--batch-size", "0"], "at least one image"),
        (["--predict", "PHOTOS", "--model", "MODEL", "--output", "o", "train.seed=1"], "only eval. keys"),
        (["--predict", "PHOTOS", "--model", "MODEL", "--output", "o", "data.max_pixels=many"], "a number of pixels"),
        (["--predict", "PHOTOS", "--model", "MODEL", "--output", "o", "eval.flipp=1"], "Did you mean `flip`"),
        (["--predict", "PHOTOS", "--model", "MODEL", "--output", "MODEL/config.json"], "cannot be written"),
    ],
)
def test_wrong_commands_end_with_one_message(
    photos: Path, model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path, arguments: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    import run_seg  # the script itself

    words = [word.replace("PHOTOS", str(photos)).replace("MODEL", str(model)) for word in arguments]
    monkeypatch.setattr(sys, "argv", ["run_seg.py", *words])
    try:
        code = run_seg.main()
    except SystemExit as error:
        code = error.code
    assert code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "o" / "masks").exists()


def test_images_are_looked_at_as_in_the_run(tmp_path: Path, photos: Path, model: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    (run / "run_config.yaml").write_text("eval: {mode: slide, crop: 32, stride: 20, size: null, boundary: false}\n")
    loaded = type(tiny_model(LABELS)).from_pretrained(model)
    images = find_images([photos / "a"]).images
    slide = predict(loaded, list(images.values()), eval=EvalConfig(mode="slide", crop=32, stride=20))
    plain = predict(loaded, list(images.values()))
    flipped = predict(loaded, list(images.values()), eval=EvalConfig(flip=True))
    sized = SegformerImageProcessor(size={"height": 96, "width": 96})
    larger = predict(loaded, list(images.values()), sized)
    assert not any(map(np.array_equal, slide, plain))
    for number, (source, overrides, expected) in enumerate(
        [
            (run, [], slide),
            (run / "model", [], slide),
            (run, ["eval.mode=resize"], plain),
            (run, ["eval.mode=resize", "eval.flip=true"], flipped),
            (model, ["eval.size=96"], larger),
        ]
    ):
        output = tmp_path / f"out{number}"
        predict_images(photos / "a", str(source), output, overrides)
        masks = [np.asarray(Image.open(output / "masks" / f"{name}.png")) for name in images]
        assert all(map(np.array_equal, masks, expected)), number


def test_any_model_and_more_classes_than_a_palette_holds(tmp_path: Path, photos: Path) -> None:
    names = [f"class {index}" for index in range(300)]
    config = SegformerConfig(
        depths=[1, 1, 1, 1], hidden_sizes=[8, 16, 16, 32], num_attention_heads=[1, 1, 2, 2], decoder_hidden_size=16,
        id2label=dict(enumerate(names)), label2id={name: index for index, name in enumerate(names)},
    )  # fmt: skip
    stock = SegformerForSemanticSegmentation(config)
    torch.nn.init.normal_(stock.decode_head.classifier.weight)
    stock.save_pretrained(tmp_path / "stock")
    PROCESSOR.save_pretrained(tmp_path / "stock")
    predict_images(photos / "a", str(tmp_path / "stock"), tmp_path / "out")
    expected = predict(stock, find_images([photos / "a"]).images["0"], PROCESSOR)[0]
    mask = Image.open(tmp_path / "out" / "masks" / "0.png")
    assert mask.mode == "I;16"
    assert np.array_equal(mask, expected)
    assert np.asarray(mask).max() > 255
    colours = np.asarray(Image.open(tmp_path / "out" / "colours" / "0.png"))
    assert np.array_equal(colours, np.array(default_palette(300))[expected])


def test_a_model_whose_own_processor_crops(tmp_path: Path, photos: Path) -> None:
    config = MobileNetV2Config(num_labels=3, image_size=64, depth_multiplier=0.1)
    own = MobileNetV2ForSemanticSegmentation(config).eval()
    torch.nn.init.normal_(own.segmentation_head.classifier.convolution.weight)
    own.save_pretrained(tmp_path / "own")
    MobileNetV2ImageProcessor(size={"shortest_edge": 72}, crop_size={"height": 64, "width": 64}).save_pretrained(
        tmp_path / "own"
    )
    predict_images(photos / "a", str(tmp_path / "own"), tmp_path / "out")
    whole = SegformerImageProcessor(
        size={"height": 72, "width": 72}, image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5]
    )
    for name, path in find_images([photos / "a"]).images.items():
        mask = predict(own, path, whole)[0]
        assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "masks" / f"{name}.png")), mask)
        assert len(np.unique(mask)) > 1


def test_a_model_from_the_hub(tmp_path: Path, photos: Path, model: Path, hub: HubServer) -> None:
    upload = tmp_path / "upload"
    shutil.copytree(model, upload)
    (upload / "run_config.yaml").write_text("eval: {mode: whole}\n")
    repo = str(HfApi().create_repo("model").repo_id)
    HfApi().upload_folder(repo_id=repo, folder_path=upload)
    predict_images(photos / "a", repo, tmp_path / "out")
    loaded = type(tiny_model(LABELS)).from_pretrained(model)
    expected = predict(loaded, photos / "a" / "0.png", eval=EvalConfig(mode="whole"))[0]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "masks" / "0.png")), expected)
    assert json.loads((tmp_path / "out" / "settings.json").read_text())["model"] == repo


def test_colours_are_those_of_the_data() -> None:
    streets = cityscapes_labels()
    assert labels_of(tiny_model(LabelSet(streets.names))).palette == streets.palette
    assert labels_of(tiny_model(LabelSet(["cat", "dog"]))).palette == default_palette(2)
    twice = tiny_model(LABELS)
    twice.config.id2label = {0: "x", 1: "y", 2: "x"}
    assert labels_of(twice).names == ("x (0)", "y", "x (2)")


def test_an_image_that_is_too_small_stops_no_other(tmp_path: Path, model: Path) -> None:
    draw(tmp_path / "photos" / "b.png", 1)
    speck = draw(tmp_path / "photos" / "a.png", 2, (1, 1))
    with pytest.raises(UserError, match=r"1 of 2 images could not be segmented") as error:
        predict_images(tmp_path / "photos", str(model), tmp_path / "out", ["eval.mode=whole"])
    assert f"{speck}: The model does not take images of 1 x 1 pixels" in str(error.value)
    assert list(lines_of(tmp_path / "out")) == ["b"]


def test_a_name_as_long_as_they_come(tmp_path: Path, model: Path) -> None:
    name = "\N{GREEK SMALL LETTER ALPHA}" * 125
    draw(tmp_path / "photos" / f"{name}.png", 1)
    predict_images(tmp_path / "photos", str(model), tmp_path / "out")
    assert list(lines_of(tmp_path / "out")) == [name]
    assert len(times_of(tmp_path / "out")) == 3


def test_brackets_in_names_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["sky [void]", "[/]"]
    shares = dict(zip(names, (0.75, 0.25), strict=True))
    line = {"width": 2, "height": 2, "shares": shares, "confidence": 0.5}
    print_shares([line], LabelSet(names), Path("out [old]"))
    shown = capsys.readouterr().out
    assert all(name in shown for name in (*names, "out [old]"))
    rows = [{"name": name, "iou": 0.5} for name in names]
    metrics = {
        f"{prefix}_{key}": 0.5 for prefix in ("eval", "test") for key in ("pixel_accuracy", "constant_mean_iou")
    }
    print_table({"eval": rows, "test": rows}, metrics | {"test_constant_class": "sky [void]"})
    shown = capsys.readouterr().out
    assert all(name in shown for name in names)
    assert "'sky [void]' everywhere" in shown


def test_confidence_is_the_largest_probability() -> None:
    logits = 3 * torch.randn(5, 7, 11, dtype=torch.float64)
    found = classify_bands([logits[:, :4], logits[:, 4:]], temperature=1.7, confidence=True)
    assert np.array_equal(found.ids, logits.argmax(0))
    assert found.confidence == pytest.approx(float((logits / 1.7).softmax(0).amax(0).mean()), rel=1e-12)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, model: Path) -> None:
    peaks = {}
    for number in (200, 2000):
        for index in range(number):
            draw(tmp_path / str(number) / f"{index}.jpg", index, (320, 240))
        code = (
            "import sys, re, pathlib; from hfseg import predict_images; predict_images(*sys.argv[1:])\n"
            "print('peak', re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
        )
        words = [sys.executable, "-c", code, str(tmp_path / str(number)), str(model), str(tmp_path / f"out{number}")]
        start = time.perf_counter()
        result = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, cwd=REPOSITORY)
        assert result.returncode == 0, result.stderr
        peaks[number] = int(result.stdout.split("peak ")[1]) / 1024
        print(f"{number} images: {peaks[number]:.0f} MB, {number / (time.perf_counter() - start):.1f} images/s")  # noqa: T201
    assert peaks[2000] < peaks[200] + 50


@pytest.mark.slow
def test_memory_of_a_large_image(tmp_path: Path, model: Path) -> None:
    """144 megapixels in windows: the picture (4 bytes a pixel), ids, colours and one row of windows."""
    photo = draw(tmp_path / "large.png", 1, (12_000, 12_000))
    code = (
        "import sys, re, pathlib; from hfseg import predict_images\n"
        "predict_images(*sys.argv[1:4], ['eval.mode=slide', 'eval.crop=512', 'eval.stride=512'])\n"
        "print('peak', re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    words = [sys.executable, "-c", code, str(photo), str(model), str(tmp_path / "out")]
    result = subprocess.run(words, capture_output=True, text=True, env=ENVIRONMENT, cwd=REPOSITORY)
    assert result.returncode == 0, result.stderr
    peak = int(result.stdout.split("peak ")[1]) / 2**20
    print(f"{peak:.2f} GiB")  # noqa: T201
    assert peak < 2.2
