"""The report of a run: one HTML page made from the files in its folder alone."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hfseg.files import dump_yaml, write_text
from hfseg.labels import LabelSet
from hfseg.metrics import SPLITS, caveats, unscored, with_interval
from hfseg.reporting import page
from hfseg.reporting.figures import UNDEFINED, example_pictures, inline_svg, plot_learning_curves, row_shares
from hfseg.runs import Example, RunResults, public_config

SCORES = {
    "mean_iou": "mean IoU",
    "mean_accuracy": "mean accuracy",
    "pixel_accuracy": "pixel accuracy",
    "mean_dice": "mean Dice",
    "mean_precision": "mean precision",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "mean_image_iou": "mean IoU per image, averaged",
    "worst_image_iou": "mean IoU of the worst image",
    "boundary_iou": "Boundary IoU",
    "band_iou_3px": "mean IoU within 3 pixels of a contour",
    "ece": "expected calibration error",
    "ece_calibrated": "the same at the fitted temperature",
    "brier": "Brier score",
    "brier_calibrated": "the same at the fitted temperature",
    "loss": "cross-entropy",
}
SPLIT_RULES = {
    "oxford_pet": "Train and validation are the official trainval split, of which a fixed tenth of each breed is held "
    "out for validation; test is the official test split.",
    "cityscapes": "Validation is a fixed tenth of each city of the official train split; test is the official val "
    "split, whose labels are public.",
    "folder": "The data's own splits. Where it has no labelled test split, validation is the test; what is missing "
    "then is a fixed tenth of train.",
}
SPLIT_RULES |= {
    "synthetic_pet": SPLIT_RULES["oxford_pet"],
    "synthetic_cityscapes": SPLIT_RULES["cityscapes"],
    "hub": SPLIT_RULES["folder"],
}
CLASS_COLUMNS = {"iou": "IoU", "accuracy": "accuracy", "precision": "precision", "dice": "Dice"}
PICTURES = ("image", "truth", "prediction", "errors (magenta; dark: not scored)")
MAX_MATRIX = 40  # classes: a larger matrix is megabytes that nobody reads
NUM_CONFUSIONS = 5


def write_report(run_dir: Path) -> Path:
    """Writes `report.html` into a run's folder: one file that loads nothing, and shows images of the data.

    Args:
        run_dir: a run. What is missing in it has a sentence in its place.

    Returns:
        The page's path.
    """
    run = RunResults.read(run_dir)
    sections = (
        show_header,
        show_scores,
        show_curves,
        show_classes,
        show_confusion,
        show_examples,
        show_data,
        show_making,
    )
    path = run_dir / "report.html"
    write_text(path, page.page(f"{run.name}: hfseg report", "\n".join(section(run) for section in sections)))
    return path


def show_header(run: RunResults) -> str:
    """The name, what to be careful about, what was trained on what, and the numbers that matter."""
    lines = [f"<h1>{page.escape(run.name)}</h1>"]
    lines += [page.paragraph(said, "caveat") for said in caveats(run.metrics)]
    if run.config:
        model, data = run.config["model"], run.config["data"]
        start = f"from {Path(model['init']).name}" if model.get("init") else "from scratch"
        network = f"{model.get('type')} {model.get('size') or ''}".strip()
        lines.append(page.paragraph(f"{network}, trained {start} on {data.get('name')}."))
        if data.get("note"):
            lines.append(page.paragraph(data["note"]))
    lines += [page.missing(said) for said in unscored(run.metrics)]
    if run.metrics:
        entries = [
            (f"mean IoU, {split}", _number(run.metrics.get(f"{prefix}_mean_iou")), _interval(run.metrics, prefix))
            for prefix, split in SPLITS.items()
        ]
        entries.append(
            ("pixel accuracy, test", _number(run.metrics.get("test_pixel_accuracy")), "of the valid pixels")
        )
        if "test_constant_class" in run.metrics:
            constant = _number(run.metrics.get("test_constant_mean_iou"))
            entries.append(("constant answer, test", constant, f"{run.metrics['test_constant_class']} everywhere"))
        lines.append(page.cards(entries))
    return "\n".join(lines)


def show_scores(run: RunResults) -> str:
    """All scores of both splits, and how they were made."""
    if not run.metrics:
        return page.section("Scores", page.missing("There are no scores: metrics.json is missing or damaged."))
    known = {key: name for key, name in SCORES.items() if any(f"{prefix}_{key}" in run.metrics for prefix in SPLITS)}
    rows = [
        [page.escape(name), *(page.cell(_score(run.metrics, f"{prefix}_{key}")) for prefix in SPLITS)]
        for key, name in known.items()
    ]
    constants = {prefix: run.metrics.get(f"{prefix}_constant_mean_iou") for prefix in SPLITS}
    rows.append(["mean IoU of a constant answer", *(page.cell(_number(value)) for value in constants.values())])
    once = "" if "test_error" in run.metrics else "; test was scored once"
    protocol = (
        "One confusion matrix over all valid pixels at the labels' native size, IoU per class, mean over classes. The "
        f"checkpoint was chosen on validation{once}. Brackets hold 95 % bootstrap intervals over "
        "images: they tell what other images of the same kind might give, not what another training run might."
    )
    return page.section(
        "Scores",
        page.table(["score", *SPLITS.values()], rows, "At the labels' native size"),
        page.paragraph(protocol, "dim"),
    )


def show_curves(run: RunResults) -> str:
    """Loss and mean IoU against steps and against time."""
    if not run.history:
        return page.section("Learning curves", page.missing("There are no curves: history.jsonl is missing or empty."))
    parts = []
    for against, words in (("step", "training steps"), ("seconds", "time")):
        if not any(line.get(against) is not None for line in run.history):
            parts.append(page.missing(f"There are no curves against {words}: history.jsonl does not tell it."))
            continue
        figures = [
            page.figure(
                inline_svg(
                    plot_learning_curves({run.name: run.history}, against, [panel]),  # type: ignore[arg-type, list-item]
                    f"{name} of training and validation against {words}",
                )
            )
            for panel, name in (("loss", "Loss"), ("mean_iou", "Mean IoU"))
        ]
        parts += [f"<h3>Against {words}</h3>", '<div class="row">', *figures, "</div>"]
    return page.section("Learning curves", *parts)


def show_classes(run: RunResults) -> str:
    """A table for each split: scores of each class, with bars."""
    heading = "Classes"
    if not run.per_class:
        return page.section(heading, page.missing("There is no table: per_class.json is missing or damaged."))
    tables = {
        split: page.table(
            ["class", *CLASS_COLUMNS.values(), "pixels"],
            [_class_row(run, row) for row in run.per_class[prefix]],
            f"Each class on the {split} split",
        )
        for prefix, split in SPLITS.items()
        if prefix in run.per_class and f"{prefix}_error" not in run.metrics
    }
    first, *others = tables
    return page.section(heading, tables[first], *(page.details(f"On {split}", tables[split]) for split in others))


def _class_row(run: RunResults, row: Mapping[str, Any]) -> list[str]:
    cells = [page.bar(row.get(key)) for key in CLASS_COLUMNS]
    return [_class_name(run, row["name"]), *cells, page.cell(f"{row['pixels']:,}" if "pixels" in row else UNDEFINED)]


def _class_name(run: RunResults, name: str) -> str:
    """With its colour, where that is known."""
    if run.labels is None or run.labels.palette is None or name not in run.labels.names:
        return page.escape(name)
    return page.swatch(run.labels.palette[list(run.labels.names).index(name)]) + page.escape(name)


def show_confusion(run: RunResults) -> str:
    """Where the labelled pixels of each class went."""
    heading = "Confusion"
    if not run.confusion:
        return page.section(heading, page.missing("There is no confusion matrix: counts.npz is missing or damaged."))
    parts: list[str] = []
    for prefix, split in SPLITS.items():
        if prefix not in run.confusion:
            continue
        shares = row_shares(run.confusion[prefix])
        rows = run.per_class.get(prefix, [])
        names = [row["name"] for row in rows] if len(rows) == len(shares) else list(map(str, range(len(shares))))
        html = page.paragraph(_confusions(shares, names))
        if len(names) <= MAX_MATRIX:
            html += confusion_table(shares, names, f"{split.capitalize()}: labelled in rows, predicted in columns, %")
        parts.append(page.details(f"On {split}", html) if parts else html)
    return page.section(heading, *parts)


def confusion_table(shares: NDArray[np.float64], names: Sequence[str], caption: str) -> str:
    """A matrix of shares (K, K), rows labels and columns predictions, as a coloured table for a page."""
    rows = [
        [
            page.escape(name),
            *(
                page.share(value, f"{name} as {other}: {100 * value:.2f} %")
                for other, value in zip(names, row, strict=True)
            ),
        ]
        for name, row in zip(names, shares.tolist(), strict=True)
    ]
    return page.table(["", *names], rows, caption, "matrix")


def _confusions(shares: NDArray[np.float64], names: Sequence[str]) -> str:
    """The most frequent mistakes, in words."""
    mistakes = np.where(np.eye(len(shares), dtype=bool), 0, np.nan_to_num(shares))
    places = np.argsort(-mistakes, axis=None, kind="stable")[:NUM_CONFUSIONS]
    largest = [np.unravel_index(place, mistakes.shape) for place in places if mistakes.flat[place] >= 0.005]
    if not largest:
        return "No class loses 0.5 % of its pixels to another."
    words = (f"{100 * mistakes[row, column]:.0f} % of {names[row]} as {names[column]}" for row, column in largest)
    return f"Most often mistaken: {'; '.join(words)}."


def show_examples(run: RunResults) -> str:
    """Images of the validation split with truth, prediction and error map."""
    heading = "Examples of the validation split"
    if not run.examples or run.labels is None or run.labels.palette is None:
        return page.section(heading, page.missing("There are no examples: examples.npz is missing or damaged."))
    ranked = [example for example in run.examples if example.title]
    groups = {
        "The best, the median and the worst images by their own mean IoU.": ranked,
        "A fixed handful, spread over the split; all runs on this data show the same.": fixed_examples(run),
    }
    parts = [legend(run.labels)]
    for rule, examples in groups.items():
        parts += [page.paragraph(rule), *(_example(each, run.labels) for each in examples)] if examples else []
    return page.section(heading, *parts)


def fixed_examples(run: RunResults) -> list[Example]:
    """Those that do not depend on how good the model is."""
    return [example for example in run.examples if not example.title]


def legend(labels: LabelSet) -> str:
    """The colours of the classes."""
    assert labels.palette is not None
    names = [
        f"<span>{page.swatch(colour)}{page.escape(name)}</span>"
        for name, colour in zip(labels.names, labels.palette, strict=True)
    ]
    return f'<div class="legend">{"".join(names)}</div>'


def _example(example: Example, labels: LabelSet) -> str:
    title = f"{example.title}: {example.name}" if example.title else example.name
    pictures = zip(PICTURES, example_pictures(example, labels), strict=True)
    return row_of_pictures(f"{title}, mean IoU {shown_score(example)}", example.name, pictures)


def shown_score(example: Example) -> str:
    return UNDEFINED if np.isnan(example.mean_iou) else f"{example.mean_iou:.3f}"


def row_of_pictures(heading: str, name: str, pictures: Iterable[tuple[str, NDArray[np.uint8]]]) -> str:
    """Pictures of one image under a heading, each with its caption."""
    items = [page.picture(pixels, f"{caption} of {name}", caption) for caption, pixels in pictures]
    return f'<h3>{page.escape(heading)}</h3><div class="pictures">{"".join(items)}</div>'


def show_data(run: RunResults) -> str:
    """How many images each split has, which rule made the splits, and the classes' shares of the pixels."""
    name = run.config.get("data", {}).get("name", "")
    counts = {SPLITS[prefix]: len(names) for prefix, (names, _) in run.counts.items()}
    counts = run.provenance.get("num_images") or counts
    shares = class_shares(run)
    parts = [page.paragraph(SPLIT_RULES.get(name, "The config is missing, so the split rule is not known."))]
    splits = [split for split in ("train", "validation", "test") if split in counts or split in shares]
    if not splits:
        return page.section("Data", *parts, page.missing("Images and classes of the splits are not known."))
    classes = dict.fromkeys(each for split in splits for each in shares.get(split, {}))
    table = [["images", *(page.cell(f"{counts[split]:,}" if split in counts else UNDEFINED) for split in splits)]]
    for each in classes:
        found = [shares.get(split, {}).get(each) for split in splits]
        cells = [page.bar(value, None if value is None else f"{100 * value:.2f} %") for value in found]
        table.append([_class_name(run, each), *cells])
    parts.append(page.table(["class", *splits], table, "Images, and each class's share of the labelled pixels"))
    if "train" not in shares:
        parts.append(page.paragraph("The shares in train are known where --check has counted them.", "dim"))
    return page.section("Data", *parts)


def class_shares(run: RunResults) -> dict[str, dict[str, float]]:
    """Each class's share of the pixels, by split: as the label doctor counted them, or of what was scored."""
    shares = {}
    for split, rows in run.check.get("classes", {}).items():
        shares[split] = {row["name"]: row["share"] for row in rows}
    for prefix, split in SPLITS.items():
        scored = run.per_class.get(prefix, [])
        total = sum(row.get("pixels", 0) for row in scored)
        if total and split not in shares:
            shares[split] = {row["name"]: row["pixels"] / total for row in scored}
    return shares


def show_making(run: RunResults) -> str:
    """Command, time, hardware, versions and the whole config."""
    parts = []
    made = run.provenance
    if made:
        versions = ", ".join(f"{package} {number}" for package, number in made["versions"].items())
        entries = {
            "command": f"<code>{page.escape(made['command'])}</code>",
            "time": _time(run),
            "steps": f"{made.get('steps')}, {_kept(made.get('best_step'))}",
            "parameters": f"{made['num_parameters']:,}",
            "hardware": page.escape(made["hardware"]),
            "versions": page.escape(versions),
        }
        parts.append(page.facts(entries))
    else:
        parts.append(page.missing("provenance.json is missing or damaged: command, time and versions are not known."))
    if run.config:
        text = dump_yaml(public_config(run.config))
        parts.append(page.details("The whole configuration", f"<pre><code>{page.escape(text)}</code></pre>"))
    else:
        parts.append(page.missing("run_config.yaml is missing or damaged: the configuration is not known."))
    return page.section("How it was made", *parts)


def _kept(best_step: int | None) -> str:
    return "the last checkpoint was kept" if best_step is None else f"best checkpoint at step {best_step}"


def _time(run: RunResults) -> str:
    seconds = run.provenance.get("train_seconds")
    if not seconds:
        return "not recorded"
    text = f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.1f} minutes"
    return f"{text if seconds < 7200 else f'{seconds / 3600:.1f} hours'} of training, evaluations included"


def _number(value: float | None) -> str:
    return UNDEFINED if value is None or np.isnan(value) else f"{value:.4f}"


def _score(metrics: Mapping[str, Any], key: str) -> str:
    return UNDEFINED if metrics.get(key) is None else with_interval(metrics, key)


def _interval(metrics: Mapping[str, Any], prefix: str) -> str:
    low, high = (metrics.get(f"{prefix}_mean_iou_{end}") for end in ("low", "high"))
    return "no interval" if low is None or high is None else f"95 %: {low:.4f} to {high:.4f}"
