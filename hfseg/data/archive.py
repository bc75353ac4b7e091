"""Unpacking an archive so that it is either there as a whole or not at all."""

import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path

from filelock import FileLock

from hfseg.errors import UserError


def extract_archives(archives: Iterable[Path], folder: Path, max_bytes: int) -> Path:
    """Unpacks .tar.gz files into `folder`, unless an earlier call has done so.

    Everything is unpacked under a temporary name and renamed at the end, so a killed process leaves nothing that a
    later one would take for whole, and two processes do not disturb each other.

    Args:
        archives: the files, all unpacked into the same folder.
        folder: where to; its parent must be writable.
        max_bytes: refuse archives that hold more than this (a decompression bomb).

    Raises:
        UserError: an archive is truncated, corrupt, too large, or has members that lead outside of the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            partial = Path(tempfile.mkdtemp(prefix=folder.name + ".partial-", dir=folder.parent))
            try:
                for archive in archives:
                    _extract(archive, partial, max_bytes)
                os.replace(partial, folder)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return folder


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    unpacked = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                unpacked += member.size
                if unpacked > max_bytes:
                    raise UserError(f"{archive} unpacks to more than {max_bytes:,} bytes: not the official archive.")
                tar.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        raise UserError(f"{archive} is refused: {error}. This is not the official archive.") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's trouble, not the archive's
            raise UserError(f"Could not unpack {archive} into {folder.parent}: {error}.") from error
        raise UserError(f"{archive} is truncated or corrupt ({error}). Delete it and download it again.") from error
