"""Which images are meant, and what each is called: a folder, a glob, a list in a text file, or several of them."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from hfseg.data.folder import SUFFIXES, list_files
from hfseg.errors import UserError

WILDCARDS = "*?["


def find_images(inputs: Sequence[str | Path], ignored: Sequence[Path] = ()) -> dict[str, Path]:
    """Names the images that are meant; they are not opened.

    Args:
        inputs: each a folder (all images below it), a glob (`**` means any folders), a text file (`.txt`, a path a
            line, from the current folder or else from that of the file), or an image.
        ignored: folders whose files do not count, however they are found in folders and by globs.

    Returns:
        Absolute paths in the order of their names. A name is the path without the suffix, from the folder that all
        have in common, which for one folder is that folder: `2024/may/x` for `photos/2024/may/x.jpg` in `photos`.

    Raises:
        UserError: an input is not there or holds no image, or two images have the same name.
    """
    found = [_find(str(entry), [os.path.abspath(folder) for folder in ignored]) for entry in inputs]
    root = os.path.commonpath([folder for folder, _ in found])
    named: dict[str, list[Path]] = {}
    for path in dict.fromkeys(path for _, paths in found for path in paths):
        named.setdefault(path.relative_to(root).with_suffix("").as_posix(), []).append(path)
    double = {name: paths for name, paths in named.items() if len(paths) > 1}
    if double:
        name, paths = min(double.items())
        raise UserError(
            f"{' and '.join(map(str, paths))} would both be written to masks/{name}.png"
            f"{f', and {len(double) - 1} more names are double' if len(double) > 1 else ''}. Rename one of them, or "
            "leave one out."
        )
    return {name: paths[0] for name, paths in sorted(named.items())}


def _find(entry: str, ignored: Sequence[str]) -> tuple[str, list[Path]]:
    """The folder that names are relative to, and the images; both absolute."""
    path = Path(os.path.abspath(os.path.expanduser(entry)))
    if path.is_dir():
        paths = _outside(list_files(path).values(), ignored)
        folder = str(path)
    elif path.is_file() and path.suffix.lower() == ".txt":
        paths = _listed(path)
        folder = os.path.commonpath([listed.parent for listed in paths]) if paths else ""
    elif path.is_file():
        return str(path.parent), [path]
    elif any(sign in entry for sign in WILDCARDS):
        pattern = Path(os.path.expanduser(entry))  # not absolute: the current folder may have brackets in its name
        matches = sorted(Path(os.path.abspath(match)) for match in glob.iglob(str(pattern), recursive=True))
        paths = _outside([match for match in matches if match.suffix.lower() in SUFFIXES and match.is_file()], ignored)
        fixed = [part for part in reversed(pattern.parents) if not any(sign in str(part) for sign in WILDCARDS)]
        folder = os.path.abspath(fixed[-1])
    else:
        raise UserError(f"{entry} is not there. Give a folder, a glob, a .txt file with a path a line, or images.")
    if not paths:
        raise UserError(f"{entry} holds no image; known are {', '.join(sorted(SUFFIXES))}.")
    return folder, paths


def _outside(paths: Iterable[Path], ignored: Sequence[str]) -> list[Path]:
    return [path for path in paths if not any(path.is_relative_to(folder) for folder in ignored)]


def _listed(path: Path) -> list[Path]:
    """The lines of a list; those that lead nowhere are kept, to be named when they are read."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text with a path a line: {error}") from error
    found = []
    for line in filter(None, map(str.strip, lines)):
        here = Path(os.path.abspath(os.path.expanduser(line)))
        beside = Path(os.path.abspath(path.parent / line))
        found.append(beside if beside.is_file() and not here.is_file() else here)
    return found
