"""Words of the command line: help with examples that work, and mistakes that are said at once."""

import re
import shlex
import subprocess
import sys

import pytest

from hfseg.command import main, parse
from tests.builders import environment
from tests.conftest import REPOSITORY

COMMANDS = ("train", "check", "evaluate", "study", "predict", "export", "push", "compare", "configs")
HEAVY = ("torch", "transformers", "datasets", "matplotlib")


def help_of(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        parse([*words, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def run_command(*words: str) -> subprocess.CompletedProcess[str]:
    """`python -m hfseg`, with the modules that it imports on standard error."""
    command = [sys.executable, "-X", "importtime", "-m", "hfseg", *words]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, env=environment())


def imported(result: subprocess.CompletedProcess[str]) -> set[str]:
    found = re.findall(r"^import time:.*\| +([\w.]+)$", result.stderr, re.MULTILINE)
    return {name.partition(".")[0] for name in found}


def test_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of(capsys)
    assert all(re.search(rf"^ +{name} ", text, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_help_are_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    examples = help_of(capsys, command).partition("examples:\n")[2].splitlines()
    assert examples
    for example in examples:
        program, *words = shlex.split(example.partition(" > ")[0])
        assert program == "hfseg"
        arguments = parse(words)
        assert callable(arguments.do)
        assert not capsys.readouterr().err


def test_overrides_may_stand_behind_options() -> None:
    given = parse(["train", "quickstart", "name=a", "--resume", "train.max_steps=3"])
    assert (given.resume, given.overrides) == (True, ["name=a", "train.max_steps=3"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train"], "CONFIG"),
        (["train", "quickstart", "--quickly"], "unknown arguments: --quickly"),
        (["compare", "a", "b", "c=d"], "unknown arguments: c=d"),
        (["trian", "quickstart"], "trian"),
        (["predict", "photos", "--output", "out"], "--model"),
        (["predict", "photos", "--model", "m"], "--output"),
        (["export", "m"], "FILE.onnx"),
        (["configs", "show"], "NAME"),
    ],
)
def test_mistakes_in_words(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    assert "hfseg train my/folder" in capsys.readouterr().out


def test_help_and_version_import_nothing_heavy() -> None:
    result = run_command("train", "--help")
    assert result.returncode == 0, result.stderr
    assert "hfseg train my/folder" in result.stdout
    assert not imported(result) & {*HEAVY, "pydantic"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "quickstart", "trian.max_steps=3"], "train"),
        (["train", "quickstart", "train.max_step=3"], "max_steps"),
        (["train", "quickstar"], "quickstart"),
        (["train", "quickstart", "more"], "more"),
        (["study", "quickstart"], "hfseg train"),
        (["train", "study/toy"], "hfseg study"),
    ],
)
def test_mistakes_in_a_config_are_said_before_torch_is_imported(words: list[str], said: str) -> None:
    result = run_command(*words)
    errors = "\n".join(line for line in result.stderr.splitlines() if not line.startswith("import time:"))
    assert result.returncode == 2
    assert errors.startswith("error: ")
    assert said in errors
    assert "Traceback" not in errors
    assert not imported(result) & {*HEAVY}
