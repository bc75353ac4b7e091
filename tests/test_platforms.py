"""Nothing needs one operating system: neither when it is imported nor in a training."""

import ast
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.builders import SETTINGS
from tests.conftest import REPOSITORY

SOURCES = [
    *sorted((REPOSITORY / "hfseg").glob("**/*.py")),
    *(REPOSITORY / "scripts" / name for name in ("run_seg.py", "export.py")),
]
MODULES = {"ctypes", "fcntl", "grp", "msvcrt", "posix", "pty", "pwd", "resource", "termios", "tty", "winreg"}
NAMES = {
    "O_NOFOLLOW", "SIGALRM", "SIGKILL", "chown", "fork", "geteuid", "getuid", "killpg", "mkfifo", "preexec_fn",
    "pass_fds", "sched_getaffinity", "setsid", "start_new_session", "symlink_to", "uname",
}  # fmt: skip
TEXT_MODES = {"r", "w", "a", "x", "r+", "rt", "wt"}
# Read where it is there, with an answer where it is not.
LINUX_PATHS = {("workers.py", "/dev/shm"), ("provenance.py", "/proc/self/status")}


def problems_of(node: ast.AST, source: str, name: str) -> Iterator[str]:
    """What of a node some operating system does not have, or does otherwise."""
    if isinstance(node, ast.Import):
        yield from MODULES & {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module in MODULES:
        yield node.module
    bound = node.attr if isinstance(node, ast.Attribute) else node.arg if isinstance(node, ast.keyword) else None
    if bound in NAMES and f'hasattr(os, "{bound}")' not in source:
        yield bound
    text = node.value if isinstance(node, ast.Constant) else None
    if isinstance(text, str) and text.startswith(("/proc", "/dev/")) and (name, text) not in LINUX_PATHS:
        yield text
    if isinstance(node, ast.Call):
        yield from problems_of_call(node)


def problems_of_call(node: ast.Call) -> Iterator[str]:
    is_method = isinstance(node.func, ast.Attribute)
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    modes = node.args[:1] if is_method else node.args[1:2]
    mode = modes[0].value if modes and isinstance(modes[0], ast.Constant) else None
    is_open = called == "open" and (mode in TEXT_MODES or len(node.args) + len(node.keywords) == (not is_method))
    is_text = is_open or (is_method and called in ("read_text", "write_text"))  # `write_text(path, text)` is ours
    if is_text and "encoding" not in {key.arg for key in node.keywords}:
        yield f"{called} without an encoding"
    if called == "rename":
        yield "rename, which Windows refuses over an existing file: os.replace"
    if called == "str" and node.args and ".relative_to(" in ast.unparse(node.args[0]):
        yield "a relative path with the system's own slashes: as_posix"


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_the_source_is_bound_to_no_system(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    nodes = ast.walk(ast.parse(source))
    found = [
        f"line {getattr(node, 'lineno', 0)}: {problem}"
        for node in nodes
        for problem in problems_of(node, source, path.name)
    ]
    assert not found


def test_the_walk_finds_what_it_looks_for() -> None:
    source = """
import fcntl
from ctypes import CDLL
os.fork(), signal.SIGKILL, run(preexec_fn=f), Path("/proc/cpuinfo")
open(name), open(name, "w"), path.open(), path.open("a"), path.read_text(), path.rename(other)
str(path.relative_to(root))
open(name, "rb"), path.open("wb"), path.read_text(encoding="utf-8"), Image.open(file), write_text(path, text)
"""
    found = [problem for node in ast.walk(ast.parse(source)) for problem in problems_of(node, source, "x.py")]
    assert len(found) == 13


# The command line on a system without these, for a terminal without UTF-8; packages built for Linux come first.
BARE = """
import os, sys
import accelerate, datasets, psutil, transformers.masking_utils, transformers.modeling_utils  # they ask for it
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
for name in ("fork", "sched_getaffinity", "O_NOFOLLOW"):
    if hasattr(os, name):
        delattr(os, name)
sys.argv = ["run_seg.py", *sys.argv[1:]]
import runpy
os.umask(0o077)
runpy.run_path("scripts/run_seg.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def bare_run(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bare")
    tree = SETTINGS | {"data": {"name": "oxford_pet", "root": str(pets)}, "output_dir": str(folder / "run")}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    changes = {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "ascii", "HF_DATASETS_CACHE": str(folder / "cache")}
    result = subprocess.run(
        [sys.executable, "-c", BARE, "--config", str(folder / "tiny.yaml")],
        cwd=REPOSITORY, env=os.environ | changes, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    return folder


def test_a_training_where_names_are_absent(bare_run: Path) -> None:
    metrics = json.loads((bare_run / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert 0 < metrics["test_mean_iou"] < 1
    assert (bare_run / "run" / "report.html").is_file()


@pytest.mark.skipif(os.name != "posix", reason="Windows has no umask")
def test_all_files_of_a_run_follow_the_umask(bare_run: Path) -> None:
    for folder in ("run", "cache"):
        paths = [path for path in (bare_run / folder).rglob("*") if path.suffix != ".lock" or folder == "run"]
        modes = {(stat.S_IMODE(path.stat().st_mode), path.is_dir()) for path in paths}
        assert modes == {(0o700, True), (0o600, False)}
    assert not list(bare_run.rglob("*.partial"))
