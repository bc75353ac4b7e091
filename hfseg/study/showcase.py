"""What a repository shows of a finished study: its answer, a card for each arm, and a section of the README."""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hfseg.errors import UserError
from hfseg.files import write_text
from hfseg.publishing import collect_cards
from hfseg.reporting import render
from hfseg.study.figures import FIGURES
from hfseg.study.report import study_values
from hfseg.study.tables import arm_table

BEGIN, END = "<!-- results: written by scripts/collect_cards.py -->", "<!-- results end -->"
SHOWN = ("arm", "start", "runs", "test mIoU", "trained / all parameters", "time of a run")  # of the table of arms


def collect_study(folder: Path, cards: Path) -> None:
    """Copies a study's answer and figures, and the cards of its pretraining runs and of each arm's best run.

    The best is the one with the highest mean IoU on validation. Nothing that shows an image is taken along, so the
    study's `report.html` stays where it is.

    Args:
        folder: of the study.
        cards: where cards are kept, one folder for each run and study.

    Raises:
        UserError: there is no study, or some of its runs are not finished.
    """
    study = read_study(folder)
    if study["missing"]:
        raise UserError(f"{folder}: {len(study['missing'])} runs are not finished. Start the study again.")
    gaps = [name for name, arm in study["arms"].items() if len(arm["seeds"]) < arm["planned_runs"]]
    if gaps:
        raise UserError(f"{folder}: runs of {', '.join(gaps)} are left out of the answer; its study.md says why.")
    best = (f"{name}-seed{arm['best_seed']}" for name, arm in study["arms"].items())
    collect_cards([folder / name for name in (*study["pretraining"], *best)], cards)
    target = cards / study["name"]
    (target / "figures").mkdir(parents=True, exist_ok=True)
    for name in ("study.json", "study.md", *(f"figures/{figure}.png" for figure in FIGURES)):
        if (folder / name).is_file():
            shutil.copyfile(folder / name, target / name)


def read_study(folder: Path) -> dict[str, Any]:
    """Reads `study.json`.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        study: dict[str, Any] = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{folder} is not the folder of a study that has been run: {error}") from error
    return study


def renew_readme(readme: Path, cards: Path) -> None:
    """Writes the results of all collected studies between the README's two marks.

    Raises:
        UserError: the README has no such marks.
    """
    text = readme.read_text(encoding="utf-8")
    sections = "\n".join(section(read_study(path.parent), path.parent) for path in sorted(cards.glob("*/study.json")))
    marked = re.compile(f"{re.escape(BEGIN)}\n.*?{re.escape(END)}", re.DOTALL)
    if len(marked.findall(text)) != 1:
        raise UserError(f"{readme} must have one place for the results, between the lines {BEGIN} and {END}.")
    write_text(readme, marked.sub(lambda _: f"{BEGIN}\n\n{sections}{END}", text))


def section(study: Mapping[str, Any], home: Path) -> str:
    """The answer in short. It has differences over seeds within one model only; `study.md` has the others.

    Args:
        study: what its `study.json` holds.
        home: its folder among the cards, `model_cards/<name>`.
    """
    head, rows = arm_table(study)
    places = [head.index(name) for name in SHOWN]
    pictures = {"curves_steps": "Learning curves of all runs"}
    within = [each for each in study["differences"] if each["same_model"]]
    values = study_values(study) | {
        "link": f"{home.parent.name}/{home.name}",
        "arms": (list(SHOWN), [[row[place] for place in places] for row in rows]),
        "sentences": [each["sentence"] for each in within if each.get("over_seeds")],
        "pictures": {name: words for name, words in pictures.items() if (home / "figures" / f"{name}.png").is_file()},
        "hardware": sorted({name for arm in study["arms"].values() for name in arm.get("hardware", [])}),
    }
    return render("study/readme.md.jinja", values)
