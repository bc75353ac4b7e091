"""One run of a study as a process of its own, which ends when the study does."""

import ctypes
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LOCK = "running.lock"
PATIENCE = 30.0  # seconds that an interrupted run has to end
PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
QUIET = {"TQDM_DISABLE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}


class RunningElsewhereError(Exception):
    """Another process works on this run."""


def run_process(command: Sequence[str], log_path: Path, lock: int, tick: Callable[[], None]) -> int:
    """Runs a command to its end.

    Args:
        command: with its arguments.
        log_path: what it prints goes to the end of this file.
        lock: file descriptor from `locked`, which the command holds too.
        tick: called about once a second, to show progress.

    Returns:
        Its exit status, negative for a signal.

    Raises:
        KeyboardInterrupt: it was interrupted, or this process was; the command has ended by then.
    """
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | QUIET,
            pass_fds=[lock],  # the lock lasts as long as either of the two processes
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
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
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def locked(folder: Path, patience: float = 5.0) -> Iterator[int]:
    """Holds the folder's lock, which the system takes back from whoever dies; yields its file descriptor.

    Raises:
        RunningElsewhereError: somebody else holds it, and goes on doing so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a") as file:
        deadline = time.monotonic() + patience  # a killed study's run needs a moment to die
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RunningElsewhereError from error
                time.sleep(0.2)
        yield file.fileno()


_libc = ctypes.CDLL(None)  # looked up before any fork


def _end_with_parent() -> None:
    """In the child: when the study is killed, its run must not go on alone."""
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
