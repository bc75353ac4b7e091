"""What a study leaves: `study.json`, `study.md`, `report.html` and `figures/`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfseg.config import RunConfig
from hfseg.files import write_json, write_text
from hfseg.reporting import (
    class_colours,
    colour_overlay,
    confusion_matrices,
    example_groups,
    fixed_examples,
    number,
    render,
    save_figure,
)
from hfseg.runs import RunResults
from hfseg.study.answer import answer
from hfseg.study.figures import FIGURES, study_figures
from hfseg.study.plan import Job
from hfseg.study.tables import COSTS, arm_table, class_table, difference_table, duration, headline, pair, score


def write_study(
    config: RunConfig, jobs: Sequence[Job], warnings: Sequence[str], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Writes the answer from what is there, with gaps where runs are missing; returns what `study.json` holds."""
    study, arms = answer(config.name, config.data.note, jobs, warnings, failed)
    folder = config.output_dir
    folder.mkdir(parents=True, exist_ok=True)
    figures = study_figures(study, arms)
    for name in FIGURES:
        path = folder / "figures" / f"{name}.png"
        if name in figures:
            save_figure(figures[name][0], path)
        else:
            path.unlink(missing_ok=True)  # of an earlier state of the study
    best_runs = {arm.name: arm.runs[arm.best_seed] for arm in arms if arm.runs}
    best = best_runs.get(study["best_arm"])
    values = study_values(study) | {
        "figures": figures,
        "confusion_matrices": confusion_matrices(best) if best else {},
        "example_groups": example_groups(best) if best else {},
        "side_by_side": _side_by_side(best_runs),
        "colours": class_colours(next((run.labels for run in best_runs.values()), None)),
    }
    write_json(folder / "study.json", study)
    for name in ("study.md", "report.html"):
        write_text(folder / name, render(f"study/{name}.jinja", values))
    return study


def study_values(study: Mapping[str, Any]) -> dict[str, Any]:
    """What the templates show of `study.json`, figures and pictures apart."""
    head, rows = arm_table(study)
    return {
        "study": study,
        "headline": headline(study),
        "arms": (head, rows),
        "arm_scores": (head[: -len(COSTS)], [row[: -len(COSTS)] for row in rows]),
        "arm_costs": (head[:1] + head[-len(COSTS) :], [row[:1] + row[-len(COSTS) :] for row in rows]),
        "differences": difference_table(study),
        "classes": class_table(study),
        "functions": {"duration": duration, "pair": pair, "score": score},
    }


def _side_by_side(runs: Mapping[str, RunResults]) -> dict[str, dict[str, NDArray[np.uint8]]]:
    """Name of a fixed validation image that all arms' runs have kept -> what each made of it, by caption."""
    seen = {arm: {each.name: each for each in fixed_examples(run)} for arm, run in runs.items()}
    labels = next((run.labels for run in runs.values()), None)
    pictures: dict[str, dict[str, NDArray[np.uint8]]] = {}
    for name, first in next(iter(seen.values()), {}).items():
        if labels is not None and all(name in examples for examples in seen.values()):
            truth = colour_overlay(first.image, first.label, labels)
            pictures[name] = {"image": np.asarray(first.image), "truth": truth}
            for arm, examples in seen.items():
                overlay = colour_overlay(first.image, examples[name].prediction, labels)
                pictures[name][f"{arm}: {number(examples[name].mean_iou)}"] = overlay
    return pictures
