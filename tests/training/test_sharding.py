"""Two processes (gloo) that hold half of the weights each (FSDP2) train what one process trains."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hfseg.models import HfsegSegformerForSemanticSegmentation
from hfseg.training import find_damage
from tests.conftest import REPOSITORY

LAUNCH = ["accelerate.commands.launch", "--config_file", "configs/accelerate/fsdp2.yaml", "--num_processes=2", "-m"]


def result_of(folder: Path, is_sharded: bool = True, resumed: int = 0) -> dict[str, Any]:
    """What `sharded_worker` wrote."""
    folder.mkdir(exist_ok=True)
    words = [*(LAUNCH if is_sharded else []), "tests.sharded_worker", str(folder), str(resumed)]
    process = subprocess.run(
        [sys.executable, "-m", *words, *([] if is_sharded else ["alone"])],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    return torch.load(folder / "result.pt", weights_only=True)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("sharded") / "2"
    return folder, result_of(folder)


def test_two_halves_are_one(tmp_path: Path, both: tuple[Path, dict[str, Any]]) -> None:
    """Accumulated and clipped gradients of samples with more and fewer valid pixels; scores; the best weights."""
    folder, result = both
    alone = result_of(tmp_path / "1", is_sharded=False)
    assert alone["part"] == 1.0
    assert 0.4 < result["part"] < 0.6
    assert min(line["grad_norm"] for line in alone["history"] if "grad_norm" in line) > 0.1  # clipped at 0.05
    assert result["best_step"] == alone["best_step"] == 2  # not the last one
    for mine, expected in zip(result["history"], alone["history"], strict=True):
        assert mine == pytest.approx(expected, rel=1e-6)
        assert all(mine[key] == expected[key] for key in mine if key.endswith("iou"))  # from counts
    expected_weights, weights = (load_file(each / "model" / "model.safetensors") for each in (tmp_path / "1", folder))
    for name, expected in expected_weights.items():
        torch.testing.assert_close(weights[name], expected, rtol=1e-9, atol=1e-12, msg=name)
    loaded = HfsegSegformerForSemanticSegmentation.from_pretrained(folder / "model", dtype=torch.float64)
    assert all(loaded.state_dict()[name].equal(weight) for name, weight in weights.items())


@pytest.mark.slow
def test_halves_go_on_from_a_checkpoint(tmp_path: Path, both: tuple[Path, dict[str, Any]]) -> None:
    """Bit for bit: weights and optimizer of both processes, and every log."""
    folder, result = both
    shutil.copytree(folder / "run" / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    assert result_of(tmp_path, resumed=2)["history"] == result["history"]
    listings = [json.loads((each / "run" / "checkpoint-6" / "files.json").read_text()) for each in (folder, tmp_path)]
    parts = [name for name in listings[0] if name.endswith(".distcp")]
    assert len(parts) == 4  # weights and optimizer, of two processes
    for name in parts:
        assert listings[0][name] == listings[1][name], name
    part = tmp_path / "run" / "checkpoint-6" / parts[0]
    part.write_bytes(part.read_bytes()[:-1])
    assert str(find_damage(part.parent.parent)).startswith(f"{parts[0]} has ")
