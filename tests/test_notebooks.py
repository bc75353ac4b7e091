"""The notebooks of docs/ are as they were run, and run again."""

import re
from pathlib import Path

import nbformat
import pytest

import hfseg
from scripts.run_notebooks import NOTEBOOKS, run_notebook

PATHS = sorted(NOTEBOOKS.glob("*.ipynb"))
MAX_BYTES = 300_000

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def num_figures(notebook: nbformat.NotebookNode) -> int:
    return sum(bool({"image/png", "image/jpeg"} & output.data.keys()) for output in outputs(notebook))


def test_there_are_two() -> None:
    assert [path.stem for path in PATHS] == ["compare_two_models", "own_masks"]


@each_notebook
def test_what_is_stored_is_small_whole_and_says_nothing_of_a_machine(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < MAX_BYTES
    assert num_figures(notebook) >= 4
    assert {output.output_type for output in outputs(notebook)} <= {"execute_result", "display_data"}
    shown = [str(output.data.get(kind, "")) for output in outputs(notebook) for kind in ("text/plain", "text/html")]
    assert not re.search(r"/(home|root|tmp|work|usr)/", "".join(shown))
    assert not re.search(r"Traceback|Warning", "".join(shown))


@each_notebook
def test_names_and_links_exist(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    for name in re.findall(r"\bhfseg\.(\w+)\(", text):
        assert name in hfseg.__all__, name
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (path.parent / target).exists(), target


@pytest.mark.slow
@each_notebook
def test_it_runs(path: Path, tmp_path: Path) -> None:
    again = run_notebook(path, tmp_path)
    assert num_figures(again) == num_figures(nbformat.read(path, as_version=4))
