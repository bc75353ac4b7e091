"""Which extras there are, what tests say where one is missing, and that `make test` installs all of them."""

import re

import pytest
from packaging.requirements import Requirement

from tests import extras
from tests.conftest import REPOSITORY


def test_dev_installs_all_other_extras() -> None:
    (itself,) = (requirement for requirement in extras.requirements()["dev"] if requirement.name == "hfseg")
    assert itself.extras == set(extras.requirements()) - {"dev"}


def test_a_test_without_its_extra_skips_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"onnx": [Requirement("pytest>=8"), Requirement("onnx-of-nowhere>=1")], "old": [Requirement("pytest<1")]}
    monkeypatch.setattr(extras, "requirements", lambda: asked)
    with pytest.raises(pytest.skip.Exception, match=r"^needs onnx-of-nowhere>=1: install hfseg\[onnx\]$"):
        extras.needs("onnx")
    with pytest.raises(pytest.skip.Exception, match=r"^needs pytest<1: install hfseg\[old\]$"):
        extras.needs("old")


def test_tests_that_workflows_name_exist() -> None:
    text = (REPOSITORY / ".github" / "workflows" / "tests.yml").read_text(encoding="utf-8")
    paths = re.findall(r"\btests/\S+", text)
    assert paths
    assert [path for path in paths if not (REPOSITORY / path).exists()] == []
