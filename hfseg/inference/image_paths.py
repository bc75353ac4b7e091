"""Which images are meant, and what each is called: a folder, a glob, a list in a text file, or several of them."""

import glob
import os
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import PIL

from hfseg.data import check_regular, is_image, is_unreadable_image, same_form
from hfseg.errors import UserError, shown
from hfseg.files import read_text

WILDCARDS = "*?["
MAX_LIST = 1 << 28  # bytes of a list of paths: millions of lines
# What tells the folder of earlier predictions, and the folders in it that hold pictures of their own
PREDICTIONS, PICTURES = "predictions.jsonl", ("masks", "colours", "overlays")


@dataclass
class Found:
    """What was found in the inputs.

    Attributes:
        images: absolute paths by name, in the order of their names; they are not opened.
        problems: one message for each file that is an image by its name and cannot be one of `images`.
        others: files below folders that are no images by their names; hidden ones are not looked at.
        outputs: folders of earlier predictions, whose pictures do not count.
    """

    images: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)
    outputs: set[Path] = field(default_factory=set)


def find_images(inputs: Sequence[str | Path]) -> Found:
    """Finds and names the images that are meant.

    Pictures of earlier predictions are left out, however they are found in folders and by globs.

    Args:
        inputs: each a folder (all images below it), a glob (`**` means any folders), a text file (`.txt`, a path a
            line, from the current folder or else from that of the file), or an image.

    Returns:
        The images. A name is the path without the suffix, from the folder that all inputs have in common, which for
        one folder is that folder: `2024/may/x` for `photos/2024/may/x.jpg` in `photos`. What a list names is called by
        its line alone, whatever the other lines are: `may/x` for `may/x.jpg`, `data/x` for `/data/x.jpg`.

    Raises:
        UserError: an input is not there or holds no image, or two images have the same name.
    """
    if not all(map(str, inputs)) or not inputs:
        raise UserError("No image is given. Give a folder, a glob, a .txt file with a path a line, or images.")
    found = Found()
    named = [entry for entry in map(str, inputs) if _is_list(entry)]
    searched = [_search(entry, found) for entry in map(str, inputs) if not _is_list(entry)]
    pairs = [pair for entry in named for pair in _listed(_place(entry), found)]
    root = os.path.commonpath([folder for folder, _ in searched]) if searched else ""
    pairs += [(path.relative_to(root), path) for _, paths in searched for path in paths]
    places: dict[str, list[Path]] = {}
    for line, path in dict.fromkeys(pairs):
        name = same_form(line.with_suffix("").as_posix())
        if _is_text(name):
            places.setdefault(name, []).append(path)
        else:
            found.problems.append(f"{path} is not a UTF-8 file name. Rename the file.")
    check_names(places)
    found.images = {name: paths[0] for name, paths in sorted(places.items())}
    return found


def check_names(places: dict[str, list[Path]]) -> None:
    """Raises UserError where two images have the same name."""
    double = {name: paths for name, paths in places.items() if len(paths) > 1}
    if double:
        name, paths = min(double.items())
        raise UserError(
            f"{' and '.join(map(str, paths))} would both be written to masks/{name}.png"
            f"{f', and {len(double) - 1} more names are double' if len(double) > 1 else ''}. Rename one of them, or "
            "leave one out."
        )


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_list(entry: str) -> bool:
    path = _place(entry)
    return path.suffix.lower() == ".txt" and os.path.isfile(path)


def _place(entry: str | Path) -> Path:
    """The absolute path, in the Unicode form in which it is there: macOS stores another one than people type."""
    path = os.path.abspath(os.path.expanduser(entry))
    forms = (path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))
    return Path(next(filter(os.path.lexists, forms), path))


def _search(entry: str, found: Found) -> tuple[str, list[Path]]:
    """The folder that names are relative to, and the images; both absolute."""
    path = _place(entry)
    if os.path.isdir(path):
        folder, paths = str(path), [below for below in _below(path, found) if _is_taken(below, found)]
    elif os.path.exists(path):
        return str(path.parent), [check_regular(path)]
    elif any(sign in entry for sign in WILDCARDS):
        pattern = Path(os.path.expanduser(entry))  # not absolute: the current folder may have brackets in its name
        matches = sorted(Path(os.path.abspath(match)) for match in glob.iglob(str(pattern), recursive=True))
        fixed = [part for part in reversed(pattern.parents) if not any(sign in str(part) for sign in WILDCARDS)]
        folder = os.path.abspath(fixed[-1])
        matches = [
            match for match in matches if not match.is_dir() and not _is_passed_over(match, Path(folder), found)
        ]
        paths = [match for match in matches if _is_taken(match, found)]
    else:
        raise UserError(f"{entry} is not there. Give a folder, a glob, a .txt file with a path a line, or images.")
    if not paths:
        problems = "".join(f"\n  {problem}" for problem in found.problems[:5])
        raise UserError(f"{entry} holds no image that can be read, such as .png, .jpg, .tif or .webp.{problems}")
    return folder, paths


def _below(folder: Path, found: Found) -> Iterator[Path]:
    """All files below a folder, through links too, each real folder once; not the hidden ones, nor predictions."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        seen.add(os.path.realpath(parent))
        inside = [Path(parent, name) for name in sorted(folders) if not name.startswith(".")]
        inside = [path for path in inside if os.path.realpath(path) not in seen]
        folders[:] = [path.name for path in inside if not _holds_pictures(path, found)]
        yield from (Path(parent, name) for name in sorted(names) if not name.startswith("."))


def _holds_pictures(folder: Path, found: Found) -> bool:
    """Whether it is one of the folders in earlier predictions that hold their pictures."""
    is_output = folder.name in PICTURES and (folder.parent / PREDICTIONS).is_file()
    if is_output:
        found.outputs.add(folder.parent)
    return is_output


def _is_passed_over(path: Path, top: Path, found: Found) -> bool:
    """Whether a file below a folder is a picture of earlier predictions, or found again through a folder in itself."""
    inside = [folder for folder in path.parents if folder != top and folder.is_relative_to(top)]
    loops = (
        folder.is_symlink() and Path(os.path.realpath(folder.parent)).is_relative_to(os.path.realpath(folder))
        for folder in inside
    )
    return any(loops) or any(_holds_pictures(folder, found) for folder in inside)


def _is_taken(path: Path, found: Found) -> bool:
    """Whether a file is an image; if not, says why or counts it."""
    if not is_image(path) and not is_unreadable_image(path):
        if not (path.parent / PREDICTIONS).is_file():  # beside which only what belongs to it is expected
            found.others.append(path)
        return False
    if not path.is_file():
        kind = "no file but a pipe, socket or device" if path.exists() else "a link to a file that is not there"
        found.problems.append(f"{path} is {kind}. Remove it, or leave it out.")
        return False
    if not is_image(path):
        found.problems.append(
            f"{path} is of a format that Pillow {PIL.__version__} does not read here. Save it as PNG or JPEG."
        )
    return is_image(path)


def _listed(path: Path, found: Found) -> list[tuple[Path, Path]]:
    """The lines of a list, as names and paths; those that lead nowhere are kept, to be named when they are read."""
    lines = read_text(path, MAX_LIST).splitlines()
    pairs = []
    for line in filter(None, map(str.strip, lines)):
        typed = Path(os.path.normpath(os.path.expanduser(line)))
        here, beside = _place(typed), _place(path.parent / typed)
        place = beside if os.path.isfile(beside) and not os.path.isfile(here) else here
        named = place.relative_to(place.anchor) if typed.is_absolute() or typed.parts[:1] == ("..",) else typed
        if named.name:
            pairs.append((named, place))
        else:
            found.problems.append(f"{path}: the line {shown(line)} is a folder. Leave it out, or list its images.")
    if not pairs and not found.problems:
        raise UserError(f"{path} holds no image: it has no line.")
    return pairs
