"""Files that are whole where they exist: written under another name, then renamed."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_NAME = 255  # bytes of a file's name, on most file systems


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` at the end. After an error nothing is left of it."""
    name = f".{path.name}.partial"
    if len(os.fsencode(name)) > MAX_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}.partial"
    partial = path.with_name(name)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON tree; NaN is an error, because JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")
