"""Two real processes (gloo) do what one does: the same step, the same integers."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType

from tests.builders import assert_same_run, unfinished, write_resume_config
from tests.conftest import REPOSITORY


def result_of(
    folder: Path, processes: int, batch_size: int, accumulation: int, unfreeze_at: int = 0
) -> dict[str, Any]:
    """What `distributed_worker` wrote."""
    folder.mkdir()
    launcher = ["torch.distributed.run", "--standalone", f"--nproc_per_node={processes}", "-m"]
    words = [sys.executable, "-m", *(launcher if processes > 1 else []), "tests.distributed_worker", str(folder)]
    process = subprocess.run(
        [*words, str(batch_size), str(accumulation), str(unfreeze_at)],
        cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    result = torch.load(folder / "result.pt", weights_only=True)
    assert result["world_size"] == processes
    return result


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return result_of(tmp_path_factory.mktemp("alone") / "1", processes=1, batch_size=8, accumulation=1)


@pytest.mark.parametrize(("batch_size", "accumulation"), [pytest.param(4, 1, marks=pytest.mark.slow), (2, 2)])
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
    assert both["areas"].equal(alone["areas"])  # image by image, in the data set's order
    assert both["bins"][..., [0, 2]].equal(alone["bins"][..., [0, 2]])  # pixels and hits in bins of confidence
    torch.testing.assert_close(both["bins"], alone["bins"], rtol=1e-5, atol=0)
    assert both["temperature"] == pytest.approx(alone["temperature"], rel=1e-5)
    assert both["eval_loss"] == pytest.approx(alone["eval_loss"], rel=1e-6)


def test_an_encoder_that_is_unfrozen_learns_from_all_processes(tmp_path: Path) -> None:
    """DistributedDataParallel leaves out what needs no gradient when it is made. Compared is the average (EMA)."""
    alone, both = (result_of(tmp_path / str(n), n, 8 // n, 1, unfreeze_at=1) for n in (1, 2))
    encoder = [name for name in alone["gradients"] if "encoder" in name]
    assert max(alone["gradients"][name].abs().max() for name in encoder) > 1e-5
    for name, expected in alone["gradients"].items():
        torch.testing.assert_close(both["gradients"][name], expected, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.slow
def test_two_processes_go_on_from_a_checkpoint(pets: Path, tmp_path: Path) -> None:
    """The whole command, with averaged weights and a frozen start: bit for bit, logs included."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "scripts/run_seg.py",
    ]
    settings = ["train.save_total_limit=4", "model={freeze: encoder, unfreeze_at: 5}", "train.use_cpu=true"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, resume in ((whole, []), (parts, ["--resume"])):
        if resume:
            output_dir = unfinished(whole, folder)
            for step in (6, 9, 12):
                shutil.rmtree(output_dir / f"checkpoint-{step}")
        folder.mkdir(exist_ok=True)
        words = [*launch, "--config", str(write_resume_config(folder, pets, ema=0.9)), *settings, *resume]
        process = subprocess.run(
            words, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        assert process.returncode == 0, process.stderr
    assert (whole / "run" / "checkpoint-3" / "sums_1.json").exists()  # of the second process
    assert_same_run(whole, parts)


@pytest.mark.slow
def test_two_machines_are_two_processes(pets: Path, tmp_path: Path) -> None:
    """The config for several machines, here of one process each and both of them this one: bit for bit."""
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=2", "--config_file",
                  "configs/accelerate/multi_node.yaml", "--main_process_ip=127.0.0.1",
                  f"--main_process_port={free_port()}"]  # fmt: skip
    machines = [[*accelerate, f"--machine_rank={rank}"] for rank in (0, 1)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    for name, launchers in (("whole", [torchrun]), ("parts", machines)):
        (tmp_path / name).mkdir()
        words = [
            "scripts/run_seg.py",
            "--config",
            str(write_resume_config(tmp_path / name, pets)),
            "train.use_cpu=true",
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        processes = [
            subprocess.Popen([*launcher, *words], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True)
            for launcher in launchers
        ]
        for process in processes:
            said = process.communicate()[1]
            assert process.returncode == 0, said
        assert (tmp_path / name / "run" / "checkpoint-12" / "sums_1.json").exists()
    assert_same_run(tmp_path / "whole", tmp_path / "parts")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_config_for_several_machines_is_one_of_accelerate() -> None:
    config = load_config_from_file(str(REPOSITORY / "configs" / "accelerate" / "multi_node.yaml"))
    assert config.distributed_type == DistributedType.MULTI_GPU
    assert (config.num_machines, config.num_processes, config.machine_rank) == (2, 16, 0)
    assert config.main_process_port == 29500
