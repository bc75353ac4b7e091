"""Figures of runs as a notebook asks for them: by folder, or of what has just been counted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from matplotlib.figure import Figure

from hfseg.errors import UserError, shown
from hfseg.metrics import SPLITS, SegMetrics
from hfseg.models import nearest_model
from hfseg.reporting.charts import plot_class_bars, plot_learning_curves, plot_matrix
from hfseg.runs import CONFIG, REQUIRED, RunResults

Run = str | Path | RunResults
Split = Literal["eval", "test"]
Rows = Sequence[Mapping[str, Any]]


def plot_curves(*runs: Run | Rows) -> Figure:
    """Draws loss and mean IoU of training and validation against the optimizer's step.

    Args:
        runs: folders of runs, finished or not, or the `state.log_history` of Trainers.

    Raises:
        UserError: no run, or a folder that is none.
    """
    found = _read(runs)
    return plot_learning_curves(
        _by_name([run.history if isinstance(run, RunResults) else run for run in found], found)
    )


def plot_classes(*runs: Run | SegMetrics, split: Split = "test") -> Figure:
    """Draws the IoU of each class as bars, side by side for several runs.

    Args:
        runs: folders of finished runs, or SegMetrics, over the same classes.
        split: of folders: `test`, or `eval` for validation.

    Raises:
        UserError: no run, a folder that has no scores of that split, or other classes in some of them.
    """
    found = _read(runs)
    rows = [run.per_class() if isinstance(run, SegMetrics) else _class_rows(run, split) for run in found]
    classes = [[row["name"] for row in each] for each in rows]
    for other in classes:
        if other != classes[0]:
            raise UserError(f"Bars side by side need the same classes; got {shown(classes[0])} and {shown(other)}.")
    return plot_class_bars(_by_name(rows, found))


def plot_confusion(run: Run | SegMetrics, split: Split = "test") -> Figure:
    """Draws where the labelled pixels of each class went, in % of its row.

    Args:
        run: the folder of a finished run, or SegMetrics.
        split: of a folder: `test`, or `eval` for validation.

    Raises:
        UserError: a folder that has no counts of that split.
    """
    if isinstance(run, SegMetrics):
        return plot_matrix(run.confusion, run.labels.names)
    (found,) = _read([run])
    names = [row["name"] for row in _class_rows(found, split)]
    if split not in found.confusion:
        raise UserError(f"{found.folder} has no counts.npz with the {SPLITS[split]} split: --eval-only writes it.")
    return plot_matrix(found.confusion[split], names)


def _read(runs: Sequence[Any]) -> list[Any]:
    """The runs, with folders read."""
    if not runs:
        raise UserError("There is no run to draw. Give the folder of one, such as 'runs/quickstart'.")
    return [_read_folder(Path(run).expanduser()) if isinstance(run, str | Path) else run for run in runs]


def _read_folder(folder: Path) -> RunResults:
    if not (folder / CONFIG).is_file():
        raise UserError(f"{folder} is not the folder of a run: there is no {CONFIG} in it.{nearest_model(folder)}")
    return RunResults.read(folder)


def _class_rows(run: RunResults, split: Split) -> list[dict[str, Any]]:
    if split not in SPLITS:
        raise UserError(f"split={split!r}: a run's splits are 'eval' (validation) and 'test'.")
    if not run.per_class.get(split):
        found = [f"{name} {run.problems[name]}" for name in REQUIRED if name in run.problems]
        why = "; ".join(found) or run.metrics.get(f"{split}_error", "it was not scored")
        raise UserError(f"{run.folder} has no scores of the {SPLITS[split]} split: {why}. Finish the run.")
    return run.per_class[split]


def _by_name(values: Sequence[Any], runs: Sequence[Any]) -> dict[str, Any]:
    """Name of each run, or its number where it has none or shares it -> its value."""
    names = [run.name if isinstance(run, RunResults) else "" for run in runs]
    return {
        name if name and names.count(name) == 1 else f"{name} {number}".strip(): value
        for number, (name, value) in enumerate(zip(names, values, strict=True), 1)
    }
