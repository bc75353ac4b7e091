"""Figures show the numbers that they are given."""

import dataclasses
import io
import warnings
from pathlib import Path
from xml.etree import ElementTree

import markupsafe
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from hfseg import LabelSet
from hfseg.doctor import Report
from hfseg.doctor.contact_sheet import plot_class_distribution, plot_contact_sheet
from hfseg.doctor.findings import Tile
from hfseg.reporting import (
    INK,
    MAX_HEIGHT,
    colour_overlay,
    escape_markdown,
    inline_svg,
    plot_class_bars,
    plot_learning_curves,
    plot_matrix,
    save_figure,
)
from hfseg.reporting.charts import MAX_SIDE, MAX_SIDE_NAMES, row_shares
from hfseg.reporting.examples import choose_examples
from hfseg.reporting.page import _in_html
from hfseg.reporting.pictures import WRONG, error_map, plot_examples
from hfseg.reporting.style import log_boxes
from hfseg.runs import Example

HISTORY = [
    {"step": 10, "seconds": 60.0, "loss": 1.0, "train_mean_iou": 0.2},
    {"step": 20, "seconds": 240.0, "eval_loss": 0.8, "eval_mean_iou": 0.3},
    {"step": 20, "seconds": 240.0, "loss": None, "train_mean_iou": 0.4},  # a loss that was not finite
    {"step": 20, "train_runtime": 250.0},
]


def test_curves_have_the_history_s_points() -> None:
    figure = plot_learning_curves({"run": HISTORY}, "seconds")
    loss, iou = figure.axes
    assert loss.get_xlabel() == "minutes"
    assert [line.get_xydata().tolist() for line in loss.lines] == [[[1, 1.0]], [[4, 0.8]]]
    assert [line.get_xydata().tolist() for line in iou.lines] == [[[1, 0.2], [4, 0.4]], [[4, 0.3]]]
    assert "nothing recorded" in [text.get_text() for text in plot_learning_curves({"run": []}).axes[0].texts]


def test_runs_of_one_group_share_a_colour_and_a_line_of_the_legend() -> None:
    runs = dict.fromkeys(("a 0", "a 1", "b 0"), HISTORY)
    figure = plot_learning_curves(runs, panels=["mean_iou"], groups={name: name[0] for name in runs})
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert len(colours) == 6
    assert len(set(colours[:4])) == 1
    assert colours[4] == colours[5] != colours[0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


def test_many_runs_look_different() -> None:
    figure = plot_learning_curves({str(number): HISTORY for number in range(20)}, panels=["mean_iou"])
    thick = [line for line in figure.axes[0].lines if line.get_linewidth() == 2]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in thick}) == 20


def test_bars_are_as_long_as_the_scores() -> None:
    rows = [{"name": "x", "iou": 0.5, "iou_low": 0.4, "iou_high": 0.7}, {"name": "y", "iou": None}]
    axes = plot_class_bars({"one": rows, "two": [{"name": "x", "iou": 0.25}, {"name": "y", "iou": 1.0}]}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.5, 0, 0.25, 1.0]
    assert [line.get_xdata().tolist() if hasattr(line.get_xdata(), "tolist") else list(line.get_xdata())
            for line in axes.lines] == [[0.4, 0.7]]  # fmt: skip
    assert [text.get_text() for text in axes.texts] == ["0.500", "–", "0.250", "1.000"]  # noqa: RUF001


def test_confusion_in_percent_of_rows() -> None:
    matrix = np.array([[9, 1, 0], [0, 0, 0], [1, 1, 2]])
    shares = row_shares(matrix)
    assert shares[0].tolist() == [0.9, 0.1, 0]
    assert np.isnan(shares[1]).all()
    texts = [text.get_text() for text in plot_matrix(matrix, ["a", "b", "c"]).axes[0].texts]
    assert texts == ["90", "10", "0", "25", "25", "50"]


def make_example(labels: LabelSet) -> Example:
    rng = np.random.default_rng(1)
    label = rng.choice([0, 1, 2, 255], (20, 30)).astype(np.uint8)
    prediction = rng.integers(0, 3, (20, 30), dtype=np.uint8)
    image = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))
    return Example("e", image, label, prediction, 0.3, "best")


def test_error_map_and_overlay_pixel_by_pixel(labels: LabelSet) -> None:
    example = make_example(labels)
    picture, overlay = error_map(example, labels), colour_overlay(example.image, example.label, labels)
    pixels = np.asarray(example.image)
    for row, column in np.ndindex(20, 30):
        truth, answer = int(example.label[row, column]), int(example.prediction[row, column])
        assert (picture[row, column].tolist() == list(WRONG)) == (truth != 255 and truth != answer)
        if truth == 255:
            assert picture[row, column].max() <= 60 + 64
            assert overlay[row, column].tolist() == pixels[row, column].tolist()
        else:
            colour = 0.45 * pixels[row, column] + 0.55 * np.array(labels.palette[truth])
            assert np.abs(overlay[row, column] - colour).max() <= 1


def test_files_and_inline_svg(labels: LabelSet, tmp_path: Path) -> None:
    save_figure(plot_examples([make_example(labels)], labels), tmp_path / "new" / "examples.png")
    assert Image.open(tmp_path / "new" / "examples.png").width > 600
    for name in ("a", "b"):
        save_figure(plot_learning_curves({"run": HISTORY}), tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.svg", "b.svg", "new"}
    first, second = (inline_svg(plot_learning_curves({"<run>": HISTORY}), title) for title in ("<one>", "two"))
    assert first.startswith('<svg role="img" aria-label="&lt;one&gt;"')
    assert INK not in first
    assert "currentColor" in first
    trees = [ElementTree.fromstring(svg.replace("xlink:", "")) for svg in (first, second)]
    ids = [{element.get("id") for element in tree.iter() if element.get("id")} for tree in trees]
    assert not ids[0] & ids[1]  # both may stand on one page


@pytest.mark.parametrize("num_classes", [41, 150, 500])
def test_many_classes_make_no_larger_figures(num_classes: int) -> None:
    names = [str(number) for number in range(num_classes)]
    confusion = plot_matrix(np.eye(num_classes, dtype=int), names)
    rows = [{"name": name, "iou": 0.5} for name in names]
    bars = plot_class_bars({"one": rows, "two": rows})
    assert max(confusion.get_size_inches()) <= MAX_SIDE
    assert bars.get_figheight() <= MAX_HEIGHT
    assert not confusion.axes[0].texts
    shown = [label.get_text() for label in confusion.axes[0].get_yticklabels()]
    assert len(shown) <= MAX_SIDE_NAMES
    assert [names[int(place)] for place in confusion.axes[0].get_yticks()] == shown
    assert [label.get_text() for label in bars.axes[0].get_yticklabels()] == names


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name, escaped = "[red]\x1b[31mcar", "[red]\\x1b[31mcar"
    labels = LabelSet([name, "b"])
    matrix, bars = (
        plot_matrix(np.eye(2, dtype=int), labels.names),
        plot_class_bars({"x": [{"name": name, "iou": 1}]}),
    )
    legend = plot_examples([make_example(labels)], labels).legends[0].get_texts()
    texts = [*matrix.axes[0].get_xticklabels(), *bars.axes[0].get_yticklabels(), *legend]
    assert [text.get_text() for text in texts].count(escaped) == 3
    assert "\x1b" not in inline_svg(matrix, name.replace("\x1b", ""))
    console = Console(file=io.StringIO(), force_terminal=True, width=200)
    counts = {"train": np.ones(3, dtype=np.int64)}
    Report("x", "", labels, {"train": 1}, 1, counts, counts, []).print(console)
    assert escaped in console.file.getvalue()
    assert escaped in markupsafe.escape(_in_html(name))
    assert "\x1b" not in escape_markdown(name)


def test_names_are_not_formulas(tmp_path: Path) -> None:
    """Two dollars are one to matplotlib, with an error if what is between them is none."""
    labels = LabelSet(["$x^$", "$5 and $10", "_hidden"])
    example = dataclasses.replace(make_example(labels), name="$y^$")
    figure = plot_examples([example], labels)
    save_figure(figure, tmp_path / "examples.png")
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [*labels.names, "wrong"]
    rows = [{"name": name, "iou": 0.5} for name in labels.names]
    save_figure(plot_class_bars({"run": rows}), tmp_path / "bars.png")
    save_figure(plot_matrix(np.eye(3, dtype=int), labels.names), tmp_path / "confusion.png")
    save_figure(plot_learning_curves({"$z^$": HISTORY, "b": HISTORY}), tmp_path / "curves.png")
    tile = Tile(example.name, "train", example.image, example.label, ("$fault^$",))
    plot_contact_sheet([tile], labels, "$title^$", tmp_path / "sheet.png")
    plot_class_distribution({"$s^$": np.ones(3) / 3}, labels.names, labels, tmp_path / "shares.png")


def test_a_long_legend_has_the_classes_that_occur_and_fits(tmp_path: Path) -> None:
    labels = LabelSet([f"a class with a long name {number}" for number in range(150)])
    example = make_example(labels)
    figure = plot_examples([dataclasses.replace(example, label=np.arange(70, dtype=np.int64).reshape(7, 10),
                                                prediction=np.full((7, 10), 149),
                                                image=Image.new("RGB", (10, 7)))], labels)  # fmt: skip
    save_figure(figure, tmp_path / "examples.png")
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == [*labels.names[:70], labels.names[149], "wrong"]
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= 0
    assert box.height < figure.bbox.height


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 6, 50])
def test_chosen_examples(count: int) -> None:
    rng = np.random.default_rng(count)
    labelled, predicted = rng.integers(5, 9, (2, count, 3))
    areas = np.stack([rng.integers(0, 5, (count, 3)), labelled, predicted], axis=1)
    if count > 5:
        areas[2] = 0  # without a valid pixel
    scores = [float(np.mean([h / (a + b - h) for h, a, b in image.T])) if image.any() else None for image in areas]
    ranked = sorted((i for i in range(count) if scores[i] is not None), key=lambda i: -scores[i])
    chosen = choose_examples(areas)
    assert list(chosen) == sorted(chosen, key=ranked.index)
    assert len(chosen) == min(6, len(ranked))
    if count == 50:
        assert list(chosen) == [*ranked[:2], ranked[24], ranked[25], *ranked[-2:]]
        assert list(chosen.values()) == ["best", "best", "median", "median", "worst", "worst"]
    if count:
        assert chosen[ranked[0]] == "best"
    if count > 1:
        assert chosen[ranked[-1]] == "worst"


def test_letters_that_no_font_has_are_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    letter = "\U000f1234"  # for private use, so that no such font has it
    log_boxes.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name in ("a.png", "b.png"):
            save_figure(plot_class_bars({"test": [{"name": letter, "iou": 0.5}]}), tmp_path / name)
        inline_svg(plot_class_bars({"test": [{"name": letter, "iou": 0.5}]}), "bars")
    log_boxes.cache_clear()
    assert not caught
    assert caplog.text.count("they are boxes in the figures") == 1
