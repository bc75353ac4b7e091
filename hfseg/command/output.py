"""Output that never ends a command: its reader may go away, its disk fill up, its encoding lack a letter."""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LossyFile(io.FileIO):
    """A file in which what cannot be written is dropped."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


@contextmanager
def lossy_output() -> Iterator[None]:
    """Around a command: what standard output and error cannot take is dropped, and letters that they cannot encode
    become question marks. For the command line; a library leaves its host's streams alone.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the next file would get a closed stream's number
        pass
    os.close(number)
    output, errors = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _lossy(output), _lossy(errors)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = _restored(sys.stdout, output), _restored(sys.stderr, errors)


def _lossy(stream: TextIO | None) -> TextIO:
    if stream is None:  # it was closed when Python started
        return open(os.devnull, "w", encoding="utf-8")
    try:
        stream.flush()
        file = LossyFile(stream.fileno(), "wb", closefd=False)
    except (AttributeError, io.UnsupportedOperation):  # a host's own, such as a notebook's
        return stream
    return io.TextIOWrapper(io.BufferedWriter(file), stream.encoding, errors="replace", line_buffering=True)


def _restored(lossy: TextIO, stream: TextIO | None) -> TextIO:
    lossy.flush()
    try:
        if stream is not None:
            stream.flush()
    except OSError:  # it holds a log line that it cannot write, for which Python would exit with 120
        return lossy
    return stream  # type: ignore[return-value]  # None, as it was
