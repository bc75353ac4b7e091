"""Config files as trees of plain values: YAML as people mean it, and overrides on the command line."""

import re
from pathlib import Path
from typing import Any

import yaml

from hfseg.errors import UserError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `6e-5` as a string and `no` as false; here they are what everyone means (YAML 1.2)."""


_BOOL = "tag:yaml.org,2002:bool"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_BOOL, re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, source: str) -> Any:
    """Raises UserError where it is no YAML; `source` names it."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML: {error}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The tree of a config file; raises UserError where it cannot be read, or is no tree."""
    if not path.is_file():
        raise UserError(f"There is no config file {path}. The ones that come with hfseg are in configs/.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as UTF-8 text: {error}") from error
    tree = parse_yaml(text, str(path))
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold keys and values at its top level, such as `name: my-run`.")
    try:
        return _without_aliases(tree)
    except RecursionError as error:
        raise UserError(f"{path} has an alias that holds itself.") from error


def _without_aliases(tree: Any) -> Any:
    """A copy in which `*name` is a value of its own: an override of one place must not change the others."""
    if isinstance(tree, dict):
        return {key: _without_aliases(value) for key, value in tree.items()}
    return [_without_aliases(value) for value in tree] if isinstance(tree, list) else tree


def apply_override(tree: dict[str, Any], override: str) -> None:
    """Sets `key.sub=value` in the tree; raises UserError for anything else."""
    key, separator, value = override.partition("=")
    if not separator or not re.fullmatch(r"\w+(\.[\w-]+)*", key):
        raise UserError(f"{override!r} is not an override; write key.sub=value, for example train.max_steps=100.")
    *parents, last = key.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise UserError(f"{override!r}: `{parent}` holds a value, not further keys.")
    tree[last] = parse_yaml(value, override)
