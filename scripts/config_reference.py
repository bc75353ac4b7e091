"""Writes docs/reference.md: every key of a config with its type, default and meaning, as the schema has them.

python scripts/config_reference.py
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hfseg.config import OWNERS, RESERVED_TRAIN_KEYS, TRAIN_DEFAULTS, RunConfig

PAGE = Path(__file__).parent.parent / "docs" / "reference.md"
HEAD = """<!-- Generated from the schema in hfseg. Write it anew with: python scripts/config_reference.py -->

# Config keys

A config is a YAML file that says only what differs from these defaults. Any key can also be set on the command line,
such as `train.max_steps=100`: names, texts and paths as typed, everything else as in YAML; `null` takes a value back.
Unknown keys are errors that name the nearest right one. In Python, `hfseg.RunConfig.load(path, overrides)` reads a
config.
"""
TRAIN = """
What `transformers.TrainingArguments` takes, by the same names: its documentation describes them. Some of the defaults
are hfseg's own, and some keys may not be set, because the run sets them or because they would do nothing here.
"""
WORDS = {"boolean": "true or false", "string": "text", "object": "keys and values"}
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
Schema = Mapping[str, Any]


def config_reference() -> str:
    """The page as Markdown: a table for the top level, then one for each section."""
    schema = RunConfig.model_json_schema()
    fields: dict[str, Schema] = schema["properties"]
    sections = {name: section_of(field, schema) for name, field in fields.items()}
    plain = {name: field for name, field in fields.items() if sections[name] is None and name != "train"}
    parts = [HEAD, "## Top level\n", key_table({"properties": plain, "required": schema["required"]}, schema, "")]
    for name, section in sections.items():
        if section is not None:
            parts += [f"## {name}\n", section["description"] + "\n", key_table(section, schema, f"{name}.")]
        if name == "transforms":
            parts.append(f"The defaults for `model.type: fcn`: {fcn_transforms()}.\n")
        if name == "train":
            parts += train_section()
    return "\n".join(parts)


def section_of(field: Schema, schema: Schema) -> Schema | None:
    """The schema of the section that a key holds; None for a key that holds a value, or a value or a section."""
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return resolved(kinds[0], schema) if len(kinds) == 1 and "$ref" in kinds[0] else None


def resolved(field: Schema, schema: Schema) -> Schema:
    """What a reference stands for."""
    found: Schema = schema["$defs"][field["$ref"].rpartition("/")[2]]
    return found


def key_table(section: Schema, schema: Schema, prefix: str) -> str:
    """The keys of a section; `prefix` stands in front of them, such as `data.`."""
    return table(("key", "type", "default", "meaning"), key_rows(section, schema, prefix))


def key_rows(section: Schema, schema: Schema, prefix: str) -> Iterator[tuple[str, ...]]:
    """One row for each key of a section, and of the sections in it whose keys all have defaults."""
    for name, field in section["properties"].items():
        inner = section_of(field, schema)
        if inner is not None and "required" not in inner:
            yield from key_rows(inner, schema, f"{prefix}{name}.")
            continue
        default = "required" if name in section.get("required", ()) else f"`{plain_yaml(field['default'])}`"
        meaning = " ".join(field["description"].split())
        if prefix == "data." and name in OWNERS:
            meaning += f" Only for {listed(OWNERS[name])}."
        yield f"`{prefix}{name}`", type_words(field, schema), default, meaning


def type_words(field: Schema, schema: Schema) -> str:
    """What a key may hold, in words."""
    if "anyOf" in field:
        return " or ".join(type_words(kind, schema) for kind in field["anyOf"])
    if "$ref" in field:
        inner = resolved(field, schema)["properties"]
        keys = ", ".join(f"{key}: ..." for key in inner)
        return f"`{{{keys}}}` with {' and '.join(type_words(kind, schema) for kind in inner.values())}"
    if "enum" in field or "const" in field:
        return " or ".join(f"`{value}`" for value in field.get("enum", [field.get("const")]))
    if "prefixItems" in field:
        return f"[{', '.join(type_words(item, schema) for item in field['prefixItems'])}]"
    if field["type"] == "array":
        return f"list of {type_words(field['items'], schema)}"
    word = "path" if field.get("format") == "path" else WORDS.get(field["type"], field["type"])
    bounds = [f"{sign} {plain_yaml(field[key])}" for key, sign in BOUNDS.items() if key in field]
    return f"{word} {' and '.join(bounds)}".rstrip()


def train_section() -> Iterator[str]:
    """What is special about `train:`."""
    yield f"## train\n{TRAIN}"
    yield table(
        ("key", "default in hfseg"),
        ((f"`train.{key}`", f"`{plain_yaml(value)}`") for key, value in TRAIN_DEFAULTS.items()),
    )
    yield table(
        ("key that may not be set", "what to do"),
        ((f"`train.{key}`", remedy) for key, remedy in RESERVED_TRAIN_KEYS.items()),
    )


def fcn_transforms() -> str:
    """Where the augmentation's defaults for FCN are not those for the other models."""
    config = {"name": "a", "data": {"name": "synthetic_pet"}}
    recipe, fcn = (
        RunConfig.model_validate({**config, "model": {"type": kind}}).model_dump(mode="json")["transforms"]
        for kind in ("segformer", "fcn")
    )
    return ", ".join(f"`{key}: {plain_yaml(value)}`" for key, value in fcn.items() if value != recipe[key])


def plain_yaml(value: Any) -> str:
    """A value as it is written in a config; numbers with 4 digits."""
    if isinstance(value, list):
        return f"[{', '.join(plain_yaml(item) for item in value)}]"
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) and value else json.dumps(value)


def listed(words: Iterable[str]) -> str:
    """Words as code, with `and` between them."""
    return " and ".join(f"`{word}`" for word in words)


def table(head: tuple[str, ...], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown, with an empty line behind it."""
    lines = [head, ["---" for _ in head], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(config_reference(), encoding="utf-8")
