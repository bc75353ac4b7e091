"""The real command line on studies at toy size: what runs, what fails, what a kill leaves."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hfseg import RunConfig
from hfseg.study.plan import plan
from hfseg.study.running import last_words
from tests.builders import write_finished_run
from tests.conftest import REPOSITORY

TRAIN = {"max_steps": 4, "per_device_train_batch_size": 4, "logging_steps": 2, "eval_strategy": "steps",
         "save_strategy": "steps", "eval_steps": 2, "save_steps": 2, "learning_rate": 1e-3}  # fmt: skip
SMALL = {"transforms": {"size": 32}, "eval": {"size": 32, "calibration": False}, "train": TRAIN}
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def write_study(folder: Path, pets: Path, arms: dict[str, Any], seeds: list[int], **study: Any) -> Path:
    path = folder / "tiny.yaml"
    data = {"name": "oxford_pet", "root": str(pets)}
    tree = {"name": "tiny", "output_dir": str(folder / "study"), "data": data, **SMALL}
    pretrain = {"streets": {"data": data, **SMALL}}
    path.write_text(
        yaml.safe_dump(
            tree | {"study": {"arms": arms, "seeds": seeds, "pretrain": pretrain, **study}}, sort_keys=False
        )
    )
    return path


def words(*arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "scripts/run_seg.py"), *map(str, arguments)]


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words(*arguments), capture_output=True, text=True, env=ENVIRONMENT)


def finish(path: Path, *names: str) -> None:
    """Writes the folders of finished runs."""
    for job in plan(RunConfig.load(path)):
        if job.name in names:
            write_finished_run(job, 0.7)


def test_a_failed_arm_is_reported_and_the_rest_goes_on(pets: Path, tmp_path: Path) -> None:
    arms = {
        "done": {"model": {"type": "segformer"}},
        "broken": {"model": {"init": str(tmp_path / "nowhere")}},
        "scratch": {"model": {"type": "segformer"}, "train": {"weight_decay": 0.1}},
    }
    path = write_study(tmp_path, pets, arms, [3])
    finish(path, "pretrain-streets", "done-seed3")
    before = (tmp_path / "study/done-seed3/metrics.json").stat().st_mtime_ns
    result = command("--config", path)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "2 of 4 runs are finished already" in result.stderr
    assert "broken-seed3: exit status 2" in result.stderr
    assert "warning: scratch differs from done in `train.weight_decay`" in result.stderr
    assert (tmp_path / "study/done-seed3/metrics.json").stat().st_mtime_ns == before
    study = json.loads((tmp_path / "study/study.json").read_text())
    assert list(study["missing"]) == ["broken-seed3"]
    assert "nowhere" in study["missing"]["broken-seed3"]
    folder = tmp_path / "study/scratch-seed3"
    metrics = json.loads((folder / "metrics.json").read_text())
    assert study["arms"]["scratch"]["test"]["mean_iou"]["value"] == pytest.approx(metrics["test_mean_iou"], abs=1e-6)
    saved = yaml.safe_load((folder / "run_config.yaml").read_text())
    assert (saved["seed"], saved["train"]["weight_decay"], saved["study"]) == (3, 0.1, None)
    assert study["arms"]["scratch"]["peak_memory_mb"] > 100
    assert study["arms"]["scratch"]["trained_parameters"] == study["arms"]["scratch"]["parameters"]
    assert (tmp_path / "study/report.html").exists()


def test_a_crash_is_not_told_in_the_words_of_an_earlier_attempt(tmp_path: Path) -> None:
    job = plan(RunConfig.load(write_study(tmp_path, tmp_path, {"scratch": None}, [0])))[-1]
    job.folder.mkdir(parents=True)
    (job.folder / "log.txt").write_text("error: data.root is no folder.\nTraceback:\nMemoryError: too large\n")
    assert last_words(job, 1).startswith("MemoryError: too large (see ")
    assert last_words(job, 2).startswith("data.root is no folder. (see ")


def run_until(path: Path, seen: Path, number: int, study_only: bool) -> None:
    """Starts the study and sends it a signal when a file is there: to the study alone, or to all of its processes."""
    process = subprocess.Popen(words("--config", path), env=ENVIRONMENT, start_new_session=True)
    deadline = time.monotonic() + 300
    while not seen.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    (os.kill if study_only else os.killpg)(process.pid, number)
    assert process.wait(60) == (-number if number == signal.SIGKILL else 130)


@pytest.mark.slow
def test_a_killed_study_does_what_is_left_and_answers_the_same(pets: Path, tmp_path: Path) -> None:
    arms = {
        "scratch": {"model": {"type": "segformer"}},
        "tuned": {"model": {"init": "pretrain.streets"}},
        "frozen": {"model": {"init": "pretrain.streets", "freeze": "encoder"}},
    }
    paths = {}
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
        paths[name] = write_study(tmp_path / name, pets, arms, [0, 1])
    assert command("--config", paths["whole"]).returncode == 0
    folder = tmp_path / "killed/study"
    run_until(paths["killed"], folder / "scratch-seed0/checkpoint-2", signal.SIGKILL, study_only=True)
    done = (folder / "pretrain-streets/metrics.json").stat().st_mtime_ns
    run_until(paths["killed"], folder / "frozen-seed0/checkpoint-2", signal.SIGINT, study_only=False)
    assert not (folder / "frozen-seed0/metrics.json").exists()
    run_until(paths["killed"], folder / "scratch-seed1/checkpoint-2", signal.SIGINT, study_only=True)
    result = command("--config", paths["killed"])
    assert result.returncode == 0, result.stderr
    assert (folder / "pretrain-streets/metrics.json").stat().st_mtime_ns == done
    answers = [json.loads((tmp_path / name / "study/study.json").read_text()) for name in paths]
    for answer in answers:
        for arm in answer["arms"].values():
            for key in ("minutes_per_run", "peak_memory_mb"):
                del arm[key]
        for made in answer["pretraining"].values():
            del made["minutes"]
    assert answers[0] == answers[1]
    assert "4 of 7 runs are finished already" in result.stderr


@pytest.mark.slow
def test_two_processes_make_one_arm(pets: Path, tmp_path: Path) -> None:
    path = write_study(tmp_path, pets, {"scratch": {"model": {"type": "segformer"}}}, [0, 1])
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = subprocess.run(
        [*launch, *words("--config", path, "train.use_cpu=true", "--arm", "scratch-seed1")[1:]],
        capture_output=True, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    study = json.loads((tmp_path / "study/study.json").read_text())
    assert study["arms"]["scratch"]["seeds"] == [1]
    result = subprocess.run(
        [*launch, *words("--config", path, "train.use_cpu=true")[1:]], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert "2 processes make one run together: name it by --arm" in result.stderr


@pytest.mark.slow
def test_the_toy_study_is_whole(tmp_path: Path) -> None:
    began = time.monotonic()
    result = command("--config", REPOSITORY / "configs/study/toy.yaml", f"output_dir={tmp_path / 'toy'}")
    assert result.returncode == 0, result.stderr
    study = json.loads((tmp_path / "toy/study.json").read_text())
    assert (study["missing"], len(study["arms"]), len(study["differences"])) == ({}, 6, 9)
    assert (tmp_path / "toy/report.html").stat().st_size > 100_000
    print(f"{time.monotonic() - began:.0f} seconds")  # noqa: T201
