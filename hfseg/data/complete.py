"""A folder that appears only when everything in it is written."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_folder(root: Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which becomes `root` at the end and is removed after an exception.

    `root` must not exist or be empty.
    """
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}-", dir=root.parent) as scratch:
        building = Path(scratch) / root.name
        building.mkdir()
        yield building
        os.replace(building, root)
