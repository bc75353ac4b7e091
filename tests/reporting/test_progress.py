"""What a training shows, on terminals of several widths and in a file."""

import io
import math
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from hfseg import LabelSet, SegTrainer
from hfseg.reporting import showing_progress
from hfseg.reporting.evaluation_table import EvaluationTable
from tests.builders import make_trainer

needs_terminals = pytest.mark.skipif(os.name != "posix", reason="only POSIX has pseudo-terminals")
EVALUATED = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "disable_tqdm": False}


class Screen:
    """The lines of a terminal that is high enough, with the control sequences that rich sends."""

    def __init__(self, text: str) -> None:
        self.lines: list[str] = [""]
        self.row = self.widest = 0
        for part in re.split(r"(\x1b\[[?\d;]*[A-Za-z]|[\r\n])", text):
            self._take(part)

    def _take(self, part: str) -> None:
        if part == "\n":
            self.row += 1
            self.lines += [""] * (self.row == len(self.lines))
        elif part.endswith("A") and part.startswith("\x1b["):
            self.row -= int(part[2:-1])
            assert self.row >= 0
        elif part == "\x1b[2K":
            self.lines[self.row] = ""
        elif part and part[0] not in "\r\x1b":
            self.lines[self.row] += part
            self.widest = max(self.widest, cell_len(self.lines[self.row]))


@contextmanager
def terminal(width: int, seen: list[str]) -> Iterator[Console]:
    """A console on a pseudo-terminal; `seen` gets what was written to it."""
    master, slave = os.openpty()

    def read() -> None:
        parts = []
        try:
            while part := os.read(master, 4096):
                parts.append(part)
        except OSError:  # how Linux says that nobody can write to it any more
            pass
        seen.append(b"".join(parts).decode())

    reader = Thread(target=read)
    reader.start()
    try:
        with open(slave, "w", encoding="utf-8") as file:
            yield Console(file=file, width=width)
    finally:
        reader.join()
        os.close(master)


class Interruption(TrainerCallback):
    """Ctrl-C after the third step."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt


def evaluations(trainer: SegTrainer) -> list[dict[str, Any]]:
    return [line for line in trainer.state.log_history if "eval_mean_iou" in line]


def test_a_file_gets_plain_lines(tmp_path: Path, labels: LabelSet) -> None:
    file = io.StringIO()
    trainer = make_trainer(tmp_path, labels, **EVALUATED, logging_steps=1)
    with showing_progress(trainer, Console(file=file, width=40)):
        trainer.train()
        during = evaluations(trainer)
        trainer.evaluate()
    text = file.getvalue()
    lines = text.splitlines()
    assert lines[0] == "trains for 4 steps of 4 images"
    assert not re.search(r"[^\n -~]", text)  # nothing but printable characters
    logs = [line for line in trainer.state.log_history if "loss" in line]
    for found, log in zip([line for line in lines if line.startswith("training ")], logs, strict=True):
        assert found.startswith(f"training    step      {log['step']}  epoch ")
        assert f"  loss {log['loss']:.4f}  training mIoU {log['train_mean_iou']:.4f}  images/s " in found
        assert (re.search(r"images/s +[\d.]+  ", found) is None) == (log["step"] == 1)  # the first one does not count
    assert [line for line in lines if line.startswith("training ")][-1].endswith("left 0:00:00")
    shown = [line for line in lines if line.startswith("evaluation")]
    assert [re.findall(r"^evaluation  step +(\d)  epoch", line) for line in shown] == [["2"], ["4"]]
    for found, line in zip(shown, during, strict=True):
        assert f"validation loss {line['eval_loss']:.4f}  mIoU {line['eval_mean_iou']:.4f}  " in found
    change = during[1]["eval_mean_iou"] - during[0]["eval_mean_iou"]
    assert f"change {change:+.4f}" in shown[1]
    assert re.fullmatch(r"scored 7 images of validation in \d+\.\d s", lines[-1])


def test_columns_stand_below_each_other_in_a_file(tmp_path: Path) -> None:
    file = io.StringIO()
    table = EvaluationTable(TrainingArguments(str(tmp_path)), Console(file=file), has_columns=False)
    for step, score in ((100, 0.5), (200, None), (300, 0.25)):
        table.add({"step": step, "epoch": step / 40, "eval_runtime": 3.0, "eval_mean_iou": score, "eval_loss": 1.0})
    first, second, third = file.getvalue().splitlines()
    assert [line.index("mIoU") for line in (second, third)] == [first.index("mIoU")] * 2
    assert [line.index("seconds") for line in (first, second, third)].count(third.index("seconds")) >= 1
    assert "-" in second
    assert "change -0.2500" in third  # to the last one that has a score


def test_stock_shows_as_ever_outside_of_a_run(tmp_path: Path, labels: LabelSet) -> None:
    for is_disabled, stock in ((False, ProgressCallback), (True, PrinterCallback)):
        trainer = make_trainer(tmp_path, labels, disable_tqdm=is_disabled)
        assert any(isinstance(each, stock) for each in trainer.callback_handler.callbacks)
        with showing_progress(trainer, Console(file=io.StringIO())):
            assert not any(isinstance(each, stock) for each in trainer.callback_handler.callbacks)


@needs_terminals
@pytest.mark.parametrize("width", [140, 80, 40, 20])
def test_a_terminal_shows_bars_and_a_table(width: int, tmp_path: Path, labels: LabelSet) -> None:
    seen: list[str] = []
    trainer = make_trainer(tmp_path, labels, **EVALUATED)
    with terminal(width, seen) as console, showing_progress(trainer, console):
        trainer.train()
        sys.stdout.write("from elsewhere\n")
        during = evaluations(trainer)
        trainer.evaluate()
    screen = Screen(seen[0])
    assert screen.widest <= width
    assert "4/4 steps" in seen[0]
    assert "7/7 images" in seen[0]
    lines = [line.rstrip() for line in screen.lines if line.strip()]
    assert not any("steps" in line and "training" in line for line in lines)  # the bars are gone
    assert "from elsewhere" in lines
    head = next(line for line in lines if line.lstrip().startswith("step"))
    wanted = {140: "seconds", 80: "seconds", 40: "change", 20: "mIoU"}
    assert head.endswith(wanted[width])
    assert ("training loss" in head) == (width >= 80)
    rows = [line.split() for line in lines[lines.index(head) + 1 :]][:2]
    assert [row[0] for row in rows] == ["2", "4"]
    column = head.replace("training loss", "training").replace("validation loss", "validation").split().index("mIoU")
    assert [row[column] for row in rows] == [f"{line['eval_mean_iou']:.4f}" for line in during]
    assert " ".join(lines).count("best") == (sum(row[-1] == "best" for row in rows) if width > 20 else 0)


@needs_terminals
def test_a_terminal_is_whole_after_an_error(tmp_path: Path, labels: LabelSet) -> None:
    seen: list[str] = []
    trainer = make_trainer(tmp_path, labels, callbacks=[Interruption()], **EVALUATED)

    def train() -> None:
        with terminal(80, seen) as console, showing_progress(trainer, console):
            trainer.train()

    with pytest.raises(KeyboardInterrupt):
        train()
    assert seen[0].rfind("\x1b[?25h") > seen[0].rfind("\x1b[?25l") >= 0  # the cursor is shown again
    assert not any("steps" in line and "training" in line for line in Screen(seen[0]).lines)


@needs_terminals
def test_disable_tqdm_prints_lines_on_a_terminal(tmp_path: Path, labels: LabelSet) -> None:
    seen: list[str] = []
    trainer = make_trainer(tmp_path, labels, **EVALUATED | {"disable_tqdm": True})
    with terminal(140, seen) as console, showing_progress(trainer, console):
        trainer.train()
    assert "training    step      4  epoch" in seen[0]
    assert not re.search(r"\x1b\[[?\d;]*[A-Zhl]", seen[0])  # colours at most


def test_the_table_goes_on_after_a_resume(tmp_path: Path, labels: LabelSet) -> None:
    make_trainer(tmp_path, labels, **EVALUATED, max_steps=4).train()
    file = io.StringIO()
    trainer = make_trainer(tmp_path, labels, **EVALUATED, max_steps=4)
    with showing_progress(trainer, Console(file=file)):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    first, going_on, *rest = file.getvalue().splitlines()
    assert first.startswith("evaluation  step      2 ")
    assert going_on == "goes on from step 2 of 4 steps of 4 images"
    change = evaluations(trainer)[1]["eval_mean_iou"] - evaluations(trainer)[0]["eval_mean_iou"]
    assert f"change {change:+.4f}" in rest[-1]


@pytest.mark.parametrize(
    ("metric", "scores", "best"),
    [
        ("mean_iou", [None, 0.5, 0.4, math.nan, 0.6], [False, True, False, False, True]),
        ("eval_loss", [0.5, 0.6, 0.4], [True, False, True]),
        (None, [0.5, 0.4, 0.6], [True, False, True]),
    ],
)
def test_the_best_is_marked(metric: str | None, scores: list[float], best: list[bool], tmp_path: Path) -> None:
    file = io.StringIO()
    args = TrainingArguments(str(tmp_path), metric_for_best_model=metric)
    table = EvaluationTable(args, Console(file=file), has_columns=True)
    key = f"eval_{(metric or 'mean_iou').removeprefix('eval_')}"
    for step, score in enumerate(scores, 1):
        table.add({"step": step, "eval_runtime": 1.0, key: score})
    assert [line.endswith("best") for line in file.getvalue().splitlines()[1:]] == best
