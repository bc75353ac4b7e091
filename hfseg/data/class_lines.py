"""Class files of lines and of tables: every line is read as what it says, or refused by its number.

lines   a name; `0 sky`, `0: sky` or `sky: 0`; `64 128 64 Animal` or `Animal 64 128 64`; CVAT's `sky:0,0,255::`;
        labelme's `__ignore__` in front. Blank lines and those that begin with # are comments.
tables  a heading such as `Pixel Value, Class` (Roboflow) or `name,r,g,b`, then rows
"""

import csv
import re
from pathlib import Path
from typing import Any, TypeAlias

from hfseg.errors import UserError, shown

Lines: TypeAlias = list[tuple[int, str]]  # number, from 1, and text

IGNORE = "__ignore__"  # labelme's name of id -1, which it saves as 255
GAP = r"(?:\s*[,;:=\t]\s*|\s+)"
RGB = rf"(?P<red>\d+){GAP}(?P<green>\d+){GAP}(?P<blue>\d+)"
PATTERNS = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?P<name>[^:]+):(?:(?P<red>\d+),\s*(?P<green>\d+),\s*(?P<blue>\d+))?:[^:]*:[^:]*",
        rf"(?:(?P<id>\d+){GAP})?{RGB}{GAP}(?P<name>[^\d\s].*)",
        rf"(?:(?P<id>\d+){GAP})?(?P<name>[^\d\s].*?){GAP}{RGB}",
        r"(?P<id>\d+)(?:\s*[,;:=]\s*|[.)]?\s+)(?P<name>\S.*)",
        r"(?P<name>[^\d\s].*?)\s*[,;:=\t]\s*(?P<id>\d+)",
    )
)
NAME_AND_NUMBER = re.compile(r"(?P<name>\D.*?)\s+(?P<id>\d+)")
# Of a list in another language, or of columns: no part of a name.
SYNTAX = re.compile(r"[\[\]{}<\"']|[-*+] |//|.*([,;:{]|\t.*|\s#.*)$")
# What a column may be called; of several columns of names, the first of these counts.
ID_WORDS = ("id", "pixel value", "value", "index", "idx", "class id", "label id", "category id")
NAME_WORDS = ("name", "class name", "label name", "class", "label", "category")
COLOUR_WORDS = (("r", "red"), ("g", "green"), ("b", "blue"))
WORDS = {*ID_WORDS, *NAME_WORDS, *(word for words in COLOUR_WORDS for word in words)}
HEADINGS = {*NAME_WORDS, "names", "classes", "labels", "categories", "class names", "id"}
REMOVE = "Remove it; a class that is really called so can be listed in a classes.json."


def parse_lines(path: Path, text: str) -> list[dict[str, Any]]:
    """The entries, with `name` and where the file says them `id` and `color`, of the text of a class file.

    Raises UserError that names the line that is no class, or not written as the others are.
    """
    numbered = ((number, line.strip()) for number, line in enumerate(text.splitlines(), start=1))
    lines = [(number, line) for number, line in numbered if line and not line.startswith("#")]
    if not lines:
        return []
    first = lines[0][1]
    delimiter = next((sign for sign in "\t;," if sign in first), None)
    heading = [_word(cell) for cell in (first.split(delimiter) if delimiter else first.split())]
    has_name = not {*heading}.isdisjoint(NAME_WORDS)
    if delimiter and has_name and {*heading} & WORDS.difference(NAME_WORDS):
        return _parse_table(path, heading, lines[1:], delimiter)
    return _parse_rows(path, lines[1:] if len(heading) > 1 and has_name and {*heading} <= WORDS else lines)


def _word(cell: str) -> str:
    return cell.strip().strip('"').replace("_", " ").casefold()


def _parse_table(path: Path, heading: list[str], lines: Lines, delimiter: str) -> list[dict[str, Any]]:
    """Rows below a heading that names the columns."""
    name = next(heading.index(word) for word in NAME_WORDS if word in heading)
    ids = [heading.index(word) for word in ID_WORDS if word in heading][:1]
    colour = [index for words in COLOUR_WORDS for index, word in enumerate(heading) if word in words]
    entries: list[dict[str, Any]] = []
    rows = csv.reader((line for _, line in lines), delimiter=delimiter, skipinitialspace=True)
    for (number, line), row in zip(lines, rows, strict=False):
        cells = [cell.strip() for cell in row]
        if len(cells) != len(heading) or not cells[name] or not all(cells[at].isdecimal() for at in (*colour, *ids)):
            raise _refuse(
                path, number, line, f"does not fit the columns {delimiter.join(heading)}", "Correct the line."
            )
        entry: dict[str, Any] = {"name": cells[name]}
        if ids:
            entry["id"] = cells[ids[0]]
        if len(colour) == 3:
            entry["color"] = [cells[index] for index in colour]
        entries.append(entry)
    return entries


def _parse_rows(path: Path, lines: Lines) -> list[dict[str, Any]]:
    """Lines that are all written in the same way; otherwise each is a name."""
    for pattern in PATTERNS:
        matches = [pattern.fullmatch(line) for _, line in lines]
        found = [match for match in matches if match]
        if len(found) == len(lines):
            return [_entry(match) for match in found]
        if 2 * len(found) > len(lines):  # a single "3 wheeler" among names is a name
            what = f"is not written like {shown(found[0][0])}"
            raise _refuse(path, *lines[matches.index(None)], what, "Write all alike, or a classes.json.")
    numbered = [_entry(match) for _, line in lines if (match := NAME_AND_NUMBER.fullmatch(line))]
    is_order = sorted(int(entry["id"]) for entry in numbered) == list(range(len(lines)))
    if is_order and len({entry["name"] for entry in numbered}) == len(lines):  # unlike `class 0`, `class 1`
        return numbered
    ignored: list[dict[str, Any]] = [{"name": IGNORE, "id": 255}] if lines[:1] and lines[0][1] == IGNORE else []
    names = lines[len(ignored) :]
    _check_names(path, names, can_be_heading=not ignored)
    return ignored + [{"name": line} | ({"id": index} if ignored else {}) for index, (_, line) in enumerate(names)]


def _entry(match: re.Match[str]) -> dict[str, Any]:
    found = {key: value for key, value in match.groupdict().items() if value is not None}
    colour = [found.pop(channel) for channel in ("red", "green", "blue") if channel in found]
    return found | {"name": found["name"].strip()} | ({"color": colour} if colour else {})


def _check_names(path: Path, lines: Lines, can_be_heading: bool) -> None:
    """Raises UserError for a line that is no name: a heading, a part of another language, a whole list, columns."""
    for number, line in lines:
        if line == IGNORE:
            what = "is labelme's name of unlabelled pixels and must be the first line"
            raise _refuse(path, number, line, what, REMOVE)
        if can_be_heading and number == lines[0][0] and _word(line.rstrip(":")) in HEADINGS:
            raise _refuse(path, number, line, "looks like a heading", REMOVE)
        if SYNTAX.match(line):
            raise _refuse(
                path, number, line, "is not the name of one class", "Write one name on each line, and no more."
            )
    for sign in ",;|":
        counts = {line.count(sign) for _, line in lines}
        if len(counts) == 1 and counts != {0}:
            remedy = (
                "Write one name on each line, or above the columns what they are, such as `id,name` or `name,r,g,b`; "
                "names with such a sign can be listed in a classes.json."
            )
            raise _refuse(path, *lines[0], "looks like a row of columns", remedy)


def _refuse(path: Path, number: int, line: str, what: str, remedy: str) -> UserError:
    return UserError(f"{path}, line {number}: {shown(line)} {what}. {remedy}")
