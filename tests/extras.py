"""Tests that need an extra of hfseg skip where it is not installed, and say which."""

import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


@cache
def requirements() -> dict[str, list[Requirement]]:
    """What each extra of `pyproject.toml` asks for, by the extra's name."""
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return {name: [Requirement(line) for line in lines] for name, lines in extras.items()}


def is_installed(requirement: Requirement) -> bool:
    try:
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except PackageNotFoundError:
        return False


def needs(extra: str) -> None:
    """Skips the test, or the file that calls this above its imports, unless the extra is installed whole."""
    missing = [str(requirement) for requirement in requirements()[extra] if not is_installed(requirement)]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: install hfseg[{extra}]", allow_module_level=True)
