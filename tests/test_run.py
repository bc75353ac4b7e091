"""The command as a user gives it, in a subprocess."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForSemanticSegmentation, SegformerForSemanticSegmentation, SegformerImageProcessor

from hfseg import DataConfig, RunConfig, UserError, run
from hfseg.publishing import EXAMPLES
from hfseg.publishing.pages import PAGES
from hfseg.training import training_arguments
from hfseg.training.arguments import default_workers
from tests.builders import write_config
from tests.conftest import REPOSITORY


def command(*arguments: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(REPOSITORY / "scripts" / "run_seg.py"), *map(str, arguments)]
    return subprocess.run(words, cwd=cwd, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


@pytest.fixture(scope="module")
def finished(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    folder = tmp_path_factory.mktemp("finished")
    result = command("--config", write_config(folder, pets))
    assert result.returncode == 0, result.stderr
    return folder, result


def test_everything_is_written(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, result = finished
    output = folder / "run"
    assert "mean IoU" in result.stdout
    assert "everywhere" in result.stdout
    metrics = json.loads((output / "metrics.json").read_text())
    for prefix in ("eval", "test"):
        assert 0 < metrics[f"{prefix}_mean_iou"] < 1
        assert f"{prefix}_iou_boundary" in metrics
        low, value, high = (metrics[f"{prefix}_mean_iou{end}"] for end in ("_low", "", "_high"))
        assert low < value < high
        assert metrics[f"{prefix}_worst_image_iou"] <= metrics[f"{prefix}_mean_image_iou"]
        assert metrics[f"{prefix}_worst_image_name"]
        assert f"{value:.4f} [{low:.4f}, {high:.4f}]" in result.stdout
    assert [row["name"] for row in json.loads((output / "per_class.json").read_text())["test"]] == [
        "pet", "background", "boundary",
    ]  # fmt: skip
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in history if "train_mean_iou" in line] == [2, 4]
    assert [line["step"] for line in history if "eval_mean_iou" in line] == [2, 4]  # and not the final one again
    best = max(line["eval_mean_iou"] for line in history if "eval_mean_iou" in line)
    assert metrics["eval_mean_iou"] == pytest.approx(best, abs=1e-6)  # the best checkpoint, strictly reloaded
    for figure in ("curves", "predictions"):
        assert Image.open(output / "figures" / f"{figure}.png").size[0] > 600
    assert RunConfig.load(output / "run_config.yaml").train["max_steps"] == 4
    assert not list(output.glob("**/*partial*"))


def test_the_model_folder_is_stock_and_complete(finished: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder = finished[0] / "run" / "model"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "preprocessor_config.json",
    }  # fmt: skip
    model, info = AutoModelForSemanticSegmentation.from_pretrained(folder, output_loading_info=True)
    assert type(model) is SegformerForSemanticSegmentation
    assert not any(info.values())
    assert model.config.id2label == {0: "pet", 1: "background", 2: "boundary"}
    assert model.config.hfseg["version"]
    assert SegformerImageProcessor.from_pretrained(folder).size == {"height": 64, "width": 64}


def test_card(finished: tuple[Path, subprocess.CompletedProcess[str]], pets: Path) -> None:
    text = (finished[0] / "run" / "README.md").read_text()
    card = ModelCard(text)
    metrics = json.loads((finished[0] / "run" / "metrics.json").read_text())
    assert card.data.pipeline_tag == "image-segmentation"
    assert card.data.library_name == "transformers"
    assert card.data.eval_results[0].metric_value == round(metrics["test_mean_iou"], 4)
    low, high = metrics["test_mean_iou_low"], metrics["test_mean_iou_high"]
    assert f"{metrics['test_mean_iou']:.4f} [{low:.4f}, {high:.4f}]" in card.text
    assert "scripts/run_seg.py --config" in card.text  # the command that made it
    assert "hfseg train run_config.yaml output_dir=runs/again" in card.text
    assert str(pets) not in text


def test_eval_only_gives_the_same_and_a_second_run_is_refused(
    finished: tuple[Path, subprocess.CompletedProcess[str]], pets: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[0], tmp_path, dirs_exist_ok=True)
    path = write_config(tmp_path, pets)
    before = json.loads((tmp_path / "run" / "metrics.json").read_text())
    refused = command("--config", path)
    assert refused.returncode == 2
    assert "already holds a run" in refused.stderr
    weights = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert command("--config", path, "--eval-only").returncode == 0
    after = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert after["test_mean_iou"] == before["test_mean_iou"]
    for kept in ("history.jsonl", "provenance.json", "run_config.yaml"):  # they tell of the training
        assert (tmp_path / "run" / kept).read_text() == (finished[0] / "run" / kept).read_text()
    assert all(
        value.equal(weights[name]) for name, value in load_file(tmp_path / "run/model/model.safetensors").items()
    )


def test_resume_goes_on(finished: tuple[Path, subprocess.CompletedProcess[str]], pets: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, pets)
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    whole = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    shutil.rmtree(tmp_path / "run" / "model")
    (tmp_path / "run" / "metrics.json").unlink()
    # as if killed while it wrote step 4: the weights are there, the state is not
    (tmp_path / "run" / "checkpoint-4" / "trainer_state.json").unlink()
    result = command("--config", path, "--resume")
    assert result.returncode == 0, result.stderr
    resumed = load_file(tmp_path / "run" / "checkpoint-4" / "model.safetensors")
    assert all(value.equal(whole[name]) for name, value in resumed.items())


def test_user_errors_exit_with_2_and_one_message(pets: Path, tmp_path: Path) -> None:
    path = write_config(tmp_path, pets)
    for arguments, said in (
        ((path, "train.max_step=3"), "Did you mean `max_steps`?"),
        ((path, f"data.root={tmp_path}/nowhere"), "nowhere is not a folder"),
        ((path, "model.size=b7"), "b0, b1, b2"),
    ):
        result = command("--config", *arguments)
        assert result.returncode == 2, result.stderr
        assert said in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("train.save_steps=3", "(transformers.TrainingArguments) is refused"),
        ("train.metric_for_best_model=foo", "choose one of loss, mean_iou"),
        ("loss.class_weights=[1, 2]", "one for each of 3 classes"),
        ("model.init=/nowhere/at/all", "model.init='/nowhere/at/all' is no folder here"),
    ],
)
def test_refused_before_training(pets: Path, tmp_path: Path, override: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        run(RunConfig.load(write_config(tmp_path, pets), [override]))
    assert said in str(error.value)
    assert not (tmp_path / "run").exists()


def test_fcn_with_a_frozen_encoder(pets: Path, tmp_path: Path) -> None:
    overrides = ["model={type: fcn, size: resnet50, freeze: encoder}", "train.max_steps=2", "loss.label_smoothing=0.1"]
    metrics = run(RunConfig.load(write_config(tmp_path, pets), overrides))
    assert 0 < metrics["test_mean_iou"] < 1
    folder = tmp_path / "run" / "model"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "configuration_fcn.py", "model.safetensors", "modeling_fcn.py", "preprocessor_config.json",
    }  # fmt: skip
    saved = load_file(folder / "model.safetensors")
    assert int(saved["backbone.bn1.num_batches_tracked"]) == 0
    assert "trust_remote_code=True" in (tmp_path / "run" / "README.md").read_text()


@pytest.mark.parametrize(
    ("mode", "override", "said"),
    [
        ("eval_only", "data.boundary=ignore", "data.boundary: 'class' then, 'ignore' now"),
        ("eval_only", "eval.size=32", "eval.size: 64 then, 32 now"),
        ("resume", "train.learning_rate=0.5", "train.learning_rate: None then, 0.5 now"),
        ("resume", "model.size=b1", "model.size: 'b0' then, 'b1' now"),
    ],
)
def test_another_config_is_not_the_same_run(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    pets: Path,
    tmp_path: Path,
    mode: str,
    override: str,
    said: str,
) -> None:
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    if mode == "resume":
        (tmp_path / "run" / "metrics.json").unlink()
    before = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.*") if path.is_file()}
    with pytest.raises(UserError) as error:
        run(RunConfig.load(write_config(tmp_path, pets), [override]), **{mode: True})
    assert said in str(error.value)
    assert {path: path.read_bytes() for path in before} == before


def test_a_finished_run_has_nothing_to_resume(
    finished: tuple[Path, subprocess.CompletedProcess[str]], pets: Path
) -> None:
    with pytest.raises(UserError, match="nothing to resume"):
        run(RunConfig.load(write_config(finished[0], pets)), resume=True)


@pytest.mark.parametrize("lost", [(*EXAMPLES, *PAGES), PAGES[-1:], EXAMPLES[-1:]], ids=["all", "page", "examples"])
def test_what_a_kill_after_the_scores_left_unmade_is_made(
    finished: tuple[Path, subprocess.CompletedProcess[str]],
    pets: Path,
    tmp_path: Path,
    lost: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without training or scoring again; the same bytes as where nothing came between."""
    folder = Path(
        shutil.copytree(finished[0] / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    )
    config = RunConfig.load(write_config(tmp_path, pets))
    before = {name: (folder / name).read_bytes() for name in (*EXAMPLES, *PAGES)}
    for name in lost:
        (folder / name).unlink()
    weights, scores = folder / "model" / "model.safetensors", folder / "metrics.json"
    times = [path.stat().st_mtime_ns for path in (weights, scores)]
    assert run(config, resume=True) == json.loads(scores.read_text())
    assert "mean IoU" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in (weights, scores)] == times
    for name, content in before.items():
        made = (folder / name).read_bytes()
        assert made == content if name.endswith((".png", ".npz")) else made.decode().count("mean IoU"), name
    with pytest.raises(UserError, match="nothing to resume"):
        run(config, resume=True)


def test_another_config_makes_nothing_of_a_run(
    finished: tuple[Path, subprocess.CompletedProcess[str]], pets: Path, tmp_path: Path
) -> None:
    folder = Path(
        shutil.copytree(finished[0] / "run", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*"))
    )
    (folder / "report.html").unlink()
    with pytest.raises(UserError, match=r"model\.size: 'b0' then, 'b1' now"):
        run(RunConfig.load(write_config(tmp_path, pets), ["model.size=b1"]), resume=True)
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "way_on"), [("metrics.json", "Score it again"), ("checkpoint-4", "Continue it with")]
)
def test_a_folder_that_holds_a_run_names_the_way_on(name: str, way_on: str, pets: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / name).mkdir(parents=True)
    with pytest.raises(UserError, match=f"already holds a run. {way_on}"):
        run(RunConfig.load(write_config(tmp_path, pets)))


def test_a_torn_state_is_no_checkpoint(
    finished: tuple[Path, subprocess.CompletedProcess[str]], pets: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished[0] / "run", tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    for path in (tmp_path / "run").glob("checkpoint-*/trainer_state.json"):
        path.write_text(path.read_text()[:100])
    with pytest.raises(UserError, match="no checkpoint to resume from"):
        run(RunConfig.load(write_config(tmp_path, pets)), resume=True)


def test_nothing_to_score(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to score"):
        run(RunConfig.load(write_config(tmp_path, pets)), eval_only=True)


def test_resume_without_a_run(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no run to resume\. Start it without --resume"):
        run(RunConfig.load(write_config(tmp_path, pets)), resume=True)


@pytest.mark.parametrize(
    ("given", "stays"),
    [
        ({"dataloader_num_workers": 0}, False),
        ({"dataloader_num_workers": 3}, True),
        ({"dataloader_num_workers": 3, "dataloader_persistent_workers": False}, False),
    ],
)
def test_workers_stay_from_epoch_to_epoch_where_there_are_any(tmp_path: Path, given: dict, stays: bool) -> None:
    config = RunConfig(name="a", output_dir=tmp_path, data=DataConfig(name="synthetic_pet"), train=given)
    args = training_arguments(config)
    assert args.dataloader_num_workers == given["dataloader_num_workers"]
    assert args.dataloader_persistent_workers == stays


@pytest.mark.parametrize(("processes", "expected"), [("1", range(2, 9)), ("1000", [2])])
def test_workers_are_shared_between_processes(
    monkeypatch: pytest.MonkeyPatch, processes: str, expected: list[int]
) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert default_workers() in expected


def test_weights_of_other_classes_are_not_scored(finished: tuple[Path, object], tmp_path: Path, pets: Path) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "copy"))
    path = folder / "run" / "model" / "config.json"
    config = json.loads(path.read_text())
    names = config["id2label"]
    names["0"], names["1"] = names["1"], names["0"]
    path.write_text(json.dumps(config))
    with pytest.raises(UserError, match=r"trained for the classes \['background', 'pet'"):
        run(RunConfig.load(write_config(folder, pets)), eval_only=True)


def test_a_run_without_a_step_is_no_success(tmp_path: Path, pets: Path) -> None:
    config = RunConfig.load(
        write_config(tmp_path, pets), ["train.dataloader_drop_last=true", "train.per_device_train_batch_size=64"]
    )
    with pytest.raises(UserError, match="Not one training step"):
        run(config)
    assert not (tmp_path / "run" / "metrics.json").exists()
