"""Configs by name, and the config that a folder of images and masks gets."""

from pathlib import Path

import huggingface_hub
import pytest
import yaml
from PIL import Image

from hfseg import RunConfig, UserError
from hfseg.command import main
from hfseg.command.configs import find, load
from hfseg.command.shipped import shipped
from tests.builders import make_folder
from tests.conftest import REPOSITORY
from tests.hub.server import HubServer

FAST = ["transforms.size=32", "eval.size=32", "train.max_steps=1", "train.use_cpu=true"]


def test_the_list_has_every_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    files = sorted((REPOSITORY / "configs").rglob("*.yaml"))
    assert len(lines) == len(files)
    for line in lines:
        name, _, about = line.partition("  ")
        assert (REPOSITORY / "configs" / f"{name}.yaml") in files
        assert len(about.strip()) > 20


def test_show_prints_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", "show", "pets/segformer_b0"]) == 0
    assert capsys.readouterr().out == (REPOSITORY / "configs/pets/segformer_b0.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_config_is_found_and_valid(name: str) -> None:
    path = REPOSITORY / "configs" / f"{name}.yaml"
    assert find(name) == find(f"configs/{name}.yaml").resolve() == path
    if not name.startswith("accelerate/"):  # for `accelerate launch`
        assert isinstance(load(name, []), RunConfig)


def test_a_file_here_comes_before_one_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("quickstart") == shipped()["quickstart"]
    (tmp_path / "quickstart").write_text("name: mine\ndata: {name: synthetic_pet}\n", encoding="utf-8")
    assert load("quickstart", []).name == "mine"


def test_a_run_is_its_config(finished_run: Path) -> None:
    assert find(str(finished_run)) == finished_run / "run_config.yaml"


@pytest.mark.parametrize("name", ["pets/segformer_b1", "quickstrat", "no/such", "a\0b", "x" * 5000, ""])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UserError, match="hfseg configs") as error:
        find(name)
    nearest = {"pets/segformer_b1": "pets/segformer_b0", "quickstrat": "quickstart"}.get(name, "")
    assert nearest in str(error.value)
    assert len(str(error.value)) < 1000


def folder_tree(config: RunConfig) -> dict[str, object]:
    return {"root": config.data.root, "suffix": config.data.mask_suffix, "classes": config.data.classes}


def test_a_folder_with_a_class_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "my birds")
    config = load("my birds", ["model.init=null"])
    assert (config.name, config.output_dir) == ("my-birds", Path("runs/my-birds"))
    assert folder_tree(config) == {"root": Path("my birds"), "suffix": "", "classes": None}
    assert config.model.init is None
    said = capsys.readouterr().out
    assert "runs/my-birds/run_config.yaml" in said
    assert "folder/segformer_b0_cpu" in said
    assert "weights" not in said


def test_a_folder_without_a_class_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Masks of 0 and 255 in names with a suffix, as most annotation tools write them."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        for folder, end, mode in (("images", "", "RGB"), ("masks", "_mask", "L")):
            path = tmp_path / "mine" / folder / f"{number}{end}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new(mode, (40, 30))
            image.paste(255 if mode == "L" else (9, 9, 9), (5, 5, 20, 20))
            image.save(path)
    config = load("mine", ["model.init=null"])
    classes = tmp_path / "runs" / "mine" / "classes.txt"
    assert folder_tree(config) == {"root": Path("mine"), "suffix": "_mask", "classes": classes}
    lines = classes.read_text(encoding="utf-8").splitlines()
    assert lines[1:] == ["0 0 0 background", "255 255 255 object"]
    assert str(classes) in capsys.readouterr().out.replace("runs/mine", str(classes.parent))
    classes.write_text("0 0 0 table\n255 255 255 cup\n", encoding="utf-8")  # named by the user: it stays
    load("mine", ["model.init=null"])
    assert "cup" in classes.read_text(encoding="utf-8")


def test_weights_that_cannot_be_had_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hub: HubServer
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))  # empty
    make_folder(tmp_path / "mine")
    config = load("mine", [])
    assert config.model.init is None
    assert config.train["learning_rate"] == 1e-3
    assert "from scratch, as nvidia/segformer-b0-finetuned-ade-512-512 could not be had" in capsys.readouterr().out
    assert hub.requests("nvidia/segformer-b0")


def test_weights_that_the_hub_has_are_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hub: HubServer,
    finished_run: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "mine")
    hub.publish("nvidia/segformer-b0-finetuned-ade-512-512", finished_run / "model")
    config = load("mine", [])
    assert config.model.init == "nvidia/segformer-b0-finetuned-ade-512-512"
    assert "weights: nvidia/segformer-b0-finetuned-ade-512-512 from the Hub" in capsys.readouterr().out


def test_a_training_of_a_folder_and_its_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "mine", counts={"train": 4, "val": 2})
    assert main(["train", "mine", "model.init=null", *FAST, "train.eval_steps=1", "train.save_steps=1"]) == 0
    saved = yaml.safe_load((tmp_path / "runs/mine/run_config.yaml").read_text(encoding="utf-8"))
    assert saved["data"]["name"] == "folder"
    assert (tmp_path / "runs/mine/report.html").is_file()
    resumed = load("mine", ["train.dataloader_num_workers=0"], resume=True)
    assert resumed.train["max_steps"] == 1


def test_a_folder_that_holds_no_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["check", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "error: " in said
    assert "images/" in said
