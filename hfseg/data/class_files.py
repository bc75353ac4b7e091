"""Class files, read into entries; what a file says is taken at its word or refused by its line or entry.

lines   see `hfseg.data.class_lines`
trees   JSON and YAML: ["sky"], {"0": "sky"}, {"sky": 0}, {"sky": [0, 0, 255]}, [{"name": "sky", "id": 0, ...}]
"""

import json
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, AliasChoices, BaseModel, Field, TypeAdapter, ValidationError

from hfseg.data.class_lines import parse_lines
from hfseg.errors import UserError, shown
from hfseg.files import parse_yaml, read_text

Channel = Annotated[int, Field(ge=0, le=255)]
Name = Annotated[str, Field(min_length=1), AfterValidator(lambda name: unicodedata.normalize("NFC", name))]


class Entry(BaseModel):
    """One class; other keys, which many formats have, are not looked at."""

    name: Name
    id: int | None = Field(None, ge=0)
    color: tuple[Channel, Channel, Channel] | None = Field(None, validation_alias=AliasChoices("color", "colour"))


def read_entries(path: Path) -> dict[int, Entry]:
    """The classes that a file lists, by their ids; without ids in the file, in its order.

    Raises UserError that names the line or the entry of no format that is known.
    """
    text = read_text(path)
    is_tree = path.suffix.lower() in (".json", ".yaml", ".yml")
    try:
        tree = _unfold(_load(path, text)) if is_tree else parse_lines(path, text)
        entries = TypeAdapter(list[Entry]).validate_python(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(
            f"{path}: entry {where}: {first['msg']} (got {shown(first['input'])}). Write a list of "
            "names or of {id, name, color}, or map ids to names or names to colours; in YAML quote names such as '1'."
        ) from error
    if not entries:
        raise UserError(f"{path} names no class. Write a class name on each line, in the order of the ids.")
    if all(entry.id is None for entry in entries):
        return dict(enumerate(entries))
    for entry in entries:
        if entry.id is None:
            raise UserError(
                f"{path}: {shown(entry.name)} has no id, but others have. Give every class an id, or none."
            )
    [(most_frequent, count)] = Counter(entry.id for entry in entries).most_common(1)
    if count > 1:
        raise UserError(f"{path}: id {most_frequent} is given to more than one class. Give each its own.")
    return {entry.id: entry for entry in entries if entry.id is not None}


def _load(path: Path, text: str) -> Any:
    if path.suffix.lower() != ".json":
        return parse_yaml(text, str(path))
    try:
        return json.loads(text, object_pairs_hook=_without_repeated_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {shown(error)}. Correct it.") from error


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ValueError for a key that occurs twice, of which JSON would keep the last."""
    tree = dict(pairs)
    if len(tree) < len(pairs):
        raise ValueError(f"a key occurs twice among {shown([key for key, _ in pairs])}")
    return tree


def _unfold(tree: Any) -> Any:
    """A list of entries from what a JSON or YAML file may hold; what is none of it stays as it is."""
    if isinstance(tree, list):
        return [{"name": item} if isinstance(item, str) else item for item in tree]
    if not isinstance(tree, dict) or not tree:
        return tree
    if all(type(value) is int and isinstance(key, str) for key, value in tree.items()):
        return [{"name": name, "id": id_} for name, id_ in tree.items()]
    if all(isinstance(value, list) for value in tree.values()):
        return [{"name": name, "color": colour} for name, colour in tree.items()]
    return [{"id": id_} | (value if isinstance(value, dict) else {"name": value}) for id_, value in tree.items()]
