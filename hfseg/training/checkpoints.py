"""Checkpoints that are whole or not there: written under another name, listed with their sums, renamed at the end."""

import json
import logging
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hfseg.errors import UserError, WriteError
from hfseg.files import follow_umask, remove, writing

PARTIAL = ".checkpoint.partial"  # the folder that a checkpoint is written into
FILES = "files.json"  # name, size and CRC-32 of all other files
CHUNK = 1 << 20

logger = logging.getLogger(__name__)


def commit(partial: Path, folder: Path) -> None:
    """Lists a complete checkpoint's files and gives it its name, in the place of a torn one if there is one."""
    files = [path for path in sorted(partial.rglob("*")) if path.is_file()]
    listing = {path.relative_to(partial).as_posix(): [path.stat().st_size, _crc32(path)] for path in files}
    (partial / FILES).write_text(json.dumps(listing, indent=2), encoding="utf-8")
    follow_umask(partial)
    for name in (*listing, FILES):
        _sync(partial / name)
    remove(folder)
    os.replace(partial, folder)


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if every file is as it was written."""
    try:
        listing = json.loads((folder / FILES).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"{FILES} is missing or torn"
    for name, (size, crc32) in listing.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} of {size} bytes"
        if _crc32(path) != crc32:
            return f"{name} is not what was written"
    return None


def checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoints of a run, torn ones too, the last one first."""
    found = [path for path in output_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True)


def last_whole_checkpoint(output_dir: Path) -> Path:
    """The checkpoint to go on from; says so where a later one is damaged.

    Raises:
        UserError: there is none; lists the damaged ones.
    """
    problems: list[str] = []
    for folder in checkpoints(output_dir):
        problem = find_damage(folder)
        if problem is None:
            if problems:
                logger.warning("Going on from %s: %s.", folder.name, "; ".join(problems))
            return folder
        problems.append(f"{folder.name} is damaged ({problem})")
    if not output_dir.exists():
        raise UserError(f"{output_dir} does not exist: there is no run to resume. Start it without --resume.")
    said = f" ({'; '.join(problems)})" if problems else ""
    raise UserError(
        f"{output_dir} holds no checkpoint to resume from{said}. Delete the folder and start the run without --resume."
    )


def make_partial(partial: Path) -> None:
    """Makes the empty folder that a checkpoint is written into, in the place of what a kill has left of one.

    Raises:
        WriteError: the disk refuses it.
    """
    with writing(partial):
        remove(partial)
        partial.mkdir()  # fails where somebody has put a link in its place


@contextmanager
def written_or_nothing(partial: Path) -> Iterator[None]:
    """Removes the half-written folder when the disk is full, or anything else keeps it from being written.

    Raises:
        WriteError: it could not be written.
    """
    try:
        with writing(partial):
            yield
    except WriteError:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


def _sync(path: Path) -> None:
    """To the disk itself: a rename must not be there before the bytes are."""
    descriptor = os.open(path, os.O_RDWR)  # Windows syncs nothing that is open for reading only
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
