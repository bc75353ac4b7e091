"""What the README shows works as it stands."""

import re
import shutil
from pathlib import Path

import pytest

from hfseg import RunConfig
from hfseg.study import renew_readme
from tests.conftest import REPOSITORY

TEXT = (REPOSITORY / "README.md").read_text()


def test_the_python_on_the_first_screen_runs(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    shorter = code.replace("max_steps=400", "max_steps=1").replace(
        'DataConfig(name="synthetic_pet")',
        'DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 6, "size": 64})',
    )
    assert shorter.count("max_steps=1,") == shorter.count('"num_test": 6') == 1
    exec(shorter, {})


def test_commands_name_files_that_exist() -> None:
    for path in re.findall(r"(?:configs|scripts)/[\w/.]+\.(?:yaml|py)", TEXT):
        assert (REPOSITORY / path).is_file(), path
    for overrides in re.findall(r"--config (\S+)((?: [\w.]+=\S+)*)", TEXT):
        RunConfig.load(REPOSITORY / overrides[0], overrides[1].split())


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (REPOSITORY / target).exists(), target


def test_the_results_are_those_of_the_committed_files(tmp_path: Path) -> None:
    shutil.copy(REPOSITORY / "README.md", tmp_path)
    renew_readme(tmp_path / "README.md", REPOSITORY / "model_cards")
    assert (tmp_path / "README.md").read_text() == TEXT, "run `python scripts/collect_cards.py --renew`"
