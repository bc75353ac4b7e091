"""What a run scores at its end, and what its folder keeps of it for later comparisons."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from hfseg import RunConfig, SegMetrics, UserError, compare_runs, predict, run
from hfseg.config import EvalConfig
from hfseg.data import CATEGORIES
from hfseg.data.cityscapes import CLASSES
from hfseg.files import parse_yaml
from hfseg.models import build_model, load_processor, temperature_of
from hfseg.runs import RunResults
from tests.builders import write_config

ONE_STEP = [
    "train.max_steps=1",
    "train.eval_strategy=no",
    "train.save_strategy=no",
    "train.load_best_model_at_end=false",
]


@pytest.fixture(scope="module")
def scored(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of one step in `run`, from weights that bring a temperature of their own."""
    folder = tmp_path_factory.mktemp("scored")
    first = RunConfig.load(write_config(folder, pets), [*ONE_STEP, "eval.calibration=false"])
    run(first)
    (folder / "run").rename(folder / "first")
    assert "temperature" not in json.loads((folder / "first/model/config.json").read_text())["hfseg"]
    assert not any("ece" in key for key in json.loads((folder / "first/metrics.json").read_text()))
    config = folder / "first/model/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hfseg": {"temperature": 7.5}}))
    weights = load_file(folder / "first/model/model.safetensors")
    weights["decode_head.classifier.weight"] *= 30  # far too sure of itself: a temperature helps on any images
    save_file(weights, folder / "first/model/model.safetensors", metadata={"format": "pt"})
    run(RunConfig.load(write_config(folder, pets), [*ONE_STEP, f"model.init={folder}/first/model"]))
    return folder


def test_counts_are_those_of_the_metrics(scored: Path, pets: Path) -> None:
    counts = RunResults.read(scored / "run").require_counts()
    metrics = json.loads((scored / "run/metrics.json").read_text())
    assert counts["classes"].tolist() == ["pet", "background", "boundary"]
    for split in ("eval", "test"):
        names, areas = counts[f"{split}_names"], counts[f"{split}_areas"]
        assert areas.shape == (len(names), 3, 3)
        assert areas.dtype == counts[f"{split}_confusion"].dtype == np.int64
        assert np.array_equal(areas[:, 0].sum(0), np.diag(counts[f"{split}_confusion"]))
        assert counts[f"{split}_confusion"].sum() == metrics[f"{split}_num_pixels"]
        assert names[metrics[f"{split}_worst_image"]] == metrics[f"{split}_worst_image_name"]
        for name, image in zip(names, areas, strict=True):
            trimap = np.asarray(Image.open(pets / "annotations/trimaps" / f"{name}.png"))
            assert image[1].tolist() == [(trimap == value).sum() for value in (1, 2, 3)]
    assert counts["eval_calibration"].shape == (1, 15, 4)
    assert counts["test_calibration"].shape == (2, 15, 4)
    assert not list(scored.glob("run/**/*partial*"))


def test_the_temperature_is_that_of_validation_and_used(scored: Path, pets: Path) -> None:
    """Metrics of the test split, once more from what `predict` returns of the saved model."""
    metrics = json.loads((scored / "run/metrics.json").read_text())
    config = RunConfig.load(scored / "run/run_config.yaml")
    labels = SegMetrics(3).labels
    model = build_model(config.model, labels, str(scored / "run/model"), exact=True)
    assert temperature_of(model.config) == metrics["eval_temperature"] != 7.5
    names = RunResults.read(scored / "run").require_counts()["test_names"]
    _, probabilities = predict(
        model, [pets / "images" / f"{name}.jpg" for name in names], load_processor(config, str(scored / "run/model")),
        return_probabilities=True,
    )  # fmt: skip
    error, pixels = 0.0, 0
    for name, values in zip(names, probabilities, strict=True):
        trimap = np.asarray(Image.open(pets / "annotations/trimaps" / f"{name}.png"))
        error += ((values - np.stack([trimap == value for value in (1, 2, 3)])) ** 2).sum()
        pixels += trimap.size
    assert metrics["test_brier_calibrated"] == pytest.approx(error / pixels, rel=1e-4)
    assert {"eval_ece", "eval_brier", "test_ece", "test_brier", "test_ece_calibrated"} <= metrics.keys()


def test_scoring_again_keeps_the_weights_and_may_ask_for_more(scored: Path, pets: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(scored, tmp_path / "again"))
    before = RunResults.read(folder / "run").require_counts()
    (folder / "run/counts.npz").write_bytes(b"torn")
    with pytest.raises(UserError, match=r"counts\.npz cannot be read"):
        compare_runs(folder / "run", scored / "run")
    weights = load_file(folder / "run/model/model.safetensors")
    overrides = [*ONE_STEP, f"model.init={scored}/first/model", "eval.boundary=true"]
    metrics = run(RunConfig.load(write_config(folder, pets), overrides), eval_only=True)
    after = RunResults.read(folder / "run").require_counts()
    assert all(np.array_equal(after[key], value) for key, value in before.items())
    assert after["test_boundary"].shape == (6, 5, 3, 3)
    for prefix in ("eval", "test"):
        assert 0 <= metrics[f"{prefix}_boundary_iou"] <= 1
        assert 0 <= metrics[f"{prefix}_band_iou_3px"] <= 1
    now = load_file(folder / "run/model/model.safetensors")
    assert all(value.equal(weights[name]) for name, value in now.items())
    old, new = (json.loads((each / "run/model/config.json").read_text()) for each in (scored, folder))
    assert old == new


def test_two_runs_are_compared_by_name(scored: Path, tmp_path: Path) -> None:
    first, second = scored / "first", scored / "run"
    test = compare_runs(first, second)
    counts = [RunResults.read(folder).require_counts() for folder in (first, second)]
    expected = [json.loads((folder / "metrics.json").read_text())["test_mean_iou"] for folder in (first, second)]
    assert test.value == pytest.approx(expected[1] - expected[0], abs=1e-6)
    assert test.low <= test.value <= test.high
    # the order of the images is not that of the folder's run
    turned = counts[1] | {key: counts[1][key][::-1] for key in ("test_names", "test_areas")}
    np.savez(tmp_path / "counts.npz", **turned)
    assert compare_runs(first, tmp_path) == test
    other = counts[1]["test_names"].copy()
    other[2] = "cat_9"
    for changed, said in (
        ({"test_names": other}, "same test images in both runs: 1 of .* are not in .*"),
        ({"classes": np.array(["pet", "boundary", "background"])}, "classes in another order"),
        ({"classes": np.array(["pet", "background", "edge"])}, r"\(boundary\)"),
    ):
        np.savez(tmp_path / "counts.npz", **(counts[1] | changed))
        with pytest.raises(UserError, match=said):
            compare_runs(first, tmp_path)
    np.savez(tmp_path / "counts.npz", areas=np.zeros(3))
    with pytest.raises(UserError, match="has no classes, eval_areas"):
        compare_runs(first, tmp_path)
    with pytest.raises(UserError, match="is missing: is this the folder"):
        compare_runs(first, tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"'eval' .validation. and 'test'"):
        compare_runs(first, second, split="train")  # type: ignore[arg-type]


def test_damaged_counts_are_said_to_be_so(scored: Path, tmp_path: Path) -> None:
    """Wherever the damage is: in the zip's directory, a header, or what is compressed."""
    content = (scored / "run/counts.npz").read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for place in rng.integers(0, len(content), 150).tolist():
        flipped = bytearray(content)
        flipped[place : place + 4] = rng.bytes(len(flipped[place : place + 4]))
        (tmp_path / "counts.npz").write_bytes(flipped)
        try:
            compare_runs(scored / "first", tmp_path)
        except UserError as error:
            assert "--eval-only" in str(error)  # noqa: PT017
            refused += 1
        RunResults.read(tmp_path)
    assert refused > 75  # some bytes of a zip mean nothing
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "array.npy").rename(tmp_path / "counts.npz")
    with pytest.raises(UserError, match="damaged"):
        compare_runs(scored / "first", tmp_path)


def test_logits_that_are_nan(scored: Path, pets: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(scored / "first", tmp_path / "first")
    weights = load_file(folder / "model/model.safetensors")
    weights["decode_head.batch_norm.running_var"][1] = -1.0  # finite, as every door looks, and of no real root
    save_file(weights, folder / "model/model.safetensors", metadata={"format": "pt"})
    config = RunConfig.load(write_config(scored, pets), [f"output_dir={folder}"])
    with pytest.raises(UserError, match="NaN or infinite on the image"):
        run(config, eval_only=True)


def test_nothing_to_score(scored: Path, pets: Path, tmp_path: Path) -> None:
    """In a run that does not train, and so does not look at the data first."""
    for split, label in (("train", 0), ("val", 1), ("test", 255)):
        for kind, pixels in (("images", np.zeros((8, 8, 3), np.uint8)), ("masks", np.full((8, 8), label, np.uint8))):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
            Image.fromarray(pixels).save(tmp_path / "data" / kind / split / "a.png")
    (tmp_path / "data/classes.txt").write_text("pet\nbackground\nboundary\n")
    words = [f"data={{name: folder, root: {tmp_path}/data}}", f"model.init={scored}/first/model"]
    with pytest.raises(UserError, match="No pixel of the test split"):
        run(RunConfig.load(write_config(tmp_path, pets), words), eval_only=True)


def test_streets_have_seven_categories(tmp_path: Path) -> None:
    tree = {
        "name": "streets", "output_dir": str(tmp_path / "run"), "transforms": {"size": 32}, "eval": {"size": 64},
        "data": {"name": "synthetic_cityscapes", "synthetic": {"num_trainval": 8, "num_test": 4, "size": 64}},
        "train": {key.removeprefix("train."): parse_yaml(value, key) for key, value in
                  (override.split("=") for override in ONE_STEP)},
    }  # fmt: skip
    metrics = run(RunConfig.from_tree(tree, "tree"))
    confusion = RunResults.read(tmp_path / "run").require_counts()["test_confusion"]
    groups = [CATEGORIES[name] for name, *_ in CLASSES]
    scores = []
    for category in ("flat", "construction", "object", "nature", "sky", "human", "vehicle"):
        member = np.array([group == category for group in groups])
        hits, union = confusion[member][:, member].sum(), confusion[member].sum() + confusion[:, member].sum()
        iou = hits / (union - hits) if union else None
        assert metrics[f"test_category_iou_{category}"] == (None if iou is None else pytest.approx(iou))
        scores += [] if iou is None else [iou]
    assert metrics["test_category_iou"] == pytest.approx(np.mean(scores))
    assert sum("category_iou_" in key for key in metrics) == 14


@pytest.mark.parametrize(
    "options", [{"mode": "slide", "crop": 64, "stride": 48}, {"flip": True}, {"scales": (0.5, 1.0)}]
)
def test_contours_need_whole_predictions(options: dict) -> None:
    assert EvalConfig(boundary=True, mode="whole").boundary
    data = {"name": "synthetic_pet"}
    with pytest.raises(UserError, match="`boundary` needs an image's whole prediction"):
        RunConfig.from_tree({"name": "a", "data": data, "eval": options | {"boundary": True}}, "tree")
