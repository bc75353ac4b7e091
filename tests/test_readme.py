"""What the README and docs/ show works as it stands."""

import re
import shutil
from pathlib import Path

import pytest
import yaml

import hfseg
from hfseg import RunConfig
from hfseg.study import renew_readme
from scripts.config_reference import config_reference
from tests.conftest import REPOSITORY

README = REPOSITORY / "README.md"
PAGES = [README, *sorted((REPOSITORY / "docs").glob("*.md"))]
REPO_URL = re.findall(r"^repo_url: (\S+)", (REPOSITORY / "mkdocs.yml").read_text(), re.MULTILINE)[0]

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub and MkDocs give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_python_on_the_first_screens_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    shorter = code.replace("max_steps=400", "max_steps=1").replace(
        'DataConfig(name="synthetic_pet")',
        'DataConfig(name="synthetic_pet", synthetic={"num_trainval": 24, "num_test": 6, "size": 64})',
    )
    assert shorter.count("max_steps=1,") == shorter.count('"num_test": 6') == 1
    exec(shorter, {})


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 130


@each_page
def test_commands_name_files_that_exist(page: Path) -> None:
    text = page.read_text()
    for path in re.findall(r"(?:configs|scripts)/[\w/.]+\.(?:yaml|py)", text):
        assert (REPOSITORY / path).is_file(), path
    for config, overrides in re.findall(r"--config (configs/\S+\.yaml)((?: [\w.]+=\S+)*)", text):
        if "accelerate" not in config:
            RunConfig.load(REPOSITORY / config, overrides.split())


@each_page
def test_configs_are_valid(page: Path) -> None:
    for block in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
        shown = yaml.safe_load(block)
        RunConfig.from_tree({"name": "shown", "data": {"name": "synthetic_pet"}} | shown, str(page))


@each_page
def test_python_names_exist(page: Path) -> None:
    for name in re.findall(r"\bhfseg\.(\w+)\(", page.read_text()):
        assert name in hfseg.__all__, name


@each_page
def test_links_and_pictures_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        local = re.sub(rf"^{re.escape(REPO_URL)}/(?:blob|tree)/main/", f"{REPOSITORY}/", target)
        path, _, anchor = local.partition("#")
        if "://" in path:
            continue
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def test_the_results_are_those_of_the_committed_files(tmp_path: Path) -> None:
    shutil.copy(README, tmp_path)
    renew_readme(tmp_path / "README.md", REPOSITORY / "model_cards")
    assert (tmp_path / "README.md").read_text() == README.read_text(), "run `python scripts/collect_cards.py --renew`"


def test_the_reference_is_that_of_the_schema() -> None:
    written = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    assert written == config_reference(), "run `python scripts/config_reference.py`"


def test_contributing_names_files_that_exist() -> None:
    for path in re.findall(r"`(hfseg/[\w/]+\.py)`", (REPOSITORY / "CONTRIBUTING.md").read_text()):
        assert "NAME" in path or (REPOSITORY / path).is_file(), path
