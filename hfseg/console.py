"""What hfseg prints while it works: lines, and on a terminal bars that are gone when the work is done."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from hfseg.errors import printable

Item = TypeVar("Item")


def is_first_process() -> bool:
    """Whether this process prints: it is the first of those that torchrun or accelerate has started, or alone."""
    return os.environ.get("RANK", "0") == "0"


def is_redrawn(console: Console) -> bool:
    """Whether what has been printed can be drawn anew: on a terminal only, also where FORCE_COLOR is set."""
    return console.is_interactive and console.file.isatty()


def say(text: str, style: str = "", console: Console | None = None, is_whole: bool = False) -> None:
    """Prints text as it is, but for control characters.

    On a terminal its lines are broken between words, unless they are to be copied as a whole; elsewhere they are not.
    """
    console = console or Console(force_jupyter=False)  # lines, no HTML cells
    is_whole = is_whole or not console.is_terminal
    console.print(Text(printable(text), style), soft_wrap=is_whole)


def track(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Gives the items; on a terminal, a bar on standard error shows how many of `total` have been asked for."""
    console = Console(stderr=True)
    if not is_redrawn(console) or not is_first_process():
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(None), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        yield from bar.track(items, total=total, description=what)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Around work of which nothing is known but that it takes a while: on a terminal it is named until it is done."""
    console = Console(stderr=True)
    if not is_redrawn(console):
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True, redirect_stdout=sys.stdout.isatty()) as bar:
        bar.add_task(what, total=None)
        yield
