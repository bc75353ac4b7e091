"""What `hfseg train` and `evaluate` print, into a pipe and on a terminal, in a subprocess."""

import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.builders import RUN_SETTINGS, environment

SETTINGS = RUN_SETTINGS | {"data": {"name": "synthetic_pet", "synthetic": {"num_trainval": 24, "num_test": 6,
                                                                          "size": 64}}}  # fmt: skip


def shell_environment(**more: str) -> dict[str, str]:
    """A user's own, in which nothing keeps bars away."""
    kept = {key: value for key, value in environment().items() if "TQDM" not in key and "PROGRESS" not in key}
    kept.pop("COLUMNS", None)
    return kept | {"TERM": "xterm-256color"} | more


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], int]:
    """The folder, the lines that the training has printed, and the number of those before torch was imported."""
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SETTINGS))
    words = [sys.executable, "-X", "importtime", "-m", "hfseg", "train", "tiny.yaml"]
    result = subprocess.run(
        words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=shell_environment()
    )
    assert result.returncode == 0, result.stdout
    assert "\x1b" not in result.stdout
    assert "\r" not in result.stdout
    lines = result.stdout.splitlines()
    imports = [number for number, line in enumerate(lines) if line.startswith("import time:")]
    torch = next(number for number in imports if re.search(r"\| +torch", lines[number]))
    printed = [number for number in range(len(lines)) if number not in set(imports)]
    return folder, [lines[number] for number in printed], sum(number < torch for number in printed)


def test_a_pipe_gets_plain_lines(trained: tuple[Path, list[str], int]) -> None:
    _, lines, _ = trained
    assert lines[0] == "tiny: trains segformer b0 from scratch for 4 steps on synthetic_pet, into runs/tiny"
    text = "\n".join(lines)
    for stock in ("{'", "it/s]", "Writing", "Generating", "Map", "Loading weights"):
        assert stock not in text
    assert re.search(r"^20 train, 4 validation, 6 test images; 3 classes; on ", text, re.MULTILINE)
    assert [line.split()[2] for line in lines if line.startswith("training ")] == ["2", "4"]
    assert [line.split()[2] for line in lines if line.startswith("evaluation ")] == ["2", "4"]
    assert re.search(
        "^On 6 test images mean IoU is |: its mean IoU on test is ", text, re.MULTILINE
    )  # or it is of no use
    assert "report  runs/tiny/report.html" in lines
    assert "card    runs/tiny/README.md" in lines
    assert "model   runs/tiny/model" in lines
    assert lines[-2:] == [
        "  hfseg predict IMAGES --model runs/tiny --output predictions",
        "  hfseg push runs/tiny hub.repo=me/NAME",
    ]


def test_the_first_line_is_there_before_torch(trained: tuple[Path, list[str], int]) -> None:
    assert trained[2] >= 1


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has pseudo-terminals")
def test_a_terminal_without_colours(trained: tuple[Path, list[str], int]) -> None:
    import fcntl
    import termios

    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 80, 0, 0))
    words = [sys.executable, "-m", "hfseg", "evaluate", "runs/tiny"]
    env = shell_environment(NO_COLOR="1")
    with subprocess.Popen(words, cwd=trained[0], stdin=slave, stdout=slave, stderr=slave, env=env) as process:
        os.close(slave)
        parts = []
        try:
            while part := os.read(master, 4096):
                parts.append(part)
        except OSError:  # how Linux says that nobody can write to it any more
            pass
    os.close(master)
    text = b"".join(parts).decode()
    assert process.returncode == 0, text
    assert not re.search(r"\x1b\[[\d;]*(3|4|9|10)\dm", text)  # colours; bold and dim are none
    lines = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", text).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80
    assert "6/6 images" in text
    assert "tiny: scores segformer b0 from runs/tiny/model on synthetic_pet, into runs/tiny" in " ".join(lines)
    assert any(line.startswith("scored 6 images of test in ") for line in lines)
