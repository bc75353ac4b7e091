"""What a key of the config may hold, by the schema: `output_dir=runs/run #2` is text, whatever YAML makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from hfseg.config.train_keys import train_types

COLLECTIONS = (dict, list, tuple, Mapping, Sequence)


@dataclass(frozen=True)
class KeyType:
    """What a key may hold.

    Attributes:
        is_text: a single value is text: a word, a name, a path.
        is_optional: null says that there is no value.
        is_collection: it may be a list, or hold further keys.
    """

    is_text: bool
    is_optional: bool
    is_collection: bool


def key_type(schema: type[BaseModel], path: tuple[str, ...]) -> KeyType:
    """What the schema says of a key; of one that it does not have, that it is no text.

    Args:
        schema: of the whole tree.
        path: the key with those above it, such as ("data", "root"). A number stands for an item of a list.
    """
    kinds: list[Any] = [schema]
    is_optional = path[:1] == ("train",)  # null takes any of them back
    if path[:1] == ("study",) and path[1:2] in (("arms",), ("pretrain",)):
        path = path[3:]  # what follows a run's name is as in any other run
    if path[:1] == ("train",) and len(path) > 1:
        kinds, path = _members(train_types().get(path[1], Any)), path[2:]
    for part in path:
        kinds = [below for kind in kinds for below in _below(kind, part)]
    is_text = [_is_text(kind) for kind in kinds]
    is_collection = [_is_collection(kind) for kind in kinds]
    others = [kind for kind, *known in zip(kinds, is_text, is_collection, strict=True) if not any(known)]
    return KeyType(any(is_text) and set(others) <= {NoneType}, is_optional or NoneType in others, any(is_collection))


def _members(annotation: Any) -> list[Any]:
    """The types of a union; of a type with conditions, the type."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [member for each in get_args(annotation) for member in _members(each)]
    return [annotation]


def _below(kind: Any, part: str) -> list[Any]:
    """The types of a key of a section, or of an item of a list."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _members(kind.model_fields[part].annotation) if part in kind.model_fields else []
    return _members(get_args(kind)[0]) if get_origin(kind) in (list, tuple) and part.isdecimal() else []


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return all(isinstance(word, str) for word in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, str | Path)


def _is_collection(kind: Any) -> bool:
    whole = get_origin(kind) or kind
    return isinstance(whole, type) and issubclass(whole, (BaseModel, *COLLECTIONS)) and not issubclass(whole, str)
