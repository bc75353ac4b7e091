"""The arrows of the design: which module may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Each layer may import the ones before it, not its neighbours and not the ones after it.
LAYERS = (
    {"errors", "terminal"},
    {"machine", "text_files", "whole_files"},
    {"train_keys", "yaml_text", "folder_lock"},
    {"ignored_settings", "study_config", "text_keys"},
    {"config_file", "scores"},
    {"labels", "config", "caveats", "class_ids", "confusion"},
    {"intervals", "audit", "boundary", "calibration", "card", "figures", "id_maps", "view"},
    {"model_card"},
    {"run_files"},
    {"hub"},
    {"models", "data", "metrics", "page"},
    {
        "arguments",
        "callbacks",
        "checkpoints",
        "console",
        "counts",
        "ema",
        "evaluate_module",
        "optimizer",
        "prediction_files",
        "publish",
        "publishing_trainer",
    },
    {"auto", "predict", "preflight", "provenance", "run_folder", "trainer", "doctor_figures"},
    {"examples", "predictor", "scoring"},
    {"results"},
    {"report", "run_figures"},
    {"run_pages"},
    {"run", "doctor", "pipeline", "export", "predictions"},
    {"study"},
)


def imported_parts(path: Path) -> set[str]:
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("hfseg.")}


@pytest.mark.parametrize("path", sorted((REPOSITORY / "hfseg").glob("**/*.py")), ids=lambda path: path.stem)
def test_imports_point_one_way(path: Path) -> None:
    part = path.relative_to(REPOSITORY / "hfseg").parts[0].removesuffix(".py")
    if part == "__init__":
        return
    level = next(index for index, layer in enumerate(LAYERS) if part in layer)
    allowed = {part}.union(*LAYERS[:level])
    assert imported_parts(path) <= allowed


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "scripts/run_seg.py", "--help"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--config" in result.stdout
    assert "torch" not in result.stderr
    assert "transformers" not in result.stderr
