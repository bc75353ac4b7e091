"""Output that never ends a command: its reader may go away, its disk fill up, its encoding lack a letter."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class Lossy(io.RawIOBase):
    """The bytes of a stream, without those that cannot be written.

    Args:
        target: what is below the stream.
    """

    def __init__(self, target: io.BufferedIOBase | io.RawIOBase) -> None:
        super().__init__()
        self.target = target

    def write(self, data: Any, /) -> int | None:
        try:
            return self.target.write(data)
        except OSError:
            return memoryview(data).nbytes

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self.target.fileno()

    def isatty(self) -> bool:
        return self.target.isatty()


@contextmanager
def lossy_output() -> Iterator[None]:
    """Around a command: what standard output and error cannot take is dropped, and letters that they cannot encode
    become question marks. For the command line; a library leaves its host's streams alone.
    """
    _open_missing()
    output, errors = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lossy(output), _lossy(errors)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = _restored(sys.stdout, output), _restored(sys.stderr, errors)


def _open_missing() -> None:
    """Takes the numbers of closed standard streams, or the next file would get one of them, and what is printed."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _lossy(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed when Python started
        return open(os.devnull, "w", encoding="utf-8")
    if not isinstance(stream, io.TextIOWrapper):  # a host's own, such as a notebook's
        return stream
    stream.flush()
    buffer = stream.buffer
    raw = buffer.raw if isinstance(buffer, io.BufferedWriter) else buffer
    return io.TextIOWrapper(
        io.BufferedWriter(Lossy(raw)),
        encoding=stream.encoding,
        errors="replace",
        line_buffering=True,
        write_through=stream.write_through,
    )


def _restored(lossy: TextIO, stream: TextIO) -> TextIO:
    lossy.flush()
    try:
        if stream is not None:  # closed
            stream.flush()
    except OSError:  # it holds a log line that it cannot write, for which Python would exit with 120
        return lossy
    return stream
