"""The one door for YAML, which may come with a downloaded model: plain values only, within limits, both ways.

A few hundred bytes of nested aliases can stand for gigabytes, so everything is counted as it would be with every alias
written out, before anything is made of it.
"""

import math
import re
from typing import Any, ClassVar

import yaml

from hfseg.errors import MAX_SHOWN, UserError, printable, shown
from hfseg.files.text import MAX_BYTES

MAX_NODES = 50_000  # keys and values, aliases written out
MAX_DEPTH = 50  # lists and mappings in one another
MAX_DIGITS = 100  # characters of a number: reading a longer one takes time that grows with the square
MAX_INTEGER = 1 << 63

TAG = "tag:yaml.org,2002:"
PLAIN = ("null", "bool", "int", "float", "str", "seq", "map")
# What a word without quotes is. YAML 1.1 reads `6e-5` as text, `no` as false, 1:30 as 90, 010 as 8 and 2024-13-45 as a
# date that does not exist; here they are what everyone means (YAML 1.2).
NUMBER = list("-+.0123456789")
FLOAT = r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN)"
WORDS = (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)", NUMBER),
    ("float", FLOAT, NUMBER),
    ("merge", r"<<", ["<"]),
)


class _Loader(yaml.SafeLoader):
    """Refuses what is not a plain value, keys that are given twice, and what is larger than the limits."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # the base class says so
    yaml_constructors: ClassVar[dict[str | None, Any]] = {
        tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in (None, *map(TAG.__add__, PLAIN))
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.num_nodes = 0
        self.depth = 0  # of the node that is being read
        self.deepest = 0  # of those below it
        self.extents: dict[yaml.Node, tuple[int, int]] = {}  # of a node that is read: its nodes, and levels below it

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        mark, is_alias = self.peek_event().start_mark, self.check_event(yaml.AliasEvent)
        before, outer = self.num_nodes, self.deepest
        self.depth = self.deepest = self.depth + 1
        _check(self.depth <= MAX_DEPTH, f"it has more than {MAX_DEPTH} levels", mark)
        node = super().compose_node(parent, index)
        assert node is not None
        if is_alias:
            _check(node in self.extents, "an alias holds itself", mark)
            self.num_nodes += self.extents[node][0]
            self.deepest += self.extents[node][1]
            _check(self.deepest <= MAX_DEPTH, f"it has more than {MAX_DEPTH} levels", mark)
        else:
            self.num_nodes += 1
            self.extents[node] = (self.num_nodes - before, self.deepest - self.depth)
        _check(self.num_nodes <= MAX_NODES, f"it has more than {MAX_NODES} keys and values", mark)
        self.depth, self.deepest = self.depth - 1, max(outer, self.deepest)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != f"{TAG}merge":
                _check(key.value not in seen, f"the key {shown(key.value)} is given twice", key.start_mark)
                seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode):
            is_number = node.tag in (f"{TAG}int", f"{TAG}float")
            _check(not is_number or len(node.value) <= MAX_DIGITS, "a number is too long", node.start_mark)
            _check("\0" not in node.value, "a text holds a zero byte", node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, OverflowError) as error:  # of tags that do not fit, such as `!!int ""`
            problem = f"{shown(node.value)} is no {node.tag.removeprefix(TAG)}"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
        is_huge = isinstance(value, int) and abs(value) >= MAX_INTEGER
        _check(not is_huge, "a whole number has more than 64 bits", node.start_mark)
        is_finite = not isinstance(value, float) or math.isfinite(value)  # JSON, as which runs are saved, has no other
        _check(is_finite, f"{shown(node.value)} is no finite number", node.start_mark)
        return value


class _Dumper(yaml.SafeDumper):
    """Quotes what other readers of YAML would take for something else, and what this one would."""


for _kind, _pattern, _first in WORDS:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(TAG + _kind, re.compile(f"(?:{_pattern})$"), _first)


def _check(holds: bool, problem: str, mark: yaml.Mark) -> None:
    if not holds:
        raise yaml.constructor.ConstructorError(None, None, problem, mark)


def compose(text: str, source: str) -> yaml.Node | None:
    """The nodes of a text, before they become values; None for an empty one.

    Args:
        text: YAML.
        source: what errors call it.

    Raises:
        UserError: it is no YAML, or larger than the limits.
    """
    if len(text) > MAX_BYTES:
        raise UserError(f"{source} has {len(text)} characters, more than the {MAX_BYTES} that are read.")
    try:
        return _Loader(text).get_single_node()
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML{_explain(error)}") from error


def construct(node: yaml.Node | None, source: str) -> Any:
    """The value of a node: dict, list, str, int, float, bool or None; raises UserError where it has none."""
    try:
        return None if node is None else _Loader("").construct_document(node)
    except yaml.YAMLError as error:
        raise UserError(f"{source} is not valid YAML{_explain(error)}") from error


def parse_yaml(text: str, source: str) -> Any:
    """The value of a text.

    Args:
        text: YAML.
        source: what errors call it.

    Raises:
        UserError: it is no YAML, holds other than plain values or a key twice, or is larger than the limits.
    """
    return construct(compose(text, source), source)


def dump_yaml(tree: Any) -> str:
    """YAML that `parse_yaml` reads as this tree, in its order."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _explain(error: yaml.YAMLError) -> str:
    """Where, and what, in one line: the library's own message repeats the text."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        problem = error.problem or error.context or "unreadable"
        return f", line {mark.line + 1}, column {mark.column + 1}: {printable(problem)[:MAX_SHOWN]}"
    return f": {shown(error)}"
