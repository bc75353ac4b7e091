"""Unpacking an archive so that it is either there as a whole or not at all."""

import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PureWindowsPath

from filelock import FileLock

from hfseg.data.source import digest
from hfseg.errors import UserError
from hfseg.files import complete_folder, remove_leftovers, writing

EVERYTHING = re.compile("")
# What damaged bytes make the two libraries raise, found by damaging some; the last two are about a member's header.
CORRUPT = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, UnicodeDecodeError, NotImplementedError)


def official_root(
    root: Path,
    folders: Sequence[str],
    names: Sequence[str],
    remedy: str,
    cache_dir: Path,
    max_bytes: int,
    wanted: re.Pattern[str] = EVERYTHING,
) -> Path:
    """Where the official `folders` are: `root`, or what the archives `names` in it are unpacked to in the cache.

    Raises:
        UserError: neither is there, with the remedy, or an archive is damaged.
    """
    if not root.is_dir():
        raise UserError(f"data.root={root} is not a folder. {remedy}")
    is_there = [(root / folder).is_dir() for folder in folders]
    archives = [root / name for name in names]
    missing = [path.name for path in archives if not path.is_file()]
    if all(is_there) or (any(is_there) and missing):
        return root
    if missing:
        layout = " and ".join(f"{folder}/" for folder in folders)
        raise UserError(f"{root} holds neither {layout} nor both archives (missing: {', '.join(missing)}). {remedy}")
    return extract_archives(archives, cache_dir / f"unpacked-{digest(wanted.pattern, archives)}", max_bytes, wanted)


def extract_archives(
    archives: Iterable[Path], folder: Path, max_bytes: int, wanted: re.Pattern[str] = EVERYTHING
) -> Path:
    """Unpacks .tar.gz and .zip files into `folder`, unless an earlier call has done so; two processes may try at once.

    Only members whose names match `wanted` from the start are unpacked, and counted.

    Raises:
        UserError: an archive is truncated, corrupt, has members that lead outside of the folder, or holds more than
            `max_bytes` (a decompression bomb).
    """
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):
        if not folder.exists():
            remove_leftovers(folder.parent, f".{folder.name}-*.partial")  # this process holds the lock
            with complete_folder(folder) as partial:
                for archive in archives:
                    _extract(archive, partial, max_bytes, wanted)
    return folder


def _extract(archive: Path, folder: Path, max_bytes: int, wanted: re.Pattern[str]) -> None:
    extract = _extract_zip if archive.suffix == ".zip" else _extract_tar
    try:
        extract(archive, folder, max_bytes, wanted)
    except tarfile.FilterError as error:
        raise UserError(f"{archive} is refused: {error}. This is not the official archive.") from error
    except (*CORRUPT, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the disk's trouble, not the archive's
            raise UserError(f"Could not unpack {archive} into {folder.parent}: {error}.") from error
        raise UserError(f"{archive} is truncated or corrupt ({error}). Delete it and download it again.") from error


def _extract_tar(archive: Path, folder: Path, max_bytes: int, wanted: re.Pattern[str]) -> None:
    unpacked = 0
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            if wanted.match(member.name):
                unpacked += member.size
                _check_size(archive, unpacked, max_bytes)
                tar.extract(member, folder, filter="data")


def _extract_zip(archive: Path, folder: Path, max_bytes: int, wanted: re.Pattern[str]) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            _check_member(archive, member)
        members = [member for member in file.infolist() if wanted.match(member.filename) and not member.is_dir()]
        # Counted once and for all: `zipfile` stops a member at the size it declares and then finds its checksum wrong.
        _check_size(archive, sum(member.file_size for member in members), max_bytes)
        for member in members:
            path = folder / member.filename
            path.parent.mkdir(parents=True, exist_ok=True)
            with file.open(member) as source, path.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)


def _check_member(archive: Path, member: zipfile.ZipInfo) -> None:
    """Raises UserError for what no data set needs. `ZipFile.extract` would quietly write some of it elsewhere."""
    wrong = ""
    if leads_outside(member.filename):
        wrong = "leads outside of the folder"
    elif stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        wrong = "is a link or a device"
    elif member.flag_bits & 1:
        wrong = "is encrypted"
    elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others inflate without a bound
        wrong = f"uses compression method {member.compress_type}"
    if wrong:
        raise UserError(f"{archive} is refused: member {member.filename!r} {wrong}. This is not the official archive.")


def leads_outside(path: str) -> bool:
    """Whether a relative path, of whichever system, may lead out of its folder."""
    parsed = PureWindowsPath(path)  # which knows both kinds of slashes
    return bool(parsed.anchor) or ".." in parsed.parts


def _check_size(archive: Path, unpacked: int, max_bytes: int) -> None:
    if unpacked > max_bytes:
        raise UserError(f"{archive} unpacks to more than {max_bytes:,} bytes: not the official archive.")
