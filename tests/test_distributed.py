"""Two real processes (gloo) do what one does: the same step, the same integers."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import REPOSITORY


def result_of(folder: Path, processes: int, batch_size: int, accumulation: int) -> dict[str, Any]:
    """What `distributed_worker` wrote."""
    folder.mkdir()
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    words = [sys.executable, "-m", *(launcher if processes > 1 else []), "tests.distributed_worker", str(folder)]
    process = subprocess.run(
        [*words, str(batch_size), str(accumulation)],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    result = torch.load(folder / "result.pt", weights_only=True)
    assert result["world_size"] == processes
    return result


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return result_of(tmp_path_factory.mktemp("alone") / "1", processes=1, batch_size=8, accumulation=1)


@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 1), (2, 2)])
def test_two_processes_are_one(tmp_path: Path, alone: dict[str, Any], batch_size: int, accumulation: int) -> None:
    """8 samples with different numbers of valid pixels, one void altogether; 7 test images of different sizes."""
    both = result_of(tmp_path / "2", 2, batch_size, accumulation)
    for name, expected in alone["gradients"].items():
        torch.testing.assert_close(both["gradients"][name], expected, rtol=1e-6, atol=1e-9, msg=name)
    assert any(gradient.abs().max() > 1e-3 for gradient in alone["gradients"].values())
    assert both["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert both["train_mean_iou"] == alone["train_mean_iou"]
    assert both["confusion"].equal(alone["confusion"])
    assert both["confusion"].sum() > 0
    assert both["bins"][..., [0, 2]].equal(alone["bins"][..., [0, 2]])  # pixels and hits in bins of confidence
    torch.testing.assert_close(both["bins"], alone["bins"], rtol=1e-5, atol=0)
    assert both["temperature"] == pytest.approx(alone["temperature"], rel=1e-5)
    assert both["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-6)
