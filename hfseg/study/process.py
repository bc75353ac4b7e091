"""One run of a study as a process of its own, which ends when the study does."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from hfseg.files import writing

PATIENCE = 30.0  # seconds that an interrupted run has to end
PARENT = "HFSEG_ENDS_WITH_STDIN"  # in the environment of a run whose standard input is a pipe from its study
QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
INTERRUPT = signal.SIGTERM if sys.platform == "win32" else signal.SIGINT  # what Popen can send there


def run_process(command: Sequence[str], log_path: Path, tick: Callable[[], None]) -> int:
    """Runs a command to its end.

    Args:
        command: with its arguments; it calls `end_with_parent`.
        log_path: what it prints goes to the end of this file.
        tick: called about once a second, to show progress.

    Returns:
        Its exit status, negative for a signal.

    Raises:
        KeyboardInterrupt: it was interrupted, or this process was; the command has ended by then.
        WriteError: there is no room for the log.
    """
    with writing(log_path):
        log = log_path.open("ab")
    with log:
        environment = os.environ | QUIET | {PARENT: "1"}
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while True:
                try:
                    status = process.wait(timeout=1)
                    break
                except subprocess.TimeoutExpired:
                    tick()
        finally:
            end(process)
    if status in (130, -signal.SIGINT):
        raise KeyboardInterrupt
    return status


def end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts what still runs, and waits for it."""
    if process.poll() is None:
        process.send_signal(INTERRUPT)
        try:
            process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdin is not None:
        process.stdin.close()


def end_with_parent() -> None:
    """In a study's run: when the study is killed, its run must not go on alone.

    The study holds the other end of standard input and never writes to it. The system closes it when the study ends,
    however that happens.
    """
    if os.environ.get(PARENT):
        Thread(target=_end_at_end_of_input, daemon=True).start()


def _end_at_end_of_input() -> None:
    while os.read(0, 1024):
        pass
    os._exit(1)  # at once, as a kill would
