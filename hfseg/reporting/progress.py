"""What a run shows while it works: bars and a growing table on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK
from transformers.trainer_utils import has_length

from hfseg.console import is_redrawn, say
from hfseg.metrics import SPLITS
from hfseg.reporting.evaluation_table import EvaluationTable, labelled, number
from hfseg.training import SegTrainer

REDRAW_SECONDS = 0.1  # from one drawing to the next, at least


@contextmanager
def showing_progress(trainer: SegTrainer, console: Console) -> Iterator[None]:
    """Shows the training and the evaluations that are made inside, in place of stock's bars and dictionaries."""
    for stock in (PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
        trainer.pop_callback(stock)
    if not trainer.is_world_process_zero():
        yield
        return
    display = ProgressDisplay(console, is_redrawn(console) and not trainer.args.disable_tqdm)
    trainer.add_callback(display)
    try:
        with display.live or nullcontext():
            yield
    finally:
        trainer.remove_callback(display)


@dataclass
class Pace:
    """How fast a training goes. The first step does not count: it also starts workers, and may compile.

    Attributes:
        num_steps: of the training.
        batch_size: images of a step.
        step: the last one that was made.
        first: the one behind which counting begins.
        began: when that was, in seconds as all times.
        ended: when the last step ended, or the evaluation or saving behind it.
        worked: time of all steps.
    """

    num_steps: int
    batch_size: int
    step: int
    first: int | None = None
    began: float = 0.0
    ended: float = 0.0
    worked: float = 0.0

    def make_step(self, step: int) -> None:
        now = time.monotonic()
        if self.first is None:
            self.first, self.began = step, now
        else:
            self.worked += now - self.ended
        self.step, self.ended = step, now

    @property
    def num_counted(self) -> int:
        return 0 if self.first is None else self.step - self.first

    @property
    def images_per_second(self) -> float | None:
        return self.num_counted * self.batch_size / self.worked if self.worked else None

    @property
    def time_left(self) -> str:
        """With evaluations and saving, by what they have taken so far; `-` before the second step."""
        if not self.num_counted:
            return "-"
        seconds = (time.monotonic() - self.began) / self.num_counted * (self.num_steps - self.step)
        return str(timedelta(seconds=round(seconds)))


class ProgressDisplay(TrainerCallback):
    """Shows a training, and the evaluations in it and after it.

    Attributes:
        live: what is drawn anew at events, as they come: a thread for it would be in the way of workers that fork.
            None where lines are printed in its place.
    """

    def __init__(self, console: Console, is_live: bool) -> None:
        self.console = console
        self.drawn = 0.0  # when
        self.pace: Pace | None = None  # while training
        self.table: EvaluationTable | None = None  # of the training
        self.scores: dict[str, str] = {}  # that the training has logged last
        self.num_scored = 0  # images of the evaluation that is going on
        self.num_images: int | None = None  # all of them, if that is known
        self.live: Live | None = None
        if is_live:
            self.live = Live(
                console=console, get_renderable=self._draw, auto_refresh=False, transient=True,
                redirect_stderr=sys.stderr.isatty(),
            )  # fmt: skip

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        images = (state.train_batch_size or args.train_batch_size) * args.gradient_accumulation_steps * args.world_size
        self.pace = Pace(state.max_steps, images, state.global_step)
        self.table = EvaluationTable(args, self.console, has_columns=self.live is not None)
        for line in state.log_history:
            self.table.add(line)
        start = f"goes on from step {state.global_step} of" if state.global_step else "trains for"
        say(f"{start} {state.max_steps} steps of {images} images", "dim", self.console)
        self._redraw()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self.pace is not None:
            self.pace.make_step(state.global_step)
            self._redraw(state.global_step == state.max_steps)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.pace is not None:
            self.pace.ended = time.monotonic()

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        loader = kwargs["eval_dataloader"]
        self.num_images = len(loader.dataset) if has_length(loader) else None
        self.num_scored += args.eval_batch_size * args.world_size
        if self.num_images is not None:
            self.num_scored = min(self.num_scored, self.num_images)  # the last batch is smaller
        self._redraw(self.num_scored == self.num_images)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        line = state.log_history[-1]
        if self.pace is None or self.table is None:
            self._say_scored(line)
            return
        if "loss" in line:
            self.scores = {
                "loss": number(line["loss"], "6.4f"),
                "training mIoU": number(line.get("train_mean_iou"), "6.4f"),
                "images/s": number(self.pace.images_per_second, "6.1f"),
                "learning rate": number(line.get("learning_rate"), ".2e"),
            }
            if self.live is None:
                place = {"step": f"{state.global_step:6d}", "epoch": number(state.epoch, "6.2f")}
                cells = place | self.scores | {"left": self.pace.time_left}
                say("  ".join(["training  ", *labelled(cells)]), console=self.console)
        self.table.add(line)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.num_scored = 0
        if self.pace is not None:
            self.pace.ended = time.monotonic()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self.pace = None

    def _say_scored(self, line: dict[str, Any]) -> None:
        """After the training, when a split has been scored."""
        images = f"{self.num_images} images of" if self.num_images is not None else "the images of"
        for prefix, split in SPLITS.items():
            seconds = line.get(f"{prefix}_runtime")
            if seconds is not None:
                say(f"scored {images} {split} in {seconds:.1f} s", "dim", self.console)

    def _redraw(self, is_last: bool = False) -> None:
        if self.live is not None and (is_last or time.monotonic() - self.drawn >= REDRAW_SECONDS):
            self.live.refresh()
            self.drawn = time.monotonic()

    def _draw(self) -> RenderableType:
        bars = Table.grid(padding=(0, 1), expand=True)
        bars.add_column(no_wrap=True)
        bars.add_column(ratio=1)
        bars.add_column(no_wrap=True, justify="right")
        parts: list[str] = []
        if self.pace is not None:
            step, last = self.pace.step, self.pace.num_steps
            bars.add_row("training", ProgressBar(last, step), f"{step}/{last} steps")
            cells = {"left": self.pace.time_left} | self.scores
            parts = labelled({name: text.strip() for name, text in cells.items()})
        if self.num_scored:
            count = "images" if self.num_images is None else f"{self.num_scored}/{self.num_images} images"
            bars.add_row("scoring", ProgressBar(self.num_images, self.num_scored), count)
        while parts and len("  ".join(parts)) >= self.console.width:
            parts.pop()
        return Group(bars, Text("  ".join(parts)))
