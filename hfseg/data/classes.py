"""Class files: the names, and perhaps the colours, of the ids in a mask.

    classes.txt          one name on each line, in the order of the ids; or `0 sky`, `1: road` on each
    classes.json, .yaml  ["sky", "road"], {"0": "sky", "1": "road"}, or
                         [{"id": 0, "name": "sky", "color": [128, 128, 128]}, ...]

Ids run from 0 without gaps. The ignore index (255, or 65535 for more than 255 classes) may be listed as well, which
says what unlabelled pixels are called and, in a colour table, how they look.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from hfseg.errors import UserError
from hfseg.labels import Colour, LabelSet
from hfseg.yaml_text import parse_yaml

CLASS_FILES = ("classes.txt", "classes.json", "classes.yaml", "classes.yml", "id2label.json")
ID_AND_NAME = re.compile(r"(\d+)(?:\s*[:,]\s*|\s+)(\S.*)")
Channel = Annotated[int, Field(ge=0, le=255)]


class Entry(BaseModel):
    """One class; other keys, which many formats have, are not looked at."""

    name: str = Field(min_length=1)
    id: int | None = Field(None, ge=0)
    color: tuple[Channel, Channel, Channel] | None = Field(None, validation_alias=AliasChoices("color", "colour"))


@dataclass(frozen=True)
class ClassTable:
    """What a class file says.

    Attributes:
        labels: the classes.
        colours: (red, green, blue) -> id, the ignore index's too; empty if the file has none.
        names_void: whether the file lists the ignore index.
    """

    labels: LabelSet
    colours: tuple[tuple[Colour, int], ...]
    names_void: bool


def find_class_file(folder: Path, chosen: Path | None) -> Path:
    """The class file: `chosen`, in the folder or from anywhere, or the one that the folder has.

    Raises:
        UserError: there is none, or there are several and none is chosen.
    """
    candidates = [folder / chosen, chosen] if chosen else [folder / name for name in CLASS_FILES]
    found = [path for path in candidates if path.is_file()]
    if not found:
        raise UserError(
            f"There is no class file {chosen or ' or '.join(CLASS_FILES)} in {folder}. Write one, with a class name "
            "on each line in the order of the ids, or set data.classes to its path."
        )
    if len(found) > 1 and not chosen:
        raise UserError(
            f"{folder} holds {' and '.join(path.name for path in found)}: set data.classes to one of them."
        )
    return found[0]


def named_classes(names: Sequence[str]) -> ClassTable:
    """The classes that `data.classes` lists itself; raises UserError for a name that is given twice."""
    return ClassTable(LabelSet(names, 255 if len(names) <= 255 else 65535), (), names_void=False)


def read_class_table(path: Path) -> ClassTable:
    """Reads a class file.

    Raises:
        UserError: it is unreadable or says something impossible; names the entry.
    """
    entries = _number(path, _read_entries(path))
    ids = sorted(entries)
    void = next((id_ for id_ in (255, 65535) if ids[-1] == id_ and len(ids) <= id_), None)
    num_labels = len(ids) - (void is not None)
    ignore_index = 255 if num_labels <= 255 else 65535
    if ids[:num_labels] != list(range(num_labels)) or void not in (None, ignore_index):
        raise UserError(
            f"{path}: the ids are {_shorten(ids)}, but must be 0..{num_labels - 1} without gaps, and perhaps "
            f"{ignore_index} for unlabelled pixels. Renumber the classes, and the masks with them."
        )
    classes = [entries[index] for index in range(num_labels)]
    repeated = [name for name, count in Counter(entry.name for entry in classes).items() if count > 1]
    if repeated:
        raise UserError(f"{path}: {repeated[0]!r} is the name of more than one class. Give each its own.")
    colours = _colours(path, classes)
    labels = LabelSet([entry.name for entry in classes], ignore_index, palette=colours or None)
    table = [(colour, index) for index, colour in enumerate(colours)]
    if void is not None and (void_colour := entries[void].color) and table:
        table.append((void_colour, ignore_index))
    clashing = [colour for colour, count in Counter(colour for colour, _ in table).items() if count > 1]
    if clashing:
        raise UserError(f"{path}: {clashing[0]} is the colour of more than one class. Give each its own.")
    return ClassTable(labels, tuple(table), void is not None)


def _read_entries(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text ({error}).") from error
    try:
        tree = _parse(path, text)
        if isinstance(tree, dict):
            tree = [{"id": id_, "name": name} for id_, name in tree.items()]
        if isinstance(tree, list):
            tree = [{"name": item} if isinstance(item, str) else item for item in tree]
        entries = TypeAdapter(list[Entry]).validate_python(tree)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid {path.suffix[1:]}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: entry {where}: {first['msg']} (got {first['input']!r}). It must be a list of names, a mapping "
            "from ids to names, or a list of {id, name, color}; quote names such as '1' and 'true' in YAML."
        ) from error
    if not entries:
        raise UserError(f"{path} names no class.")
    return entries


def _parse(path: Path, text: str) -> Any:
    if path.suffix.lower() == ".json":
        return json.loads(text)
    if path.suffix.lower() in (".yaml", ".yml"):
        return parse_yaml(text, str(path))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [ID_AND_NAME.fullmatch(line) for line in lines]
    if all(matches):  # a single "3 wheeler" among names is a name
        return [{"id": match[1], "name": match[2]} for match in matches if match]
    return lines


def _number(path: Path, entries: list[Entry]) -> dict[int, Entry]:
    if all(entry.id is None for entry in entries):
        return dict(enumerate(entries))
    without = [entry.name for entry in entries if entry.id is None]
    if without:
        raise UserError(f"{path}: {without[0]!r} has no id, but others have. Give every class an id, or none.")
    numbered = {entry.id: entry for entry in entries if entry.id is not None}
    if len(numbered) < len(entries):
        counts = Counter(entry.id for entry in entries)
        raise UserError(f"{path}: id {counts.most_common(1)[0][0]} is given to more than one class.")
    return numbered


def _colours(path: Path, classes: list[Entry]) -> list[Colour]:
    colours = [entry.color for entry in classes if entry.color is not None]
    if colours and len(colours) < len(classes):
        without = next(entry.name for entry in classes if entry.color is None)
        raise UserError(f"{path}: {without!r} has no color, but others have. Give every class a color, or none.")
    return colours


def _shorten(ids: list[int]) -> str:
    return str(ids) if len(ids) <= 12 else f"[{', '.join(map(str, ids[:10]))}, ... {ids[-1]}]"
