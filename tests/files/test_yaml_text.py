"""The door for YAML: whatever a text holds, it is a value or a UserError, soon and within little memory."""

import os
import random
import re
import time
from pathlib import Path
from typing import Any

import pytest

from hfseg import RunConfig, UserError
from hfseg.files import dump_yaml, parse_yaml, read_text
from hfseg.files.text import MAX_BYTES
from hfseg.files.yaml_text import MAX_NODES
from tests.conftest import REPOSITORY

CONFIG = """\
name: a-run
data: &data {name: synthetic_pet, root: ~/x, note: 'it''s', synthetic: {num_trainval: 16, size: 64}}
transforms: {size: 64, scale: [0.5, 2.0]}  # a comment
loss: {class_weights: [1, .5, 1e-3]}
train: &train
  max_steps: 3
  learning_rate: 6.0e-5
  lr_scheduler_kwargs: {power: 0.9}
hub: {repo: null, private: true}
"""
# What YAML has beside plain values, and what makes Python's own readers stumble.
PIECES = (
    "*train", "&train", "<<: *data", "? ", "!!int ''", "!!float x", "!!bool x", "!!binary é", "!!set {a, b}",
    "!!omap [a]", "!!timestamp 2024-13-45", "2024-13-45", "!!python/object:os.system x", "!x", "0b_", "0x", "1:2:3",
    "9" * 5000, "1e999", "~", "{", "}", "[", "]", "[" * 60, ": ", "- ", "\t", "\n", "\n---\n", "...", "%YAML 9.9\n",
    "|", ">", "'", '"', '"\\0"', '"\\ud800"', "\0", "\ufeff", "\x85", "é", "\U0001d4b3", "true", "null", "no", "=",
    "#", "-0", "+.inf", ".nan", "@", "`", "\r",
)  # fmt: skip


def nested_aliases(levels: int = 9) -> str:
    """A thousand million words in a few hundred bytes."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (nested_aliases(), f"more than {MAX_NODES} keys and values"),
        ("\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 400))]), "more than 50 levels"),
        ("a: &a\n  b: &b {<<: [*a]}", "an alias holds itself"),
        ("[" * 100_000, "more than 50 levels"),
        ("- " * 400, "more than 50 levels"),
        ("a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' is given twice"),
        ("a: !!int ''", "'' is no int"),
        ("a: !!bool x", "'x' is no bool"),
        ("a: !!timestamp 2024-13-45", "could not determine a constructor"),
        ("a: !!set {x, y}", "could not determine a constructor"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        ("a: " + "9" * 5000, "a number is too long"),
        ("a: " + "9" * 30, "more than 64 bits"),
        ("a: 1e999", "'1e999' is no finite number"),
        ('a: "\\0"', "a text holds a zero byte"),
        ("? [a]\n: b", "unhashable key"),
        ("a:\tb", "cannot start any token"),
        ("a: *b", "undefined alias"),
        ("a: \0", "unacceptable character"),
        ("x" * (MAX_BYTES + 1), "more than the 1048576 that are read"),
    ],
    ids=lambda value: value[:20].encode("unicode_escape").decode() if isinstance(value, str) else None,
)
def test_what_is_no_plain_tree_is_refused_where_it_stands(text: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(UserError, match=re.escape(said)) as error:
        parse_yaml(text, "the text")
    assert str(error.value).startswith("the text")
    assert len(str(error.value)) < 500
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [("6e-5", 6e-5), ("1_000", 1000), ("-3", -3), ("+.5", 0.5), ("~", None), ("", None), ("TRUE", True), ("no", "no"),
     ("on", "on"), ("1:30", "1:30"), ("010", "010"), ("2024-01-02", "2024-01-02"), ("0x1f", "0x1f"),
     ("trueish", "trueish"), ("=", "="), ("1e5x", "1e5x"), ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
     ("{1: a}", {1: "a"}), ("- &x {a: 1}\n- {<<: *x, b: 2}", [{"a": 1}, {"a": 1, "b": 2}])],
)  # fmt: skip
def test_words_are_what_everyone_means(text: str, value: Any) -> None:
    read = parse_yaml(text, "the text")
    assert read == value
    assert type(read) is type(value)


def test_what_is_written_is_read_again() -> None:
    words = [
        *PIECES,
        "7e10",
        "1e5",
        "6e-5",
        "010",
        "0o17",
        "1_000",
        "1:30",
        "yes",
        "off",
        "",
        " a ",
        "a #b",
        "a: b",
        "<<",
    ]
    tree = {"words": [word for word in words if word.isprintable()], "keys": {"no": 1, "2024": 2, "1e5": None}}
    assert parse_yaml(dump_yaml(tree), "the text") == tree


def mutated(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 2)):
        words = list(re.finditer(r"[\w.~/-]+", text))
        if words and rng.random() < 0.5:  # a value or a key as a whole, which leaves more of it YAML
            word = rng.choice(words)
            text = text[: word.start()] + rng.choice(PIECES) + text[word.end() :]
            continue
        where = rng.randrange(len(text) + 1)
        what = rng.choice(PIECES) if rng.random() < 0.4 else chr(rng.randrange(32, 127))
        text = text[:where] + what + text[where + rng.choice((0, 0, 1, 5)) :]
    return text


def test_a_mutated_config_is_a_config_or_an_error(tmp_path: Path) -> None:
    """Also through overrides, which come from a command line."""
    rng, path, num_configs = random.Random(0), tmp_path / "run.yaml", 0
    for number in range(1000):
        path.write_bytes(mutated(CONFIG, rng).encode("utf-8", "surrogatepass"))
        line = mutated(rng.choice(("train.max_steps=3", "name=a", "data.root=a", "loss={dice: 1}", "seed=1")), rng)
        try:
            config = RunConfig.load(path, [line] if number % 4 == 0 else [])
        except UserError:
            continue
        num_configs += 1
        saved = parse_yaml(dump_yaml(config.model_dump(mode="json")), "the saved config")
        assert RunConfig.from_tree(saved, "the saved config") == config
    assert 30 < num_configs < 950


def test_only_regular_files_of_little_text_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "large").write_bytes(b"a" * (MAX_BYTES + 1))
    (tmp_path / "latin").write_bytes(b"name: caf\xe9")
    (tmp_path / "utf16").write_text("name: a", encoding="utf-16-le")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    for name, said in {
        ".": "is a folder", "pipe": "no regular file", "/dev/zero": "no regular file", "nowhere": "no config file",
        "dangling": "no config file", "large": "more than the 1048576 bytes", "latin": "UTF-8",
        "utf16": "null characters", "x" * 5000: "no config file",
    }.items():  # fmt: skip
        with pytest.raises(UserError, match=said):
            RunConfig.load(tmp_path / name)
    (tmp_path / "marked").write_bytes(b"\xef\xbb\xbfname: a\r\ndata: {name: synthetic_pet}\r\n")
    assert RunConfig.load(tmp_path / "marked").name == "a"
    assert read_text(tmp_path / "marked").startswith("name")


def test_there_is_no_other_door() -> None:
    sources = [path for folder in ("hfseg", "scripts") for path in (REPOSITORY / folder).rglob("*.py")]
    others = [
        path.name for path in sources if re.search(r"yaml\.(safe_|full_|unsafe_)?(load|dump)\b", path.read_text())
    ]
    assert others == ["yaml_text.py"]
