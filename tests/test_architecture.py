"""The order of the packages: which part of hfseg may import which, and by which door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# Each part may import the ones before it. `files`, `config` and so on are packages; their `__init__.py` is the door.
ORDER = (
    "errors", "html", "console", "files", "labels", "config", "hub", "metrics", "data", "models", "training",
    "inference", "runs", "reporting", "publishing", "doctor", "run", "study", "command",
)  # fmt: skip
ROOT = REPOSITORY / "hfseg"
FILES = sorted(ROOT.glob("**/*.py"))


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for path in FILES}


def part_of(module: str) -> str:
    """`hfseg.data.load` -> data"""
    return module.split(".")[1]


def imported_modules(path: Path) -> list[str]:
    """The modules of hfseg that a file imports, also inside functions; `from hfseg.data import load` is both."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level:
            modules.append(str(node.module))
            modules += [name for alias in node.names if (name := f"{node.module}.{alias.name}") in MODULES]
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return [module for module in modules if module.startswith("hfseg.")]


def upward(path: Path, own: str) -> list[str]:
    """A sentence for each import that points up, of a file in the part `own`."""
    return [
        f"{path} imports {module}, but `{own}` stands before `{part_of(module)}` in ORDER"
        for module in imported_modules(path)
        if ORDER.index(part_of(module)) > ORDER.index(own)
    ]


def past_the_door(path: Path, own: str) -> list[str]:
    """A sentence for each import of a file in another package than `own`."""
    return [
        f"{path} imports {module}: take it from `hfseg.{part_of(module)}`, its package's door"
        for module in imported_modules(path)
        if part_of(module) != own and module.count(".") > 1 and not is_shown(module)
    ]


def is_shown(module: str) -> bool:
    """Whether a door lists this module itself, as a name of its own."""
    package, _, name = module.rpartition(".")
    tree = ast.parse(MODULES[package].read_text(encoding="utf-8"))
    lists = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    return any(name in ast.literal_eval(each) for each in lists)


def find_circle(graph: dict[str, set[str]]) -> list[str]:
    """Names along one circle of a graph, the first again at the end; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in done:
            for target in sorted(graph.get(name, ())):
                if circle := visit(target, [*path, name]):
                    return circle
            done.add(name)
        return []

    return next((circle for name in sorted(graph) if (circle := visit(name, []))), [])


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_import_points_up(path: Path) -> None:
    if path.parent != ROOT or path.stem not in ("__init__", "__main__"):
        wrong = upward(path, part_of(module_name(path)))
        assert not wrong, "; ".join(wrong)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_each_package_has_one_door(path: Path) -> None:
    own = "" if path == ROOT / "__init__.py" else part_of(module_name(path))
    assert not past_the_door(path, own), "; ".join(past_the_door(path, own))


@pytest.mark.parametrize("path", sorted((REPOSITORY / "scripts").glob("*.py")), ids=lambda path: path.stem)
def test_scripts_come_in_by_the_doors(path: Path) -> None:
    assert not past_the_door(path, ""), "; ".join(past_the_door(path, ""))


def test_no_circle_of_files() -> None:
    doors = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {name: set(imported_modules(path)) & MODULES.keys() for name, path in MODULES.items()}
    # A file stands behind the door of its own package, which is opened before it.
    circle = find_circle(
        {name: found - {name.rpartition(".")[0]} for name, found in graph.items() if name not in doors}
    )
    assert not circle, " -> ".join(circle)


@pytest.mark.parametrize("path", sorted((REPOSITORY / "tests").glob("**/*.py")), ids=module_name)
def test_no_test_module_imports_from_another(path: Path) -> None:
    """What several of them need is in tests/builders.py, conftest.py or tests/hub/."""
    names = [
        node.module
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
    ]
    shared = [name for name in names if name and name.startswith("tests.") and ".test_" in name]
    assert not shared, f"{path} imports from {', '.join(shared)}"


def test_at_the_top_are_the_parts_alone() -> None:
    found = {path.stem for path in ROOT.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert found == {"__init__", "__main__", *ORDER}


def test_a_wrong_import_is_said_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "scores.py"
    path.write_text("from hfseg.run import run\nfrom hfseg.data.load import load_dataset\n", encoding="utf-8")
    assert upward(path, "metrics") == [
        f"{path} imports hfseg.run, but `metrics` stands before `run` in ORDER",
        f"{path} imports hfseg.data.load, but `metrics` stands before `data` in ORDER",
    ]
    assert past_the_door(path, "metrics") == [
        f"{path} imports hfseg.data.load: take it from `hfseg.data`, its package's door"
    ]
    assert find_circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", "scripts/run_seg.py", "--help"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert "--config" in result.stdout
    assert "torch" not in result.stderr
    assert "transformers" not in result.stderr
