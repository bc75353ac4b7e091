"""One run of a study as a process of its own, which ends when the study does."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from threading import Thread

from hfseg.files import writing

PARENT = "HFSEG_ENDS_WITH_STDIN"  # in the environment of a run whose standard input is a pipe from its study
QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


def run_process(command: Sequence[str], log_path: Path) -> int:
    """Runs a command to its end; it calls `end_with_parent`. What it prints goes to the end of `log_path`.

    Returns:
        Its exit status, negative for a signal.

    Raises:
        KeyboardInterrupt: it was interrupted, or this process was; the command has ended by then.
        WriteError: there is no room for the log.
    """
    reading, writing_end = os.pipe()  # nothing is ever written: the system closes it when this process ends, however
    try:
        with writing(log_path):
            log = log_path.open("ab")
        with log:
            environment = os.environ | QUIET | {PARENT: "1"}
            process = subprocess.run(command, stdin=reading, stdout=log, stderr=subprocess.STDOUT, env=environment)
    finally:
        os.close(reading)
        os.close(writing_end)
    if process.returncode in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    return process.returncode


def end_with_parent() -> None:
    """In a study's run: ends it at the end of its standard input, so that it does not go on without its study."""
    if os.environ.get(PARENT):
        Thread(target=_end_at_end_of_input, daemon=True).start()


def _end_at_end_of_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)  # at once, as a kill would
