"""What a run has left in its folder, read back: with gaps where something is missing, never with an error."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfseg.files import parse_yaml, read_text
from hfseg.labels import LabelSet
from hfseg.metrics import SPLITS, Counts
from hfseg.runs.counts import COUNTS, load_arrays
from hfseg.runs.examples import Example, load_examples
from hfseg.training import read_history


@dataclass(frozen=True)
class RunResults:
    """What a run's folder holds; empty where a file is missing or damaged."""

    name: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    per_class: dict[str, list[dict[str, Any]]]
    provenance: dict[str, Any]
    check: dict[str, Any]  # of `--check`, if it was ever called for this run
    history: Sequence[Mapping[str, Any]]
    confusion: dict[str, Counts]  # by the metrics' prefix
    counts: dict[str, tuple[Sequence[str], Counts]]  # names and areas (N, 3, K) of the images, by the metrics' prefix
    examples: Sequence[Example]
    labels: LabelSet | None

    @classmethod
    def read(cls, run_dir: Path) -> "RunResults":
        """Reads what is there."""
        config = _read(run_dir / "run_config.yaml")
        if not all(isinstance(config.get(key), dict) for key in ("data", "model")):
            config = {}  # a torn YAML file is one with fewer keys
        confusion, counts = _read_counts(run_dir / COUNTS)
        examples, labels = _read_examples(run_dir / "examples.npz")
        return cls(
            name=config.get("name", run_dir.name),
            config=config,
            metrics=_numbers(_read(run_dir / "metrics.json"), words=("_class", "_name", "_error")),
            per_class=_class_rows(_read(run_dir / "per_class.json")),
            provenance=_making(_read(run_dir / "provenance.json")),
            check=_read(run_dir / "check" / "check.json"),
            history=_read_history(run_dir / "history.jsonl"),
            confusion=confusion,
            counts=counts,
            examples=examples,
            labels=labels,
        )


def _read(path: Path) -> dict[str, Any]:
    """A JSON or YAML file's tree; empty where the file is missing or torn."""
    try:
        text = read_text(path)
        tree = parse_yaml(text, str(path)) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, RecursionError):
        return {}
    return tree if isinstance(tree, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(tree: Mapping[str, Any], words: tuple[str, ...] = ()) -> dict[str, Any]:
    """Only numbers, None, and the texts under keys that end in one of `words`: a file may have been edited."""
    return {
        key: value
        for key, value in tree.items()
        if value is None or _is_number(value) or (isinstance(value, str) and words and key.endswith(words))
    }


def _class_rows(tree: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The splits of which every class has its name, its pixels, and scores that are numbers or None."""
    return {
        prefix: rows
        for prefix in SPLITS
        if isinstance(rows := tree.get(prefix), list)
        and all(isinstance(row, dict) and isinstance(row.get("name"), str) for row in rows)
        and all(_is_number(row.get("pixels")) and len(_numbers(row, ("name",))) == len(row) for row in rows)
    }


def _making(tree: dict[str, Any]) -> dict[str, Any]:
    """The provenance, if nothing of it is missing."""
    texts = all(isinstance(tree.get(key), str) for key in ("command", "hardware"))
    counts = tree.get("num_images", {})
    is_whole = texts and _is_number(tree.get("num_parameters")) and isinstance(tree.get("versions"), dict)
    is_whole = is_whole and isinstance(counts, dict) and all(map(_is_number, counts.values()))
    return tree if is_whole and (_is_number(tree.get("train_seconds")) or not tree.get("train_seconds")) else {}


def _read_counts(path: Path) -> tuple[dict[str, Counts], dict[str, tuple[Sequence[str], Counts]]]:
    """Confusion matrices, and names and areas of the images, by the metrics' prefix."""
    try:
        file = load_arrays(path)
        found = [prefix for prefix in SPLITS if f"{prefix}_confusion" in file]
        confusion = {prefix: file[f"{prefix}_confusion"] for prefix in found}
        return confusion, {prefix: (file[f"{prefix}_names"].tolist(), file[f"{prefix}_areas"]) for prefix in found}
    except (OSError, ValueError, KeyError):
        return {}, {}


def _read_examples(path: Path) -> tuple[Sequence[Example], LabelSet | None]:
    try:
        return load_examples(path)
    except (OSError, ValueError, KeyError):
        return [], None


def _read_history(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        return [_numbers(line) for line in read_history(path)]
    except (OSError, ValueError, AttributeError):
        return []
