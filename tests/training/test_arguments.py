"""What transformers accepts and fails over later, or passes over in silence: one message before the first step."""

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from transformers import MobileNetV2Config, MobileNetV2ForSemanticSegmentation, TrainingArguments

from hfseg import RunConfig, UserError, run
from hfseg.runs import read_history
from hfseg.training import check_arguments
from tests.builders import write_config
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.report_to=wandb"], r"train\.report_to=\['wandb'\] is refused: .*wandb"),
        (["train.report_to=nonsense"], r"train\.report_to=\['nonsense'\] is refused: ValueError: nonsense is not"),
        (["train.optim=adamw_bnb_8bit"], r"train\.optim=adamw_bnb_8bit.* is refused: ImportError: You need to ins"),
        (["train.adam_beta1=2.0"], r"train\.optim=adamw_torch.*adam_.* is refused: ValueError: Invalid beta par"),
        (["train.use_liger_kernel=true"], r"train\.use_liger_kernel: may not be set here"),
        (["train.fsdp=full_shard"], r"train\.fsdp is not for hfseg: start .*fsdp2\.yaml"),
        (["train.torch_compile_mode=nonsense"], r"train\.torch_compile_mode=nonsense is refused: .*max-autotune"),
        (["train.torch_compile_backend=nonsense"], r"train\.torch_compile_backend=nonsense"),
        (["train.lr_scheduler_kwargs={foo: 1}"], r"train\.lr_scheduler_kwargs=\{'foo': 1\} is refused"),
        (["train.lr_scheduler_kwargs={power: x}", "train.warmup_steps=2"], r"kwargs=\{'power': 'x'\} is refused"),
        (["train.lr_scheduler_type=warmup_stable_decay"], r"lr_scheduler_type=warmup_stable_decay .* is refused"),
        (["train.log_level=nonsense"], r"train\.log_level='nonsense' is none of detail, debug"),
        (["train.fp16=true"], r"train\.fp16=true on a CPU"),
        (["train.accelerator_config=nonsense"], r"TrainingArguments\) is refused: .*nonsense"),
        (["train.max_grad_norm=-1.0"], r"train\.max_grad_norm: must be at least 0"),
        (["train.adam_beta1=0.8", "train.optim=sgd"], r"train\.adam_beta1=0\.8 does nothing for train\.optim=sgd"),
        (["train.optim_args=momentum=0.9"], r"'momentum=0\.9' does nothing for train\.optim=adamw_torch_fused"),
        (["train.optim=sgd", "train.optim_args=momentum=0.9,lr_decay=1"], r": 'lr_decay=1' does nothing for .*=sgd"),
        (["train.dataloader_persistent_workers=true"], r"persistent_workers=True is for workers, and there are none"),
        (["train.dataloader_multiprocessing_context=spawn"], r"context=spawn is for workers, and there are none"),
        (["model.unfreeze_at=2"], r"`unfreeze_at` needs something that is frozen"),
        (["model={freeze: encoder, unfreeze_at: 4}"], r"model\.unfreeze_at=4: the training has 4 steps"),
        (["model={freeze: {stages: 9}, unfreeze_at: 2}"], r"this encoder has 4 stages"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)  # fmt: skip
def test_refused_before_the_first_step(pets: Path, tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(RunConfig.load(write_config(tmp_path, pets), overrides))
    assert not read_history(tmp_path / "run" / "history.jsonl")


def test_activations_that_cannot_be_checkpointed(tmp_path: Path) -> None:
    model = MobileNetV2ForSemanticSegmentation(MobileNetV2Config(depth_multiplier=0.25))
    with pytest.raises(UserError, match=r"train\.gradient_checkpointing=true: MobileNetV2.* not support"):
        check_arguments(TrainingArguments(str(tmp_path), gradient_checkpointing=True, use_cpu=True), model)


def test_a_launcher_that_cuts_the_model_up(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`accelerate launch` with FSDP of the first version, and of the second, which CPUs would ignore in silence."""
    config = RunConfig.load(write_config(tmp_path, pets))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match=r"fsdp_version: 1, where hfseg needs 2\. configs/accelerate/fsdp2\.yaml"):
        run(config)
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "false")
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "false")
    with pytest.raises(UserError, match="FSDP is for GPUs: on CPUs accelerate passes over it"):
        run(config)


def test_processes_that_would_not_work_together(pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two on CPUs without train.use_cpu: each would train alone and write over the other's files."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 processes are started.*train\.use_cpu=true"):
        run(RunConfig.load(write_config(tmp_path, pets)))


def test_a_process_that_does_not_know_of_the_others(pets: Path, tmp_path: Path) -> None:
    """`accelerate launch` of two on CPUs, without MPI: both would train alone, in the same folder."""
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes=2", "--num_machines=2",
              "--machine_rank=0", "--main_process_ip=127.0.0.1", "--main_process_port=29501"]  # fmt: skip
    words = [*launch, "scripts/run_seg.py", "--config", str(write_config(tmp_path, pets)), "train.use_cpu=true"]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True)
    assert "without saying which of them it is" in result.stderr
    assert not list(tmp_path.glob("run/checkpoint*"))


@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_an_image_that_is_damaged_in_the_middle_of_an_epoch(pets: Path, tmp_path: Path, workers: int) -> None:
    """All are, when the first steps are made: after every check that there is."""
    root = shutil.copytree(pets, tmp_path / "pets")
    settings = ["train.max_steps=100000", "train.logging_steps=1", f"train.dataloader_num_workers={workers}",
                "train.eval_steps=50000", "train.save_steps=50000"]  # fmt: skip
    words = [sys.executable, "scripts/run_seg.py", "--config", write_config(tmp_path, root), *settings]
    with subprocess.Popen(
        words, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        while process.poll() is None and not read_history(tmp_path / "run" / "history.jsonl"):
            time.sleep(0.05)
        for path in (root / "images").iterdir():
            path.write_bytes(path.read_bytes()[:200])
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    assert "Traceback" not in said
    assert re.search(r"^error: The image of sample '\w+' cannot be read: .+", said, re.MULTILINE)
