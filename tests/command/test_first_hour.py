"""A new user's first hour: the wheel in a clean environment, away from the repository, with 30 images of their own."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders import environment
from tests.conftest import REPOSITORY
from tests.hub.server import HubServer

NUM_IMAGES = 30
QUICK = [
    "model.init=null", "transforms.size=64", "eval.size=64", "train.max_steps=4", "train.warmup_steps=0",
    "train.learning_rate=1e-3", "train.eval_steps=2", "train.save_steps=2", "train.logging_steps=1",
    "train.per_device_train_batch_size=4", "train.use_cpu=true",
]  # fmt: skip
STOCK = """
import sys
from transformers import pipeline
found = pipeline("image-segmentation", model="tester/cups")(sys.argv[1])
print(sorted(part["label"] for part in found), "hfseg" in sys.modules)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of a copy, as building leaves files in its source."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("hfseg", "configs"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, folder)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(build, cwd=folder, check=True)
    (path,) = (folder / "dist").iterdir()
    return path


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel, and what it needs from the one of the tests."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    venv.create(folder, symlinks=os.name == "posix")
    paths = {key: Path(sysconfig.get_path(key, "venv", {"base": str(folder)})) for key in ("scripts", "purelib")}
    python = paths["scripts"] / Path(sys.executable).name
    install = ["--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    # hfseg itself is not found there: what makes an editable install is a .pth file, which is not read a second time
    (paths["purelib"] / "needed.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    return paths["scripts"]


def draw_cups(folder: Path) -> None:
    """Bright discs on dark noise; masks of 0 and 255 whose names end in `_mask`, and no class names."""
    rows, columns = np.mgrid[:72, :96]
    for number in range(NUM_IMAGES):
        rng = np.random.default_rng(number)
        disc = (rows - rng.integers(20, 52)) ** 2 + (columns - rng.integers(20, 76)) ** 2 < rng.integers(8, 20) ** 2
        pixels = rng.integers(0, 100, (72, 96, 3)) + 120 * disc[..., None]
        for name, array in ((f"images/{number:02}.jpg", pixels), (f"masks/{number:02}_mask.png", 255 * disc)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array.astype(np.uint8)).save(folder / name)


def test_the_wheel_has_all_that_is_used(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for folder, place in (("hfseg", "hfseg"), ("configs", "hfseg/configs")):
        source = [path for path in (REPOSITORY / folder).rglob("*") if path.is_file() and path.suffix != ".pyc"]
        assert {f"{place}/{path.relative_to(REPOSITORY / folder).as_posix()}" for path in source} <= names
    assert not [name for name in names if not name.startswith(("hfseg/", "hfseg-"))]


@pytest.mark.parametrize("hub", ["lfs"], indirect=True)
def test_the_first_hour(scripts: Path, tmp_path: Path, hub: HubServer) -> None:
    draw_cups(tmp_path / "photos" / "cups")

    def call(*words: str) -> str:
        clean = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
        command = [str(scripts / words[0]), *words[1:]]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=clean)
        assert result.returncode == 0, (words, result.stdout, result.stderr)
        assert "Traceback" not in result.stderr
        return result.stdout

    where = call("python", "-c", "import hfseg; print(hfseg.__file__)")
    assert Path(where.strip()).is_relative_to(scripts.parent)
    assert "pets/segformer_b0 " in call("hfseg", "configs")

    call("hfseg", "check", "photos/cups")
    assert (tmp_path / "runs" / "cups" / "classes.txt").is_file()
    call("hfseg", "train", "photos/cups", *QUICK)
    run_dir = tmp_path / "runs" / "cups"
    metrics = json.loads((run_dir / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["test_constant_class"] == "background"
    assert {"README.md", "report.html", "run_config.yaml", "model"} <= {path.name for path in run_dir.iterdir()}

    call("hfseg", "predict", "photos/cups/images", "--model", "runs/cups", "--output", "predictions")
    assert len(list((tmp_path / "predictions" / "masks").glob("*.png"))) == NUM_IMAGES
    call("hfseg", "push", "runs/cups", "hub.repo=tester/cups", "hub.private=false")
    found = call("python", "-c", STOCK, str(tmp_path / "photos" / "cups" / "images" / "00.jpg"))
    labels, is_imported = found.rsplit(maxsplit=1)
    assert is_imported == "False"
    assert set(json.loads(labels.replace("'", '"'))) <= {"background", "object"}
    call("hfseg", "export", "runs/cups", "cups.onnx")
    assert (tmp_path / "cups.onnx").is_file()
