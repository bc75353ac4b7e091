"""What a study leaves: `study.json`, `study.md`, `report.html` and `figures/`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hfseg.config import RunConfig
from hfseg.files import write_json, write_text
from hfseg.publishing import escape
from hfseg.reporting import (
    UNDEFINED,
    colour_overlay,
    fixed_examples,
    inline_svg,
    legend,
    page,
    row_of_pictures,
    save_figure,
    show_confusion,
    show_examples,
    shown_score,
)
from hfseg.runs import RunResults
from hfseg.study import texts
from hfseg.study.answer import Arm, answer
from hfseg.study.figures import FIGURES, study_figures
from hfseg.study.plan import Job

Figures = Mapping[str, tuple[Figure, str]]
DIFFERENCE_COLUMNS = ("difference of test mIoU", "points", "95 %", "runs")


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
    write_json(folder / "study.json", study)
    write_text(folder / "study.md", as_markdown(study, figures))
    write_text(folder / "report.html", page.page(f"{config.name}: hfseg study", as_html(study, figures, arms)))
    return study


def as_markdown(study: Mapping[str, Any], figures: Figures) -> str:
    """The answer for people who read text, and for a README."""
    note = [escape(study["note"]), ""] if study["note"] else []
    lines = [f"# {study['name']}", "", *note, texts.headline(study), ""]
    if study["sentences"]:
        lines += ["## Answers", "", *(f"- {each}" for each in study["sentences"]), ""]
    if study["missing"]:
        lines += [f"## Missing: {len(study['missing'])} of {study['num_runs']} runs", ""]
        lines += [*(f"- {name}: {escape(reason)}" for name, reason in study["missing"].items()), ""]
    if study["warnings"]:
        lines += ["## Mind", "", *(f"- {each}" for each in study["warnings"]), ""]
    arms = [[name, *texts.arm_cells(study, name)] for name in study["arms"]]
    lines += ["## Arms", "", *as_table(texts.arm_columns(study), arms), ""]
    if study["pretraining"]:
        lines += ["## Pretraining", "", *(f"- {each}" for each in texts.pretraining(study, escape)), ""]
    if study["differences"]:
        rows = [[_pair(each), *texts.difference_cells(each)] for each in study["differences"]]
        lines += ["## Differences", "", *as_table(DIFFERENCE_COLUMNS, rows), "", *_unlike(study)]
    head, rows = _per_class(study)
    if rows:
        head[1:] = map(escape, head[1:])
        lines += ["## Classes (test IoU)", "", *as_table(head, rows), ""]
    if figures:
        lines += ["## Figures", "", *(f"![{words}](figures/{name}.png)" for name, (_, words) in figures.items()), ""]
    notes = [note.replace("*", "\\*") for note in texts.notes(study)]  # a star, and not a list
    lines += ["## How to read this", "", *(f"- {note}" for note in notes)]
    return "\n".join(lines) + "\n"


def as_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of Markdown, numbers to the right; the cells are Markdown."""
    rule = "|".join(["---", *("---:" for _ in head[1:])])
    first, *others = (f"| {' | '.join(row)} |" for row in (head, *rows))
    return [first, f"|{rule}|", *others]


def _pair(difference: Mapping[str, Any]) -> str:
    return f"{difference['second']} \N{MINUS SIGN} {difference['first']}"


def _per_class(study: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """The table of classes: a row for each arm."""
    scored = {name: arm["test"]["per_class"] for name, arm in study["arms"].items() if "test" in arm}
    if len({tuple(row["name"] for row in rows) for rows in scored.values()}) != 1:
        return [], []
    names = [row["name"] for row in next(iter(scored.values()))]
    lines = []
    for arm, rows in scored.items():
        lines.append([arm, *(UNDEFINED if row["iou"] is None else f"{row['iou']:.3f}" for row in rows)])
    return ["arm", *names], lines


def _unlike(study: Mapping[str, Any]) -> list[str]:
    """What else differs between arms of different models."""
    lines = []
    for each in study["differences"]:
        if not each["same_model"]:
            keys = ", ".join(f"`{key}`" for key in each["differ_in"])
            lines += [f"{_pair(each)}: two recipes, which differ in {keys}.", ""]
    return lines


def as_html(study: Mapping[str, Any], figures: Figures, arms: Sequence[Arm]) -> str:
    """The body of the page."""
    head = [f"<h1>{page.escape(study['name'])}</h1>"]
    head += [page.paragraph(study["note"])] if study["note"] else []
    parts = [*head, page.paragraph(texts.headline(study)), _cards(study), _answers(study)]
    parts += [_arms(study), _pretraining(study), _differences(study, figures)]
    parts += [_curves(figures), _classes(study, figures)]
    best_runs = {arm.name: arm.runs[arm.best_seed] for arm in arms if arm.runs}
    parts.append(_side_by_side(best_runs))
    if study["best_arm"]:
        best = best_runs[study["best_arm"]]
        parts.append(page.paragraph(f"Confusion and examples are those of {study['best_run']}, best on validation."))
        parts += [show_confusion(best), show_examples(best)]
    return "\n".join(part for part in parts if part)


def _cards(study: Mapping[str, Any]) -> str:
    finished = study["num_runs"] - len(study["missing"])
    entries = [("runs", f"{finished} of {study['num_runs']}", f"{len(study['arms'])} arms")]
    if study["best_arm"]:
        score = study["arms"][study["best_arm"]]["test"]["mean_iou"]
        ends = "no interval" if score["low"] is None else f"95 %: {score['low']:.3f} to {score['high']:.3f}"
        entries.insert(0, (f"test mean IoU, {study['best_arm']}", f"{score['value']:.3f}", ends))
        entries.append(("test images", f"{study['num_images']['test']:,}", f"of {study['best_arm']}"))
    return page.cards(entries)


def _arms(study: Mapping[str, Any]) -> str:
    """Two tables, for one would be too wide: scores, and what they cost."""
    rows = [[page.escape(name), *map(page.cell, texts.arm_cells(study, name))] for name in study["arms"]]
    head, costs = texts.arm_columns(study), len(texts.COSTS)
    scores = page.table(head[:-costs], [row[:-costs] for row in rows], "Scores; brackets are 95 % intervals")
    cost = page.table([head[0], *texts.COSTS], [[row[0], *row[-costs:]] for row in rows], "What they cost")
    return page.section("Arms", scores, cost, *(page.paragraph(note, "dim") for note in texts.notes(study)))


def _answers(study: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{page.escape(each)}</li>" for each in study["sentences"])
    parts = [f"<ul>{items}</ul>"]
    if not study["sentences"]:
        parts = [page.missing("No two arms that can be compared have finished runs.")]
    if study["missing"]:
        items = "".join(f"<li>{page.escape(f'{run}: {why}')}</li>" for run, why in study["missing"].items())
        parts.append(f'<div class="missing">{len(study["missing"])} runs are missing:<ul>{items}</ul></div>')
    parts += [page.missing(warning) for warning in study["warnings"]]
    return page.section("Answers", *parts)


def _pretraining(study: Mapping[str, Any]) -> str:
    lines = texts.pretraining(study)
    return page.section("Pretraining", *map(page.paragraph, lines)) if lines else ""


def _differences(study: Mapping[str, Any], figures: Figures) -> str:
    if not study["differences"]:
        return ""
    rows = [[page.escape(_pair(each)), *map(page.cell, texts.difference_cells(each))] for each in study["differences"]]
    parts = [page.table(DIFFERENCE_COLUMNS, rows, "Second minus first on the same test images, in points of mean IoU")]
    parts += [_figure(figures, "differences")]
    parts += [page.paragraph(line.replace("`", ""), "dim") for line in _unlike(study) if line]
    return page.section("Differences", *parts)


def _curves(figures: Figures) -> str:
    if "curves_steps" not in figures:
        return page.section("Learning curves", page.missing("No arm has a finished run yet."))
    row = [page.figure(inline_svg(*figures[name]), figures[name][1]) for name in ("curves_steps", "curves_time")]
    return page.section("Learning curves", '<div class="row">', *row, "</div>")


def _side_by_side(runs: Mapping[str, RunResults]) -> str:
    """The fixed validation images as each arm's best run sees them."""
    seen = {arm: {each.name: each for each in fixed_examples(run)} for arm, run in runs.items()}
    first = next(iter(seen.values()), {})
    names = [name for name in first if all(name in examples for examples in seen.values())]
    labels = next((run.labels for run in runs.values()), None)
    if labels is None or not names:
        text = "No validation image is among the fixed examples of all arms: their examples.npz are missing or older."
        return page.section("Side by side", page.missing(text))
    parts = [page.paragraph("The same validation images by each arm's best run, with the image's mean IoU.")]
    for name in names:
        image = first[name].image
        pictures = [("image", np.asarray(image)), ("truth", colour_overlay(image, first[name].label, labels))]
        for arm, examples in seen.items():
            overlay = colour_overlay(image, examples[name].prediction, labels)
            pictures.append((f"{arm}: {shown_score(examples[name])}", overlay))
        parts.append(row_of_pictures(name, name, pictures))
    return page.section("Side by side", legend(labels), *parts)


def _classes(study: Mapping[str, Any], figures: Figures) -> str:
    head, rows = _per_class(study)
    if not rows:
        return ""
    cells = [[page.escape(first), *map(page.cell, others)] for first, *others in rows]
    return page.section("Classes", page.table(head, cells, "Test IoU, mean over runs"), _figure(figures, "per_class"))


def _figure(figures: Figures, name: str) -> str:
    if name not in figures:
        return ""
    figure, words = figures[name]
    return f'<div class="row">{page.figure(inline_svg(figure, words), words)}</div>'
