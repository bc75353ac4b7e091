"""The scores as tables: the whole, each class, and what else the run has measured."""

import re
from collections.abc import Iterable

from hfseg.errors import printable
from hfseg.metrics import with_interval
from hfseg.publishing.card_metadata import input_of_evaluation
from hfseg.runs import Facts, is_number

MAIN = {
    "mean_iou": "**mean IoU**",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean class accuracy",
    "mean_dice": "mean Dice",
}
# What else metrics.json may have: a pattern for the key without its split, and how people call it. What a config asks
# for is shown; what every run has is folded away.
ASKED = (
    (r"boundary_iou", "Boundary IoU"),
    (r"band_iou_(\d+)px", r"mean IoU within \1 px of a boundary"),
    (r"category_iou", "mean IoU of the categories"),
    (r"category_iou_(.+)", r"IoU of the category \1"),
    (r"ece", "calibration error ECE (lower is better)"),
    (r"ece_calibrated", "the same at the fitted temperature"),
    (r"brier", "Brier score (lower is better)"),
    (r"brier_calibrated", "the same at the fitted temperature"),
)
ALWAYS = (
    (r"loss", "cross-entropy (lower is better)"),
    (r"frequency_weighted_iou", "frequency-weighted IoU"),
    (r"mean_image_iou", "mean IoU of single images, averaged"),
    (r"worst_image_iou", "mean IoU of the worst image"),
)
WORDS = ASKED + ALWAYS
BOOKKEEPING = re.compile(
    r"iou_|num_|worst_image$|worst_image_name|constant_|runtime|.*_per_second|model_preparation|.*_(low|high)$"
)
MANY_CLASSES = 20


def results(facts: Facts) -> str:
    """The section with all scores."""
    counts = [facts.num_images(prefix) for prefix in ("eval", "test")]
    heads = [
        title if count is None else f"{title}, {count:,} images"
        for title, count in zip(("validation", "test"), counts, strict=True)
    ]
    metrics = facts.metrics
    rows = [(name, key) for key, name in MAIN.items() if f"test_{key}" in metrics]
    constant = metrics.get("test_constant_class")
    if constant is not None:
        rows.append((f"mean IoU of answering *{escape(constant)}* everywhere", "constant_mean_iou"))
    bracket = " [95 % interval]" if is_number(metrics.get("test_mean_iou_low")) else ""
    parts = ["## Results", table([f"score{bracket}", *heads], [score_row(facts, *row) for row in rows])]
    parts.append(folded("Each class", class_table(facts), len(facts.per_class.test) > MANY_CLASSES))
    for is_asked in (True, False):
        other = other_rows(facts, is_asked)
        if other:
            parts.append(folded("More scores", table(["score", "validation", "test"], other), not is_asked))
    parts.append(protocol(facts))
    return "\n\n".join(parts)


def score_row(facts: Facts, name: str, key: str) -> list[str]:
    """One score on both splits."""
    return [name, *(with_interval(facts.metrics, f"{prefix}_{key}") for prefix in ("eval", "test"))]


def class_table(facts: Facts) -> str:
    """IoU and accuracy of each class, and how much of the test pixels it has."""
    total = sum(row.pixels for row in facts.per_class.test)
    has_boundary = any(row.boundary_iou is not None for row in facts.per_class.test)
    rows = [
        [
            escape(test.name),
            number(validation.iou),
            number(test.iou),
            *[number(test.boundary_iou)] * has_boundary,
            number(test.accuracy),
            f"{100 * test.pixels / total:.1f} %" if total else "-",
        ]
        for validation, test in zip(facts.per_class.eval, facts.per_class.test, strict=True)
    ]
    boundary = ["Boundary IoU, test"] * has_boundary
    return table(["class", "IoU, validation", "IoU, test", *boundary, "accuracy, test", "pixels, test"], rows)


def other_rows(facts: Facts, is_asked: bool) -> list[list[str]]:
    """The scores that the first tables do not show, the known ones in order: those asked for, or the rest."""
    scores = (key for key, value in facts.metrics.items() if key.startswith("test_") and is_number(value))
    keys = [key.removeprefix("test_") for key in scores]
    left = [key for key in keys if key not in MAIN and not BOOKKEEPING.match(key)]
    chosen = sorted((key for key in left if (_place(key) < len(ASKED)) == is_asked), key=_place)
    rows = [score_row(facts, in_words(key), key) for key in chosen]
    temperature = facts.metrics.get("eval_temperature")
    if is_asked and is_number(temperature):
        rows.append(["temperature, fitted on validation", number(temperature), ""])
    return rows


def _place(key: str) -> int:
    """In WORDS; behind all of them for what is not known."""
    return next((place for place, (known, _) in enumerate(WORDS) if re.fullmatch(known, key)), len(WORDS))


def in_words(key: str) -> str:
    """A key of metrics.json, without its split, as people read it."""
    for known, name in WORDS:
        match = re.fullmatch(known, key)
        if match:
            return escape(match.expand(name).replace("_", " "))
    return escape(key.replace("_", " "))


def protocol(facts: Facts) -> str:
    """What the numbers mean."""
    interval = ", and the brackets are the 95 % bootstrap interval over images"
    has_interval = is_number(facts.metrics.get("test_mean_iou_low"))
    return (
        "**How it was measured.** Mean IoU is the data-set mean IoU of mmseg, cityscapesScripts and `evaluate`: one "
        "confusion matrix over all valid pixels at the labels' native size, IoU for each class, mean over the "
        f"classes{interval * has_interval}. The model was given {input_of_evaluation(facts)}. " + choice(facts)
    )


def choice(facts: Facts) -> str:
    """How the weights that were scored were chosen."""
    if not facts.origin.steps:
        return "Nothing was trained and no checkpoint was chosen."
    chosen = "Validation chose the checkpoint" if facts.best_step else "The weights are those of the last step"
    return f"{chosen}{'' if 'test_error' in facts.metrics else '; the test split was scored once'}."


def table(head: list[str], rows: Iterable[list[str]], align: str | None = None) -> str:
    """Markdown; `align` has an l or r for each column, by default the first to the left and numbers to the right."""
    marks = ["---:" if side == "r" else "---" for side in align or "l" + "r" * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, marks, *rows])


def folded(title: str, body: str, is_folded: bool) -> str:
    """A part under a title, to be opened where it would be long."""
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>" if is_folded else body


def escape(text: str) -> str:
    """Any text inside a table's cell or a paragraph, shown as it is."""
    text = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", " ".join(text.split()))


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
