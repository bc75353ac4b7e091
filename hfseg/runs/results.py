"""What a run has left in its folder, read back and checked: for the report, the card, a study and the Hub."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError, model_validator

from hfseg.config import RunConfig
from hfseg.errors import UserError
from hfseg.files import parse_yaml, read_text
from hfseg.labels import LabelSet
from hfseg.metrics import SPLITS, Counts
from hfseg.runs.counts import COUNTS, KEYS, load_arrays
from hfseg.runs.examples import Example, load_examples
from hfseg.runs.provenance import Provenance

CONFIG = "run_config.yaml"
REQUIRED = (CONFIG, "metrics.json", "per_class.json", "provenance.json")  # of a finished run
MISSING = "is missing"
Number = int | FiniteFloat | None
T = TypeVar("T")


class Metrics(BaseModel):
    """metrics.json: the scores that every run has, and whatever else it has measured."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Number]
    eval_mean_iou: Number
    eval_mean_accuracy: Number
    eval_pixel_accuracy: Number
    test_mean_iou: Number
    test_mean_accuracy: Number
    test_pixel_accuracy: Number
    eval_constant_class: str | None = None
    test_constant_class: str | None = None
    eval_worst_image_name: str | None = None
    test_worst_image_name: str | None = None
    eval_error: str | None = None
    test_error: str | None = None


class ClassRow(BaseModel):
    """One class of one split, as `SegMetrics.per_class` has it."""

    name: str
    iou: Number
    accuracy: Number
    dice: Number = None
    precision: Number = None
    recall: Number = None
    boundary_iou: Number = None
    pixels: int


class PerClass(BaseModel):
    """per_class.json."""

    eval: list[ClassRow]
    test: list[ClassRow]

    @model_validator(mode="after")
    def _has_the_same_classes(self) -> "PerClass":
        if not self.test or [row.name for row in self.eval] != [row.name for row in self.test]:
            raise ValueError("it does not list the same classes for eval and test")
        return self


@dataclass(frozen=True)
class RunResults:
    """What a run's folder holds. A part is empty where its file is missing or damaged: `problems` says which and how.

    Attributes:
        folder: the run's, or one with copies of its files.
        name: the run's.
        config: the tree of `run_config.yaml`; `run_config` is the same checked.
        metrics: `metrics.json`: scores of validation as `eval_*` and of test as `test_*`, None where undefined.
        per_class: `per_class.json`: prefix of a split -> a row for each class, see `SegMetrics.per_class`.
        provenance: `provenance.json`, see `Provenance`.
        check: what `--check` has found, if it was ever called for this run.
        history: `history.jsonl`: numbers of each log of the training.
        arrays: `counts.npz`, see `write_counts`.
        examples: images of the validation split, from `examples.npz`.
        labels: their classes and colours.
        problems: file -> what is wrong with it.
    """

    folder: Path
    name: str
    config: dict[str, Any]
    metrics: dict[str, Any]
    per_class: dict[str, list[dict[str, Any]]]
    provenance: dict[str, Any]
    check: dict[str, Any]
    history: Sequence[Mapping[str, Any]]
    arrays: dict[str, NDArray[Any]]
    examples: Sequence[Example]
    labels: LabelSet | None
    problems: dict[str, str]

    @classmethod
    def read(cls, run_dir: Path) -> "RunResults":
        """Reads what is there; see `require_finished` for a run that must be whole."""
        problems: dict[str, str] = {}

        def read(name: str, parse: Callable[[Path], T], empty: T) -> T:
            try:
                if (run_dir / name).is_file():
                    return parse(run_dir / name)
                problems[name] = MISSING
            except (OSError, ValueError, KeyError, RecursionError) as error:
                problems[name] = _describe(error)
            return empty

        config: dict[str, Any] = read(CONFIG, _read_config, {})
        no_examples: tuple[list[Example], LabelSet | None] = ([], None)
        examples, labels = read("examples.npz", load_examples, no_examples)
        return cls(
            folder=run_dir,
            name=str(config.get("name", run_dir.name)),
            config=config,
            metrics=read("metrics.json", lambda path: _read_json(path, Metrics), {}),
            per_class=read("per_class.json", lambda path: _read_json(path, PerClass), {}),
            provenance=read("provenance.json", lambda path: _read_json(path, Provenance), {}),
            check=read("check/check.json", _read_tree, {}),
            history=read("history.jsonl", _read_numbers, []),
            arrays=read(COUNTS, load_arrays, {}),
            examples=examples,
            labels=labels,
            problems=problems,
        )

    def require_finished(self) -> None:
        """Raises UserError where the config, the scores or the provenance are missing or damaged."""
        missing = [name for name in REQUIRED if self.problems.get(name) == MISSING]
        if missing:
            raise UserError(
                f"{self.folder} is not the folder of a finished run: {', '.join(missing)} missing. Finish the run "
                "with --resume, or score its model with --eval-only."
            )
        for name in REQUIRED:
            if name in self.problems:
                raise UserError(f"{self.folder / name} {self.problems[name]}. Restore it, or score with --eval-only.")

    @property
    def run_config(self) -> RunConfig:
        """The config, checked.

        Raises:
            UserError: it is missing or damaged, or has keys that this version does not know.
        """
        return RunConfig.load(self.folder / CONFIG)

    @property
    def confusion(self) -> dict[str, Counts]:
        """Confusion matrices (K, K) by the metrics' prefix."""
        return {prefix: self.arrays[f"{prefix}_confusion"] for prefix in self._counted}

    @property
    def counts(self) -> dict[str, tuple[Sequence[str], Counts]]:
        """Names and areas (N, 3, K) of the images, by the metrics' prefix."""
        return {
            prefix: (self.arrays[f"{prefix}_names"].tolist(), self.arrays[f"{prefix}_areas"])
            for prefix in self._counted
        }

    @property
    def _counted(self) -> list[str]:
        return [prefix for prefix in SPLITS if all(f"{prefix}_{key}" in self.arrays for key in KEYS)]

    def num_images(self, prefix: str) -> int | None:
        """How many images of a split were scored; None where no file says it."""
        known = self.provenance.get("num_images", {}).get(SPLITS[prefix])
        count = self.metrics.get(f"{prefix}_num_images", known)
        return None if count is None else int(count)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a `history.jsonl`, without one that a kill has torn; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


def _read_numbers(path: Path) -> list[dict[str, Any]]:
    lines = read_history(path)
    return [{key: value for key, value in line.items() if isinstance(value, int | float | None)} for line in lines]


def _read_config(path: Path) -> dict[str, Any]:
    tree = parse_yaml(read_text(path), path.name)
    if not isinstance(tree, dict) or not all(isinstance(tree.get(key), dict) for key in ("data", "model")):
        raise ValueError("`data` or `model` is missing")  # a torn YAML file is one with fewer keys
    return tree


def _read_tree(path: Path) -> dict[str, Any]:
    tree = json.loads(path.read_bytes(), parse_constant=_refuse)
    if not isinstance(tree, dict):
        raise ValueError("no JSON object")
    return tree


def _read_json(path: Path, schema: type[BaseModel]) -> dict[str, Any]:
    tree = json.loads(path.read_bytes(), parse_constant=_refuse)
    return schema.model_validate(tree).model_dump(exclude_unset=True)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        return f"is not as a run writes it ({'; '.join(found)})"
    return f"is torn ({error})"
