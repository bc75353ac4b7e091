"""The benchmarks of evaluation and training through their command line, at toy size: what they claim, not how fast."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from hfseg import SegMetrics
from tests.builders import Masks, mask_cases
from tests.conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "scripts"))

from bench_stock import example_scores, histogram_mean_iou
from bench_train import compare

EXAMPLE, OURS = "stock + example", "hfseg"


def bench(folder: Path, *words: str) -> dict[str, Any]:
    """What `bench.py` writes as JSON."""
    command = [sys.executable, "scripts/bench.py", *words, "--json", str(folder / "bench.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    return json.loads((folder / "bench.json").read_text())


def test_eval(tmp_path: Path) -> None:
    sizes = ("--images", "3", "--size", "64", "--classes", "4", "--rounds", "1", "--memory-images")
    tables = bench(tmp_path, "eval", *sizes)
    assert tables["versions"]["torch"]
    for task in ("from logits", "from ids"):
        rows = {row["implementation"]: row for row in tables["metric"] if row["task"] == task}
        example = rows["example (evaluate)"]
        assert example["speed_up"] == 1
        assert 0.2 < example["mean_iou"] < 0.9
        # packages that compute in float32 agree to its precision, the others exactly
        for name, row in rows.items():
            exact = name.startswith(("example", "hfseg")) and task == "from ids"
            assert row["mean_iou"] == pytest.approx(example["mean_iou"], abs=1e-12 if exact else 1e-4), name
    assert {row["implementation"] for row in tables["metric"]} >= {"hfseg SegMetrics", "hfseg, loss included"}
    stock, ours = tables["end_to_end"]
    assert (stock["implementation"], ours["implementation"]) == (EXAMPLE, OURS)
    assert ours["mean_iou"] == pytest.approx(stock["mean_iou"], abs=1e-3)


@pytest.mark.slow
def test_memory_of_an_evaluation(tmp_path: Path) -> None:
    """Flat in the number of images for ours, within the 5 % that are promised."""
    sizes = ("--images", "2", "--size", "256", "--classes", "19", "--rounds", "1", "--memory-images", "8", "64")
    rows = bench(tmp_path, "eval", *sizes)["memory"]
    assert [(row["implementation"], row["images"]) for row in rows] == [
        (EXAMPLE, 8), (EXAMPLE, 64), (OURS, 8), (OURS, 64),
    ]  # fmt: skip
    few, many = (row["peak_mb"] for row in rows if row["implementation"] == OURS)
    assert many < 1.05 * few


def test_train(tmp_path: Path, pets: Path) -> None:
    sizes = ("--size", "32", "--eval-size", "32", "--eval-images", "4", "--batch", "2", "--slice", "0.1")
    steps = ("--steps", "4", "--eval-steps", "2", "--warmup-steps", "1", "--learning-rate", "1e-4")
    figure = tmp_path / "curves.png"
    tables = bench(tmp_path, "train", "--root", str(pets), *sizes, *steps, "--figure", str(figure))
    stock, ours = ([row for row in tables["curves"] if row["implementation"] == side] for side in ("stock", "hfseg"))
    for curve in (stock, ours):
        assert [row["step"] for row in curve] == [2, 4]
        assert 0 < curve[0]["seconds"] < curve[1]["seconds"]
    # the same weights, data, order and schedule: after two steps the two can hardly differ yet
    assert ours[0]["mean_iou"] == pytest.approx(stock[0]["mean_iou"], abs=0.02)
    assert [row["seconds"] for row in tables["equal_times"]] == [row["seconds"] for row in ours]
    assert tables["settings"][0]["steps"] == 4
    assert figure.stat().st_size > 5000


@pytest.mark.slow
def test_gpu_at_toy_size(tmp_path: Path) -> None:
    """Every section on a CPU, where there is no tf32, no CUDA graph and no memory of a GPU."""
    tables = bench(tmp_path, "gpu", "--tiny", "--minutes", "5")
    assert tables["settings"][0]["device"]
    assert not [row for name, table in tables.items() if isinstance(table, list) for row in table if "failed" in row]
    for task in ("inference", "training"):
        rows = tables[task]
        assert {(row["model"], row["precision"]) for row in rows} == {
            (model, precision) for model in ("b0", "fcn") for precision in ("fp32", "bf16")
        }
        assert all(row["median_ms"] > 0 for row in rows)
        assert {row["speed_up"] for row in rows if row["implementation"] == "stock eager"} == {1.0}
    assert {row["implementation"] for row in tables["compiled"]} == {
        "stock eager", "ours eager", "stock compiled", "ours compiled",
    }  # fmt: skip
    scores = [row["mean_iou"] for row in tables["evaluation"]]
    assert scores[:-2] == pytest.approx([scores[0]] * (len(scores) - 2), abs=1e-3)
    assert scores[-1] == pytest.approx(scores[-2], abs=1e-3)
    assert len(tables["prediction"]) == 4
    assert {row["constant"] for row in tables["constants"]} >= {"head", "loss", "windows.WINDOWS_PER_PASS_GPU"}
    assert {row["operation"] for row in tables["profile"]} >= {"all", "aten::addmm"}


def test_gpu_says_what_did_not_fit(tmp_path: Path) -> None:
    tables = bench(tmp_path, "gpu", "--tiny", "--minutes", "0", "--sections", "training", "graph")
    assert tables["training"] == [{"section": "training", "skipped": "no time left"}]
    assert "inference" not in tables


def test_comparison_of_curves() -> None:
    def curve(side: str, *points: tuple[float, float]) -> list[dict[str, Any]]:
        return [{"implementation": side, "seconds": time, "mean_iou": score} for time, score in points]

    curves = {
        "stock": curve("stock", (10, 0.12), (20, 0.31), (30, 0.28)),
        "hfseg": curve("hfseg", (4, 0.12), (8, 0.31), (12, 0.36)),
    }
    tables = compare(curves)
    assert [(row["mean_iou"], row["stock_s"], row["hfseg_s"], row["ratio"]) for row in tables["levels"]] == [
        (0.15, 20, 8, 2.5), (0.2, 20, 8, 2.5), (0.25, 20, 8, 2.5), (0.3, 20, 8, 2.5), (0.35, None, 12, None),
    ]  # fmt: skip
    assert [(row["stock_mean_iou"], row["hfseg_mean_iou"]) for row in tables["equal_times"]] == [
        (None, 0.12), (None, 0.31), (0.12, 0.36),
    ]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(mask_cases())
def test_restated_metric_equals_ours(case: tuple[int, int, Masks, Masks]) -> None:
    num_labels, ignore_index, predictions, references = case
    theirs = histogram_mean_iou(predictions, references, num_labels, ignore_index)
    metrics = SegMetrics(num_labels, ignore_index)
    metrics.update(predictions, references)
    ours = metrics.compute()
    assert theirs["mean_iou"] == pytest.approx(ours["mean_iou"], rel=1e-12, nan_ok=True)
    assert theirs["mean_accuracy"] == pytest.approx(ours["mean_accuracy"], rel=1e-12, nan_ok=True)
    assert theirs["overall_accuracy"] == pytest.approx(ours["pixel_accuracy"], rel=1e-12)
    assert theirs["per_category_iou"] == pytest.approx(ours["per_category_iou"], nan_ok=True)


def test_arrow_file_changes_no_score() -> None:
    """Through `evaluate`, whose file holds the masks as images."""
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 5, (3, 8, 9))
    labels = np.where(rng.random(ids.shape) < 0.1, 255, rng.integers(0, 5, ids.shape))
    scores = example_scores(ids, labels, 5)
    expected = histogram_mean_iou(ids, labels, 5, 255)
    assert scores["mean_iou"] == expected["mean_iou"]
    assert np.array_equal(scores["per_category_iou"], expected["per_category_iou"])
