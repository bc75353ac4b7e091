"""What a run has left in its folder, read back: with gaps where something is missing, never with an error."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hfseg.callbacks import read_history
from hfseg.counts import COUNTS, load_arrays
from hfseg.examples import load_examples
from hfseg.figures import Example
from hfseg.labels import LabelSet
from hfseg.scores import Counts

SPLITS = {"test": "test", "eval": "validation"}  # prefix of the metrics -> what people call it


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
            metrics=_read(run_dir / "metrics.json"),
            per_class=_read(run_dir / "per_class.json"),
            provenance=_read(run_dir / "provenance.json"),
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
        text = path.read_text()
        tree = yaml.safe_load(text) if path.suffix == ".yaml" else json.loads(text)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return tree if isinstance(tree, dict) else {}


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
        return read_history(path)
    except (OSError, ValueError):
        return []
