"""Where the output of a command goes is no reason for it to fail."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

# The module by its path: what comes with the package is not what is tested here.
PROGRAM = """
import importlib.util, logging, sys
spec = importlib.util.spec_from_file_location("output", sys.argv[1])
output = importlib.util.module_from_spec(spec)
spec.loader.exec_module(output)
logging.basicConfig()
with output.lossy_output():
    from pathlib import Path
    from rich.console import Console
    from tqdm import tqdm
    for _ in range(3):
        print("\\u9053\\u8def voiture \\u00e9" * 10_000)
        Console().print("[bold]\\u9053\\u8def")
        print("x" * 100_000, file=sys.stderr)
        logging.warning("\\u9053\\u8def")
        for _ in tqdm(range(10), desc="\\u9053\\u8def", mininterval=0):
            pass
    Path(sys.argv[2]).write_text("done", encoding="utf-8")
"""
needs_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")


def words(path: Path) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(REPOSITORY / "hfseg" / "command" / "output.py"), str(path)]


@needs_full
@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", ">&- 2>&-"])
def test_output_that_cannot_be_written(redirection: str, tmp_path: Path) -> None:
    path = tmp_path / "end"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    result = subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *words(path)], **quiet)  # type: ignore[call-overload]
    assert (result.returncode, path.read_text(encoding="utf-8")) == (0, "done")


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    path = tmp_path / "end"
    with subprocess.Popen(words(path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.wait() == 0
    assert path.read_text(encoding="utf-8") == "done"


def test_letters_that_the_terminal_lacks(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    result = subprocess.run(words(tmp_path / "end"), capture_output=True, env=environment)
    assert (result.returncode, b"Traceback" in result.stderr) == (0, False)
    assert result.stdout.startswith(b"?? voiture ?" * 2)
