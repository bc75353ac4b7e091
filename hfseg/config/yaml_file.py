"""Config files as trees of plain values, and overrides on the command line. Text is text, as the schema says."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from hfseg.config.text_keys import KeyType
from hfseg.errors import UserError, shown
from hfseg.files import MAX_DEPTH, TAG, compose, construct, read_text

KeyPath: TypeAlias = tuple[str, ...]  # a key with those above it
TypeOf: TypeAlias = Callable[[KeyPath], KeyType]  # what the schema says of a key

MAX_KEY = 100  # characters


def read_yaml(path: Path, type_of: TypeOf) -> dict[str, Any]:
    """The tree of a config file.

    Raises:
        UserError: it cannot be read, or is no tree.
    """
    if not os.path.exists(path):  # pathlib raises for a name that is too long
        raise UserError(f"There is no config file {path}. The ones that come with hfseg are in configs/.")
    tree = parse_config(read_text(path), str(path), (), type_of)
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold keys and values at its top level, such as `name: my-run`.")
    return tree


def parse_config(text: str, source: str, path: KeyPath, type_of: TypeOf) -> Any:
    """The value that YAML holds for a key; what stands for text is as it is written, and `*name` is a copy.

    Args:
        text: YAML.
        source: what errors call it.
        path: the key.
        type_of: the schema.

    Raises:
        UserError: it is no YAML, or has a key that is no text.
    """
    node = compose(text, source)
    return construct(None if node is None else _as_typed(node, path, type_of, source), source)


def _as_typed(node: yaml.Node, path: KeyPath, type_of: TypeOf, source: str) -> yaml.Node:
    """A copy of the nodes in which keys, and numbers and the like under a key for text, are text."""
    if isinstance(node, yaml.SequenceNode):
        items = [_as_typed(item, (*path, str(index)), type_of, source) for index, item in enumerate(node.value)]
        return yaml.SequenceNode(node.tag, items, node.start_mark)
    if isinstance(node, yaml.MappingNode):
        pairs = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode) or len(key.value) > MAX_KEY:
                raise UserError(f"{source}, line {key.start_mark.line + 1}: a key must be a word.")
            if key.tag != f"{TAG}merge":
                pairs.append((_as_text(key), _as_typed(value, (*path, key.value), type_of, source)))
            elif isinstance(value, yaml.SequenceNode):  # `<<: [*one, *other]`; what they hold belongs here
                items = [_as_typed(item, path, type_of, source) for item in value.value]
                pairs.append((key, yaml.SequenceNode(value.tag, items, value.start_mark)))
            else:
                pairs.append((key, _as_typed(value, path, type_of, source)))
        return yaml.MappingNode(node.tag, pairs, node.start_mark)
    is_value = node.tag != f"{TAG}null" and node.tag.startswith(TAG)
    return _as_text(node) if is_value and type_of(path).is_text else node


def _as_text(node: yaml.Node) -> yaml.ScalarNode:
    return yaml.ScalarNode(f"{TAG}str", node.value, node.start_mark)


def apply_override(tree: dict[str, Any], override: str, type_of: TypeOf) -> None:
    """Sets `key.sub=value` in the tree.

    The value of a key that holds text is taken as it stands, without quotes or escapes; `null`, or nothing, says that
    an optional one has no value. Every other value is YAML, and so is a list or `{...}` where the key may hold one.

    Raises:
        UserError: it is something else.
    """
    key, separator, value = override.partition("=")
    path = tuple(key.split("."))
    if not separator or not re.fullmatch(r"\w+(\.[\w-]+)*", key) or len(path) > MAX_DEPTH or len(key) > MAX_KEY:
        raise UserError(f"{shown(override)} is not an override; write key.sub=value, for example train.max_steps=100.")
    for parent in path[:-1]:
        if tree.get(parent) is None:  # also where all that a section says is commented out
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise UserError(f"{shown(override)}: `{parent}` holds a value, not further keys.")
    tree[path[-1]] = _value(value, shown(override), path, type_of)


def _value(text: str, source: str, path: KeyPath, type_of: TypeOf) -> Any:
    kind = type_of(path)
    if not kind.is_text or (kind.is_collection and text.lstrip().startswith(("[", "{"))):
        return parse_config(text, source, path, type_of)
    return None if kind.is_optional and text in ("", "null") else text
