"""What is typed for a key that holds text is that text, in an override and in a file."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from hfseg import RunConfig, UserError
from hfseg.config import type_of

BASE = {
    "hub": "name: a-run\ndata: {name: hub, repo: me/set}\n",
    "folder": "name: a-run\ndata: {name: folder}\n",
}
# Text keys of every kind that take any text, with the data set that they are for.
KEYS = {
    "output_dir": "hub", "data.root": "folder", "data.note": "hub", "data.revision": "hub", "data.subset": "hub",
    "data.image_column": "hub", "model.init": "hub", "hub.repo": "hub", "hub.revision": "hub", "train.run_name": "hub",
    "train.optim_args": "hub", "data.classes": "folder", "data.mask_suffix": "folder",
}  # fmt: skip
TEXTS = (
    "run #2", "a: b", "2024", "-1", "1e5", "7e10", "0x1f", "010", "1_000", "2024-13-45", "on", "no", "true", "x y",
    "'q'", '"q', "*a", "&a", "!!int", "%", "@", "- x", "? x", "|", ", ", "a\tb", "é", "None", "~x", ".nan", "<<", "=",
)  # fmt: skip


def value_of(config: RunConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = value[part] if isinstance(value, dict) else getattr(value, part)
    return value


def load(tmp_path: Path, text: str, *overrides: str) -> RunConfig:
    (tmp_path / "run.yaml").write_text(text)
    return RunConfig.load(tmp_path / "run.yaml", overrides)


@pytest.mark.parametrize("key", KEYS)
def test_an_override_is_taken_as_typed(tmp_path: Path, key: str) -> None:
    for text in TEXTS:
        config = load(tmp_path, BASE[KEYS[key]], f"{key}={text}")
        assert str(value_of(config, key)) == text
        config.save(tmp_path / "saved.yaml")
        assert RunConfig.load(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", ["2024", "1e5", "010", "true", "2024-13-45", "1:30"])
def test_a_file_needs_no_quotes_for_what_looks_like_a_number(tmp_path: Path, key: str, text: str) -> None:
    section, _, last = key.rpartition(".")
    lines = BASE[KEYS[key]]
    lines = lines.replace("}", f", {last}: {text}}}") if section == "data" else f"{lines}{section or last}: "
    lines += "" if section == "data" else f"{{{last}: {text}}}" if section else text
    assert str(value_of(load(tmp_path, lines), key)) == text


@pytest.mark.parametrize("text", ["null", ""])
def test_null_takes_an_optional_value_back(tmp_path: Path, text: str) -> None:
    lines = BASE["folder"].replace("}", ", root: x, note: y, classes: z}") + "model: {init: w}\n"
    changes = [f"{key}={text}" for key in ("data.root", "data.note", "data.classes", "model.init", "hub.repo")]
    config = load(tmp_path, lines, *changes)
    assert [value_of(config, change.split("=")[0]) for change in changes] == [None] * 5


def test_words_and_numbers_beside_text(tmp_path: Path) -> None:
    config = load(
        tmp_path, BASE["folder"], "name=2024", "seed=7", "data.reduce_labels=true", "eval.mode=whole",
        "train.max_steps=3", "model.freeze={stages: 2}", "train.report_to=[tensorboard]",
        "train.lr_scheduler_kwargs={power: 0.9}", "train.logging_strategy=no", "transforms.scale=null",
    )  # fmt: skip
    assert (config.name, config.seed, config.output_dir) == ("2024", 7, Path("runs/2024"))
    assert config.model.num_frozen_stages == 2
    assert config.train == {"max_steps": 3, "report_to": ["tensorboard"], "lr_scheduler_kwargs": {"power": 0.9},
                            "logging_strategy": "no"}  # fmt: skip
    assert config.transforms.scale is None


@pytest.mark.parametrize(
    ("given", "value"),
    [("[sky, 1, no, true, 1e5]", ("sky", "1", "no", "true", "1e5")), ("[a #1, 'b: c']", None),
     ("names.txt", Path("names.txt")), ("123", Path("123")), ("a #1.txt", Path("a #1.txt"))],
)  # fmt: skip
def test_classes_are_a_file_or_names(tmp_path: Path, given: str, value: Any) -> None:
    if value is None:  # in a list it is YAML, with its quotes and comments
        with pytest.raises(UserError, match="not valid YAML"):
            load(tmp_path, BASE["folder"], f"data.classes={given}")
        return
    config = load(tmp_path, BASE["folder"], f"data.classes={given}")
    assert config.data.classes == value
    config.save(tmp_path / "saved.yaml")
    assert RunConfig.load(tmp_path / "saved.yaml") == config


@pytest.mark.parametrize("given", ["[]", "[[a]]", "[null]", "{a: b}"])
def test_classes_that_are_neither(tmp_path: Path, given: str) -> None:
    with pytest.raises(UserError, match=r"1 problem\(s\).*\n  data\.classes: must be a file, or a list of names"):
        load(tmp_path, BASE["folder"], f"data.classes={given}")


def test_in_the_runs_of_a_study_too(tmp_path: Path) -> None:
    lines = (
        f"{BASE['folder']}study: {{pretrain: {{1: {{data: {{name: folder, root: 010}}}}}}, arms: {{2024: {{}}}}}}\n"
    )
    study = load(tmp_path, lines, "study.arms.2024.data.note=a #1", "study.arms.2024.seeds=[3]").study
    assert study is not None
    assert study.arms == {"2024": {"data": {"note": "a #1"}, "seeds": [3]}}
    assert study.pretrain == {"1": {"data": {"name": "folder", "root": "010"}}}


def test_the_schema_decides() -> None:
    texts = [type_of(tuple(key.split("."))) for key in KEYS]
    assert all(kind.is_text for kind in texts)
    for key in ("seed", "data", "data.cache", "model.unfreeze_at", "train", "train.max_steps", "train.bf16",
                "nonsense.key", "train.lr_scheduler_kwargs.power", "transforms.scale",
                "train.include_num_input_tokens_seen"):  # fmt: skip
        assert not type_of(tuple(key.split("."))).is_text, key
    optional = [key for key, kind in zip(KEYS, texts, strict=True) if not kind.is_optional]
    assert optional == ["output_dir", "data.image_column", "data.mask_suffix"]


def test_an_output_dir_is_some_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="output_dir: must not be empty"):
        load(tmp_path, BASE["folder"], "output_dir=")  # of `output_dir=$UNSET`
    assert load(tmp_path, BASE["folder"], "output_dir=~/runs/a").output_dir == tmp_path / "runs/a"


def test_a_section_whose_lines_are_commented_out(tmp_path: Path) -> None:
    config = load(tmp_path, f"{BASE['folder']}train:\n  # max_steps: 3\n", "train.max_steps=4")
    assert config.train == {"max_steps": 4}


@pytest.mark.parametrize("key", ["", ".", "a..b", "a b", "-", "x" * 200, ".".join(itertools.repeat("a", 60))])
def test_what_is_no_key(tmp_path: Path, key: str) -> None:
    with pytest.raises(UserError, match="is not an override"):
        load(tmp_path, BASE["folder"], f"{key}=1")
