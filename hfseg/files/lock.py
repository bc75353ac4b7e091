"""One process at a time writes into a folder."""

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hfseg.errors import UserError
from hfseg.files.writing import new_file_mode, writing

LOCK = ".lock"
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)

logger = logging.getLogger(__name__)


class LockedError(UserError):
    """Another process is writing into the folder."""


@contextmanager
def locked(folder: Path, setting: str, name: str = LOCK, patience: float = 0.0) -> Iterator[None]:
    """Holds a folder's lock, which the system takes back from a process that dies; makes the folder.

    The lock is a file that stays, as others may be waiting for it. Where the file system knows no locks, a warning
    says so and the work goes on.

    Args:
        folder: what is written into.
        setting: the key or option that names it, for messages.
        name: of the lock's file.
        patience: seconds to wait for another process: the workers of one that was killed live on for some.

    Raises:
        LockedError: another process holds it.
        WriteError: the folder cannot be made or written to.
    """
    path = folder / name
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            path.unlink()  # older versions of the library would empty what it leads to
    lock = FileLock(path, mode=new_file_mode(folder))
    with writing(path):
        try:
            lock.acquire(timeout=patience)
        except Timeout as error:
            raise LockedError(
                f"Another process is writing to {folder}. Wait until it ends, or choose another {setting}."
            ) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, OSError) and error.errno not in NO_LOCKS:
                raise
            logger.warning("%s: this file system has no locks. Do not start a second process for it.", folder)
    try:
        yield
    finally:
        lock.release()
