"""A run that is killed and goes on is the run that was never stopped. The real command, in a subprocess."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from hfseg import RunConfig, TransformsConfig, UserError, run
from hfseg.config.train_keys import train_types
from hfseg.runs import check_same_run, read_history
from hfseg.runs.folder import FREE_KEYS, FREE_WHEN_SCORED
from hfseg.training import checkpoints, find_damage, last_whole_checkpoint
from tests.builders import (
    RESUME_STEPS,
    assert_same_run,
    assert_same_run_results,
    history_of,
    unfinished,
    write_resume_config,
)
from tests.conftest import REPOSITORY


def words(*arguments: object) -> list[str]:
    return [sys.executable, str(REPOSITORY / "scripts" / "run_seg.py"), *map(str, arguments)]


def kill_when(process: subprocess.Popen[bytes], run_dir: Path, step: int, delay: float) -> None:
    """SIGKILL some time after a step's checkpoint was begun, and that of all its workers."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        if (run_dir / f"checkpoint-{step}").exists():
            time.sleep(delay)
            break
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def train_with_kills(folder: Path, arguments: list[object], kills: list[tuple[int, float]]) -> int:
    """Returns how many of the kills came before the end."""
    done = 0
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for step, delay in kills:
        resume = ["--resume"] if checkpoints(folder / "run") else []
        with (folder / "log").open("ab") as log:
            process = subprocess.Popen(
                words(*arguments, *resume), start_new_session=True, env=environment, stdout=log, stderr=log
            )
            kill_when(process, folder / "run", step, delay)
        done += process.returncode == -signal.SIGKILL
    if (folder / "run" / "metrics.json").exists():
        return done  # the last kill came too late
    result = subprocess.run(words(*arguments, "--resume"), env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return done


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("optim", [{}, {"ema": 0.9, "layer_decay": 0.8, "early_stopping": 3}], ids=["plain", "ema"])
def test_killed_five_times_and_the_same(pets: Path, tmp_path: Path, workers: int, optim: dict[str, Any]) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = [f"train.dataloader_num_workers={workers}"]
    for folder in (whole, parts):
        folder.mkdir()
    subprocess.run(
        words("--config", write_resume_config(whole, pets, **optim), *arguments), check=True, capture_output=True
    )
    rng = random.Random(workers)
    kills = [(step, rng.uniform(0, 0.4)) for step in (3, 3, 6, 9, 12)]
    done = train_with_kills(parts, ["--config", write_resume_config(parts, pets, **optim), *arguments], kills)
    assert done >= 4
    assert_same_run(whole, parts)


@pytest.mark.slow
def test_killed_at_five_random_steps(pets: Path, tmp_path: Path) -> None:
    """Also in the middle of what lies between two checkpoints, and with an encoder that is frozen at first."""
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    arguments = ["train.logging_steps=1", "model={freeze: encoder, unfreeze_at: 5}"]
    for folder in (whole, parts):
        folder.mkdir()
    words_of = {
        folder: words("--config", write_resume_config(folder, pets, ema=0.9), *arguments) for folder in (whole, parts)
    }
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(words_of[whole], check=True, capture_output=True, env=environment)
    for step in sorted(random.Random(7).sample(range(2, RESUME_STEPS), 5)):
        resume = ["--resume"] if checkpoints(parts / "run") else []
        process = subprocess.Popen(
            [*words_of[parts], *resume], start_new_session=True, env=environment, stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        while process.poll() is None and step not in steps_seen(parts):
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (parts / "run" / "metrics.json").exists()
    subprocess.run([*words_of[parts], "--resume"], check=True, capture_output=True, env=environment)
    assert_same_run(whole, parts)


def steps_seen(folder: Path) -> set[int]:
    return {line["step"] for line in read_history(folder / "run" / "history.jsonl")}


@pytest.fixture(scope="module")
def finished(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    run(RunConfig.load(write_resume_config(folder, pets, ema=0.9), ["train.save_total_limit=4"]))
    return folder


def test_from_every_checkpoint(finished: Path, pets: Path, tmp_path: Path) -> None:
    """In the middle of an epoch and of a logging interval, and with nothing left to train."""
    for last in (3, 9, 12):
        folder = tmp_path / str(last)
        output_dir = unfinished(finished, folder)
        for step in (3, 6, 9, 12):
            if step > last:
                shutil.rmtree(output_dir / f"checkpoint-{step}")
        run(RunConfig.load(write_resume_config(folder, pets, ema=0.9), ["train.save_total_limit=4"]), resume=True)
        assert_same_run(finished, folder)
        assert history_of(folder)[-1]["step"] == RESUME_STEPS
        seconds = [line["seconds"] for line in read_history(folder / "run" / "history.jsonl")]
        assert seconds == sorted(seconds)  # the time goes on, too
        assert seconds[0] > 0
        assert json.loads((output_dir / "provenance.json").read_text())["train_seconds"] == seconds[-1]


HARMLESS = (
    "train.per_device_eval_batch_size=1", "train.dataloader_num_workers=1", "train.dataloader_prefetch_factor=1",
    "train.logging_steps=5", "train.report_to=none", "train.disable_tqdm=true", "train.run_name=again",
    "train.save_total_limit=1", "train.gradient_checkpointing=true", "data.cache=true", "data.note=a #1",
    "hub.images=true",
)  # fmt: skip


def test_settings_that_change_no_result_may_differ(
    finished: Path, pets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After an out-of-memory, say, in an evaluation."""
    output_dir = unfinished(finished, tmp_path)
    shutil.rmtree(output_dir / "checkpoint-12")
    run(RunConfig.load(write_resume_config(tmp_path, pets, ema=0.9), HARMLESS), resume=True)
    assert_same_run_results(finished, tmp_path, rounding=1e-6)
    said = next(
        line for line in capsys.readouterr().out.splitlines() if line.startswith("Goes on with other settings")
    )
    for key in (setting.partition("=")[0] for setting in HARMLESS):
        assert key in said
    assert "train.per_device_eval_batch_size 1 (was None)" in said
    assert RunConfig.load(output_dir / "run_config.yaml").train["per_device_eval_batch_size"] == 1


@pytest.mark.parametrize(
    "setting",
    ["seed=1", "train.per_device_train_batch_size=2", "train.learning_rate=0.1", "train.max_steps=13",
     "train.gradient_accumulation_steps=2", "train.bf16=true", "train.eval_steps=1", "train.weight_decay=0.1",
     "transforms.flip=false", "optim.ema=0.8", "loss.dice=1", "eval.flip=true", "eval.boundary=true",
     "data.boundary=ignore", "model.freeze=encoder"],
)  # fmt: skip
def test_settings_that_change_results_may_not(finished: Path, pets: Path, tmp_path: Path, setting: str) -> None:
    key = setting.partition("=")[0]
    config = RunConfig.load(
        write_resume_config(finished, pets, ema=0.9), ["train.save_total_limit=4", "hub.images=true", setting]
    )
    with pytest.raises(UserError, match=rf"restore it or start another run:\n  {key}: .* then, .* now$"):
        check_same_run(config, eval_only=False)
    if key.startswith(("seed", "train", "transforms", "optim", "loss", "eval.boundary", "model.freeze")):
        said = check_same_run(config, eval_only=True)
        assert said is not None
        assert key in said
    else:
        with pytest.raises(UserError, match=rf"\n  {key}: "):
            check_same_run(config, eval_only=True)


def test_the_size_of_evaluation_is_compared_as_it_is_used(finished: Path, pets: Path) -> None:
    """It is that of `transforms` where `eval` says none, which scoring alone does not look at."""
    config = RunConfig.load(
        write_resume_config(finished, pets, ema=0.9), ["eval.size=null", "train.save_total_limit=4"]
    )
    assert check_same_run(config, eval_only=False) is None  # both are 32
    larger = config.model_copy(update={"transforms": TransformsConfig(size=64)})
    with pytest.raises(UserError, match=r"\n  eval\.size: 32 then, 64 now$"):
        check_same_run(larger, eval_only=True)


def test_what_may_differ_are_keys() -> None:
    for key in (*FREE_KEYS, *FREE_WHEN_SCORED):
        section, _, last = key.rpartition(".")
        if section == "train" and not last.startswith("activation_"):  # of a later transformers
            assert last in train_types(), key
        elif section != "train":
            schema = RunConfig.model_fields[section].annotation if section else RunConfig
            assert last in schema.model_fields, key  # type: ignore[union-attr]


@pytest.mark.parametrize("content", ["", "name: [", "name: 1\nnonsense: 2\n", "\0", "a: &a [*a]"])
def test_a_damaged_run_config(finished: Path, pets: Path, tmp_path: Path, content: str) -> None:
    output_dir = unfinished(finished, tmp_path)
    (output_dir / "run_config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"Restore .*run_config\.yaml, or start another run under another name"):
        run(RunConfig.load(write_resume_config(tmp_path, pets, ema=0.9)), resume=True)


@pytest.mark.parametrize("optim", [{}, {"ema": 0.9, "layer_decay": 0.8}], ids=["plain", "ema"])
def test_around_the_step_of_unfreezing(pets: Path, tmp_path: Path, optim: dict[str, Any]) -> None:
    """From a checkpoint before it, at it and after it: the run that was never stopped."""
    settings = ["train.save_total_limit=4", "model.freeze={stages: 3}", "model.unfreeze_at=6"]
    whole = tmp_path / "whole"
    whole.mkdir()
    run(RunConfig.load(write_resume_config(whole, pets, **optim), settings))
    first, at, later = (load_file(whole / "run" / f"checkpoint-{step}/model.safetensors") for step in (3, 6, 9))
    names = [name for name in first if name.startswith("segformer.encoder.block.0")]
    assert names
    assert all(first[name].equal(at[name]) and not at[name].equal(later[name]) for name in names if "weight" in name)
    for last in (3, 6, 9):
        parts = tmp_path / str(last)
        output_dir = unfinished(whole, parts)
        for step in (6, 9, 12):
            if step > last:
                shutil.rmtree(output_dir / f"checkpoint-{step}")
        run(RunConfig.load(write_resume_config(parts, pets, **optim), settings), resume=True)
        assert_same_run(whole, parts)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "rng_state.pth", "ema.safetensors",
             "sums_0.json", "scheduler.pt", "files.json"],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["torn", "missing", "flipped"])
def test_a_damaged_checkpoint_is_passed_over(
    finished: Path, tmp_path: Path, name: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    output_dir = unfinished(finished, tmp_path)
    path = output_dir / "checkpoint-12" / name
    content = path.read_bytes()
    path.unlink()
    if kind != "missing":
        path.write_bytes(content[:-1] if kind == "torn" else content[:-1] + bytes([content[-1] ^ 1]))
    assert last_whole_checkpoint(output_dir).name == "checkpoint-9"
    assert len(caplog.records) == 1
    assert f"checkpoint-12 is damaged ({name}" in caplog.text


def test_all_damaged(finished: Path, tmp_path: Path) -> None:
    output_dir = unfinished(finished, tmp_path)
    for folder in checkpoints(output_dir):
        (folder / "optimizer.pt").unlink()
    with pytest.raises(UserError, match=r"no checkpoint to resume from .*checkpoint-12 is damaged.*checkpoint-3 is"):
        last_whole_checkpoint(output_dir)


def test_a_full_disk_leaves_the_last_checkpoint(finished: Path, pets: Path, tmp_path: Path) -> None:
    """A limit on the size of files, at which writing fails as on a full disk."""
    weights, optimizer = (
        (finished / "run" / "checkpoint-3" / name).stat().st_size for name in ("model.safetensors", "optimizer.pt")
    )
    for limit, number in ((weights - 1000, "weights"), (optimizer - 1000, "optimizer")):
        folder = tmp_path / number
        output_dir = unfinished(finished, folder)
        for step in (6, 9, 12):
            shutil.rmtree(output_dir / f"checkpoint-{step}")
        result = subprocess.run(
            words("--config", write_resume_config(folder, pets, ema=0.9), "train.save_total_limit=4", "--resume"),
            capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
            preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )  # fmt: skip
        assert result.returncode == 2, result.stderr
        assert "Traceback" not in result.stderr
        assert "Make room on its disk. Then go on with --resume: the last checkpoint is whole." in result.stderr
        assert [path.name for path in output_dir.glob("checkpoint*")] == ["checkpoint-3"]
        assert find_damage(output_dir / "checkpoint-3") is None
