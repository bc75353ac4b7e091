"""What a card is written from: the files of a run, read and checked."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from hfseg.config import RunConfig
from hfseg.errors import UserError
from hfseg.files import parse_yaml, read_text
from hfseg.runs.origins import DATA_SETS, DataSet, public_init

FILES = ("run_config.yaml", "metrics.json", "per_class.json", "provenance.json")
FOREIGN = ("/", "~", "..")  # how a path starts that means nothing on another machine
T = TypeVar("T")


class _File(BaseModel):
    model_config = ConfigDict(extra="allow", allow_inf_nan=False)


class Scores(_File):
    """The keys of metrics.json that every card needs; the others are kept as they are."""

    eval_mean_iou: float | None
    eval_mean_accuracy: float | None
    eval_pixel_accuracy: float | None
    test_mean_iou: float | None
    test_mean_accuracy: float | None
    test_pixel_accuracy: float | None


class ClassRow(_File):
    """One class of one split, in per_class.json."""

    name: str
    iou: float | None
    accuracy: float | None
    pixels: int
    boundary_iou: float | None = None


class PerClass(_File):
    """per_class.json: the same classes on both splits."""

    eval: list[ClassRow]
    test: list[ClassRow]


class Origin(_File):
    """provenance.json. `steps` is None where nothing was trained."""

    command: str
    hardware: str
    num_parameters: int
    versions: dict[str, str]
    train_seconds: float | None = None
    resumed_from: str | None = None
    steps: int | None = None
    best_step: int | None = None


@dataclass(frozen=True)
class Facts:
    """A run's files.

    Attributes:
        folder: where they lie.
        config: of the run.
        shown: the config as it was saved, without this machine's paths.
        metrics: metrics.json.
        per_class: per_class.json.
        origin: provenance.json.
        repo: the Hub repository that the card is for, if any.
    """

    folder: Path
    config: RunConfig
    shown: dict[str, Any]
    metrics: dict[str, Any]
    per_class: PerClass
    origin: Origin
    repo: str | None = None

    @property
    def data_set(self) -> DataSet:
        return DATA_SETS[self.config.data.name]

    @property
    def model_id(self) -> str:
        """What `from_pretrained` takes: the repository, or the folder that the run wrote."""
        return self.repo or f"{self.shown['output_dir']}/model"

    @property
    def best_step(self) -> int | None:
        """The step that validation chose; None where the weights are those of the last one."""
        return self.origin.best_step if self.config.train.get("load_best_model_at_end", True) else None

    def picture(self, name: str) -> str | None:
        """The relative path of a figure, in the run's `figures` or beside the card; None where it is missing."""
        return next((path for path in (f"figures/{name}", name) if (self.folder / path).is_file()), None)

    def num_images(self, prefix: str) -> int | None:
        """How many images were scored; of older runs by time and rate, and None where their rounding hides it."""
        if is_number(self.metrics.get(f"{prefix}_num_images")):
            return int(self.metrics[f"{prefix}_num_images"])
        seconds, rate = (self.metrics.get(f"{prefix}_{key}") for key in ("runtime", "samples_per_second"))
        if not seconds or not rate:
            return None
        doubt = seconds * rate * (5e-5 / seconds + 5e-4 / rate)  # they have 4 and 3 decimals
        return round(seconds * rate) if doubt < 0.4 else None


def read_facts(folder: Path, repo: str | None = None) -> Facts:
    """Reads the files of a finished run, or their copies.

    Raises:
        UserError: one is missing, torn, or lacks a key; the message names them.
    """
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not the folder of a finished run: {', '.join(missing)} missing. Finish the run with "
            "--resume, or score its model with --eval-only."
        )
    per_class = _read(folder / "per_class.json", TypeAdapter(PerClass))
    if not per_class.test or [row.name for row in per_class.eval] != [row.name for row in per_class.test]:
        raise UserError(f"{folder}/per_class.json does not list the same classes for eval and test. {REMEDY}")
    config = RunConfig.load(folder / "run_config.yaml")
    return Facts(
        folder=folder,
        config=config,
        shown=public_config(parse_yaml(read_text(folder / "run_config.yaml"), "run_config.yaml")),
        metrics=_read(folder / "metrics.json", TypeAdapter(Scores)).model_dump(),
        per_class=per_class,
        origin=_read(folder / "provenance.json", TypeAdapter(Origin)),
        repo=repo or config.hub.repo,
    )


REMEDY = "Write it anew with --eval-only."


def _read(path: Path, adapter: TypeAdapter[T]) -> T:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
        return adapter.validate_python(tree)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()[:5])
        raise UserError(f"{path} is not as a run writes it ({problems}). {REMEDY}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is torn ({error}). {REMEDY}") from error


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not JSON")


def public_config(tree: dict[str, Any]) -> dict[str, Any]:
    """A saved config without the paths of the machine that it was made on.

    `data.root` becomes `<root>`; absolute paths elsewhere become their last part; a local `model.init` starts with
    `./`. The result still loads as a RunConfig.
    """
    public = _without_paths(tree)
    if tree["data"].get("root"):
        public["data"]["root"] = "<root>"
    if tree.get("model", {}).get("init"):
        public["model"]["init"] = public_init(tree["model"]["init"])
    return public


def _without_paths(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_paths(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_without_paths(child) for child in value]
    return Path(value).name if isinstance(value, str) and value.startswith(FOREIGN) else value


def is_number(value: Any) -> bool:
    """Whether a card can show it as a score."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
