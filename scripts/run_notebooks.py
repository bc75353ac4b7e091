"""Runs the notebooks in docs/notebooks, each in an empty folder, and stores what their cells show, without the logs.

python scripts/run_notebooks.py
"""

import base64
import io
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

NOTEBOOKS = Path(__file__).parent.parent / "docs" / "notebooks"
PROGRESS = "<IPython.core.display.HTML object>"  # what a Trainer's bar and table are as text


def run_notebook(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook with the outputs of its cells, run in a folder; an error in a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=resources).execute()
    return without_logs(notebook)


def without_logs(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without printed text and times, and with figures that take less space."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if is_shown(output)]
            for output in cell.outputs:
                if "image/png" in output.data:
                    output.data |= smaller(output.data.pop("image/png"))
    return notebook


def is_shown(output: nbformat.NotebookNode) -> bool:
    """Whether it is a value, a figure or a table, rather than printed text or progress."""
    return output.output_type in ("execute_result", "display_data") and output.data.get("text/plain") != PROGRESS


def smaller(png: str) -> dict[str, str]:
    """A picture in base64 as JPEG, or as it is where that takes less space."""
    file = io.BytesIO()
    Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").save(file, format="JPEG", quality=75)
    jpeg = base64.b64encode(file.getvalue()).decode()
    return {"image/png": png} if len(png) < len(jpeg) else {"image/jpeg": jpeg}


def main() -> None:
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            nbformat.write(run_notebook(path, Path(folder)), path)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
