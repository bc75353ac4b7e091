"""Files and folders that are whole where they exist: written under another name, then renamed."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from hfseg.errors import WriteError, shown

MAX_NAME = 255  # bytes of a file's name, on most file systems
LEFTOVERS = ".*.partial"  # what a killed process leaves
REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Make room on its disk."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Make its folder writable, or give another."),
    errno.EEXIST: "Remove what is there, or give another place.",
    **dict.fromkeys((errno.ENOENT, errno.ENOTDIR, errno.ESTALE), "Its folder is not there, or has been removed."),
}
# torch.save raises RuntimeError from its C++ writer, with no error number: what it says, and what that means
TORCH_WRITER = {
    "PytorchStreamWriter": errno.ENOSPC,
    "iostream error": errno.ENOSPC,
    "unexpected pos": errno.ENOSPC,
    "Parent directory": errno.ENOENT,
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Around writing to `path`: what the disk refuses is the user's to mend.

    Raises:
        WriteError: it cannot be written; with the remedy for that cause.
    """
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        number = _error_number(error)
        if isinstance(error, RuntimeError) and number is None:
            raise
        cause = error.strerror if isinstance(error, OSError) and error.strerror else shown(error).splitlines()[0]
        remedy = REMEDIES.get(number or 0, "See whether its disk works.")
        raise WriteError(f"{path} cannot be written: {cause.rstrip('.')}. {remedy}") from error


def _error_number(error: Exception) -> int | None:
    if isinstance(error, OSError):
        return error.errno
    text = str(error)
    if isinstance(error, SafetensorError):  # "... No space left on device (os error 28)"
        digits = text.rpartition("(os error ")[2].partition(")")[0]
        return int(digits) if digits.isdecimal() else None
    return next((number for words, number in TORCH_WRITER.items() if words in text), None)


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a path to write to, which takes the place of `path` at the end. After an error nothing is left of it.

    Raises:
        WriteError: the disk refuses it.
    """
    partial = partial_path(path)
    with writing(path):
        try:
            partial.touch(exist_ok=False)  # never through a link; readable for whom the umask says
            mode = _mode(partial)
            yield partial
            _set_mode(partial, mode)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Gives an empty folder to write into, which becomes `folder` at the end and is removed after an exception.

    `folder` must not exist or be empty by then.

    Raises:
        WriteError: the disk refuses it.
    """
    partial = partial_path(folder)
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            yield partial
            follow_umask(partial)
            if folder.is_dir():
                folder.rmdir()
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def partial_path(path: Path) -> Path:
    """A new name beside `path`, which nobody can foresee and put a link at."""
    tag = f"-{secrets.token_hex(4)}.partial"
    name = f".{path.name}{tag}"
    if len(os.fsencode(name)) > MAX_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()}{tag}"
    return path.with_name(name)


def remove(path: Path) -> None:
    """Removes a file, a link or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(folder: Path, pattern: str = LEFTOVERS) -> None:
    """Removes what killed processes have left; for whoever knows that no other is writing into the folder now."""
    with writing(folder):
        for path in list(folder.glob(pattern)):
            remove(path)


def new_file_mode(folder: Path) -> int:
    """The permissions that the umask gives to new files in a folder, found by making one: asking would change it."""
    probe = partial_path(folder / "mode")
    with writing(folder):
        try:
            probe.touch(exist_ok=False)
            return _mode(probe)
        finally:
            probe.unlink(missing_ok=True)


def follow_umask(folder: Path) -> None:
    """Gives the files below a folder the permissions of new ones: safetensors writes for its user only."""
    mode = new_file_mode(folder)
    for path in folder.rglob("*"):
        if path.is_file():
            _set_mode(path, mode)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _set_mode(path: Path, mode: int) -> None:
    if _mode(path) != mode:  # not all file systems have permissions to set
        path.chmod(mode)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, and bytes of file names that are no text as escapes, which are JSON's, too.

    Raises:
        WriteError: the disk refuses it.
    """
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON tree, in which names of any script can be read; NaN is an error, because JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
