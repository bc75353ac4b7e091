"""A line for each evaluation of a training, as they come: columns on a terminal, named numbers elsewhere."""

import math
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from rich.console import Console
from rich.text import Text
from transformers import TrainingArguments

from hfseg.console import say
from hfseg.training import best_metric_key

# Column -> its width. They take 79 characters: a narrower terminal does without the least important ones.
WIDTHS = {"step": 8, "epoch": 7, "training loss": 15, "validation loss": 17, "mIoU": 8, "change": 9, "seconds": 9,
          "best": 6}  # fmt: skip
BY_IMPORTANCE = ("step", "mIoU", "best", "change", "validation loss", "training loss", "epoch", "seconds")
MIOU = "eval_mean_iou"


def number(value: Any, form: str) -> str:
    """A number in a format such as `.4f`; `-` where there is none."""
    is_number = isinstance(value, int | float) and math.isfinite(value)
    return format(value, form) if is_number else "-".rjust(len(format(0.0, form)))


def labelled(cells: Mapping[str, str]) -> list[str]:
    """Numbers behind their names."""
    return [f"{name} {text}" for name, text in cells.items()]


class EvaluationTable:
    """The evaluations of one training, from its first step on.

    Args:
        args: they say which score is the best, and by which metric.
        console: to print to.
        has_columns: print columns under a head; otherwise every line has all of the names.
    """

    def __init__(self, args: TrainingArguments, console: Console, has_columns: bool) -> None:
        self.console, self.has_columns = console, has_columns
        self.key = MIOU if args.metric_for_best_model is None else best_metric_key(args)
        self.sign = -1 if args.greater_is_better is False else 1
        self.shown: list[str] = []  # the columns of the last line
        self.training_loss: float | None = None
        self.before: float | None = None  # mean IoU of the last evaluation
        self.best = -math.inf  # times `sign`

    def add(self, line: Mapping[str, Any]) -> None:
        """Prints a line of the history, if it is an evaluation's."""
        if "loss" in line:
            self.training_loss = line["loss"]
        if "eval_runtime" not in line:
            return
        cells = self._cells(line)
        if not self.has_columns:
            mark = cells.pop("best")
            say("  ".join(["evaluation", *labelled(cells), mark]).rstrip(), console=self.console)
            return
        shown = self._fitting()
        if shown != self.shown:
            say("".join(name.rjust(WIDTHS[name]) for name in shown if name != "best"), "bold", self.console)
        self.shown = shown
        # as a text, in which numbers have no colours of rich's own
        row = Text("".join(cells[name].rjust(WIDTHS[name]) for name in shown).rstrip())
        row.highlight_words(["best"], "bold green")
        self.console.print(row)

    def _cells(self, line: Mapping[str, Any]) -> dict[str, str]:
        score, value = line.get(MIOU), line.get(self.key)
        change = None if score is None or self.before is None else score - self.before
        rank = -math.inf if value is None or math.isnan(value) else self.sign * value
        is_best, self.best = rank > self.best, max(rank, self.best)
        self.before = self.before if score is None else score
        return {
            "step": f"{line['step']:6d}",
            "epoch": number(line.get("epoch"), "6.2f"),
            "training loss": number(self.training_loss, "6.4f"),
            "validation loss": number(line.get("eval_loss"), "6.4f"),
            "mIoU": number(score, "6.4f"),
            "change": number(change, "+7.4f"),
            "seconds": number(line["eval_runtime"], "6.1f"),
            "best": "best" if is_best else "",
        }

    def _fitting(self) -> list[str]:
        """The columns that the terminal, as wide as it is now, has room for."""
        widths = accumulate(WIDTHS[name] for name in BY_IMPORTANCE)
        chosen = {name for name, width in zip(BY_IMPORTANCE, widths, strict=True) if width < self.console.width}
        return [name for name in WIDTHS if name in chosen]
