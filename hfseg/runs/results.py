"""What a run has left in its folder, read back and checked: for report, card, push, study and comparison."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from hfseg.config import RunConfig
from hfseg.errors import UserError
from hfseg.files import parse_yaml, read_text
from hfseg.html import html_table
from hfseg.labels import LabelSet
from hfseg.metrics import SPLITS, Counts, metric_name, score_keys, with_interval
from hfseg.runs.counts import COUNTS, KEYS, load_arrays
from hfseg.runs.examples import Example, load_examples
from hfseg.runs.private_paths import public_config
from hfseg.runs.provenance import Provenance
from hfseg.runs.schemas import Metrics, PerClass

CONFIG = "run_config.yaml"
FILES = {"config": CONFIG, **{part: f"{part}.json" for part in ("metrics", "per_class", "provenance")}}
REQUIRED = tuple(FILES.values())  # of a finished run
MISSING = "is missing"
UNREADABLE = (OSError, ValueError, KeyError, RecursionError)
T = TypeVar("T")


class RunResults(BaseModel):
    """What a run's folder holds. A part is empty where its file is missing or damaged.

    Attributes:
        folder: the run's, or one with copies of its files.
        config: the tree of `run_config.yaml`; `run_config` is the same checked.
        metrics: `metrics.json`: scores of validation as `eval_*` and of test as `test_*`, None where undefined.
        per_class: `per_class.json`: prefix of a split -> a row for each class, see `SegMetrics.per_class`.
        provenance: `provenance.json`, see `Provenance`.
        problems: name of one of these files -> what is wrong with it.
    """

    folder: Path
    config: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    per_class: dict[str, list[dict[str, Any]]] = {}
    provenance: dict[str, Any] = {}
    problems: dict[str, str] = {}

    @classmethod
    def read(cls, folder: Path) -> "RunResults":
        """Reads what is there; see `read_finished` for a run that must be whole."""
        parts: dict[str, Any] = {"problems": {}}
        for part, name in FILES.items():
            try:
                if (folder / name).is_file():
                    parts[part] = _read_config(folder / name) if part == "config" else _read_json(folder / name)
                else:
                    parts["problems"][name] = MISSING
            except UNREADABLE as error:
                parts["problems"][name] = _describe(error)
        return cls(folder=folder, **parts)

    @classmethod
    def read_finished(cls, folder: Path) -> "RunResults":
        """Reads a finished run, or copies of its files.

        Raises:
            UserError: its config, scores or provenance are missing or damaged; says which file and how.
        """
        run = cls.read(folder)
        missing = [name for name in REQUIRED if run.problems.get(name) == MISSING]
        if missing:
            raise UserError(
                f"{folder} is not the folder of a finished run: {', '.join(missing)} missing. Finish the run with "
                "--resume, or score its model with --eval-only."
            )
        try:
            _ = run.run_config
        except UserError as error:
            raise UserError(f"{folder / CONFIG} is torn, or of another version ({error}). Restore it.") from error
        for name, problem in run.problems.items():
            raise UserError(f"{folder / name} {problem}. Restore it, or write it anew with --eval-only.")
        return run

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        yield None, self.name
        yield "folder", str(self.folder)
        yield "test_mean_iou", with_interval(self.metrics, "test_mean_iou")
        if self.problems:
            yield "problems", self.problems

    def _repr_html_(self) -> str:
        rows = [
            [metric_name(key), *(with_interval(self.metrics, f"{prefix}_{key}") for prefix in ("eval", "test"))]
            for key in score_keys(self.metrics)
        ]
        rows += [[name, problem, ""] for name, problem in self.problems.items()]
        return html_table(f"{self.name} ({self.folder})", ["", "validation", "test"], rows)

    @property
    def name(self) -> str:
        return str(self.config.get("name", self.folder.name))

    @cached_property
    def run_config(self) -> RunConfig:
        """The config, checked.

        Raises:
            UserError: it is missing or damaged, or has keys that this version does not know.
        """
        return RunConfig.load(self.folder / CONFIG)

    @property
    def public_config(self) -> dict[str, Any]:
        """The config's tree without the paths of the machine that it was made on."""
        return public_config(self.config) if self.config else {}

    @property
    def best_step(self) -> int | None:
        """The step that validation chose; None where the weights are those of the last one."""
        is_chosen = self.run_config.train.get("load_best_model_at_end", True)
        return self.provenance.get("best_step") if is_chosen else None

    @cached_property
    def check(self) -> dict[str, Any]:
        """What `--check` has found, if it was ever called for this run."""
        return self._read_part("check/check.json", _read_tree, {})

    @cached_property
    def history(self) -> Sequence[Mapping[str, Any]]:
        """The numbers of each log of the training, from `history.jsonl`."""
        lines: list[dict[str, Any]] = self._read_part("history.jsonl", read_history, [])
        return [{key: value for key, value in line.items() if isinstance(value, int | float | None)} for line in lines]

    @cached_property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """`counts.npz`, see `write_counts`; of a split that could not be scored it has none."""
        return self._read_part(COUNTS, load_arrays, {})

    @property
    def examples(self) -> Sequence[Example]:
        """Images of the validation split, from `examples.npz`."""
        return self._examples[0]

    @property
    def labels(self) -> LabelSet | None:
        """Classes and colours of the examples."""
        return self._examples[1]

    @cached_property
    def _examples(self) -> tuple[list[Example], LabelSet | None]:
        none: tuple[list[Example], LabelSet | None] = ([], None)
        return self._read_part("examples.npz", load_examples, none)

    def _read_part(self, name: str, read: Callable[[Path], T], empty: T) -> T:
        try:
            return read(self.folder / name)
        except UNREADABLE:
            return empty

    def require_counts(self) -> dict[str, NDArray[Any]]:
        """`counts.npz` of both splits.

        Raises:
            UserError: it is missing or damaged, or has not both splits.
        """
        path = self.folder / COUNTS
        try:
            counts = load_arrays(path)
        except FileNotFoundError:
            raise UserError(f"{path} is missing: is this the folder of a run? --eval-only writes it.") from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path} cannot be read ({error}). Write it anew with --eval-only.") from error
        missing = sorted({"classes", *(f"{split}_{key}" for split in SPLITS for key in KEYS)} - counts.keys())
        if missing:
            raise UserError(f"{path} has no {', '.join(missing)}: it is no run's. Write it anew with --eval-only.")
        return counts

    @property
    def confusion(self) -> dict[str, Counts]:
        """Confusion matrices (K, K) by the metrics' prefix."""
        keys = {prefix: f"{prefix}_confusion" for prefix in SPLITS}
        return {prefix: self.arrays[key] for prefix, key in keys.items() if key in self.arrays}

    def num_images(self, prefix: str) -> int | None:
        """How many images of a split were scored; None where no file says it.

        Of runs that did not write it down yet, it follows from time and rate unless their rounding hides it.
        """
        known = self.provenance.get("num_images", {}).get(SPLITS[prefix])
        count = self.metrics.get(f"{prefix}_num_images", known)
        if count is not None:
            return int(count)
        seconds, rate = (self.metrics.get(f"{prefix}_{key}") for key in ("runtime", "samples_per_second"))
        if not seconds or not rate:
            return None
        doubt = seconds * rate * (5e-5 / seconds + 5e-4 / rate)  # they have 4 and 3 decimals
        return round(seconds * rate) if doubt < 0.4 else None

    def figure(self, name: str) -> str | None:
        """The relative path of a figure, in the run's `figures` or beside the card; None where it is missing."""
        return next((path for path in (f"figures/{name}", name) if (self.folder / path).is_file()), None)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a `history.jsonl`, without one that a kill has torn; none where there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]


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


def _read_json(path: Path) -> dict[str, Any]:
    schemas: dict[str, type[BaseModel]] = {"metrics": Metrics, "per_class": PerClass, "provenance": Provenance}
    tree = json.loads(path.read_bytes(), parse_constant=_refuse)
    return schemas[path.stem].model_validate(tree).model_dump(exclude_unset=True)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def _describe(error: Exception) -> str:
    if isinstance(error, ValidationError):
        found = (f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        return f"is not as a run writes it ({'; '.join(found)})"
    return f"is torn ({error})"
