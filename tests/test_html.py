"""What values look like in a notebook and in a terminal."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import hfseg
from hfseg import Interval, LabelSet, PairedTest, SegMetrics
from hfseg.doctor import Report
from hfseg.doctor.findings import MAX_LINES, Finding
from hfseg.html import html_table
from hfseg.runs import RunResults
from tests.builders import Page

EVIL = "<b>a</b> & \x1b[31m"
ESCAPED = "&lt;b&gt;a&lt;/b&gt; &amp; \\x1b[31m"


def test_every_text_of_a_table_is_text() -> None:
    table = html_table(EVIL, [EVIL, "x"], [[EVIL, EVIL], ["1", "2"]], [(1, 2, 3)])
    page = Page(table)
    shown = EVIL.replace("\x1b", "\\x1b")
    assert page.tables == [[[shown, "x"], [shown, shown], ["1", "2"]]]
    assert not page.tags["b"]
    assert table.count(ESCAPED) == 4
    assert table.count("background:rgb(1,2,3)") == 1
    assert table.index("background") < table.index("<td", table.index("<td") + 1)  # in the first cell


def test_a_label_set_shows_its_colours_and_its_repr_names_all() -> None:
    labels = LabelSet([EVIL, "b"], 7, [(1, 2, 3), (4, 5, 6)])
    html = labels._repr_html_()
    assert Page(html).tables == [[["id", "class"], ["0", EVIL.replace("\x1b", "\\x1b")], ["1", "b"]]]
    assert html.index("rgb(1,2,3)") < html.index("rgb(4,5,6)")
    assert "2 classes, ignore index 7" in html
    many = LabelSet([f"class {number}" for number in range(150)])
    assert "class 149" in repr(many)  # caches are keyed by it


def test_metrics_show_each_class(labels: LabelSet) -> None:
    metrics = SegMetrics(labels)
    assert repr(metrics) == "SegMetrics(3 classes, nothing counted yet)"
    assert "nothing counted yet" in metrics._repr_html_()
    metrics.update(np.array([[[0, 1]], [[0, 0]]]), np.array([[[0, 0]], [[0, 255]]]))
    assert repr(metrics) == f"SegMetrics(3 classes, 2 images, mean IoU {metrics.interval()})"
    head, *rows = Page(metrics._repr_html_()).tables[0]
    assert head == ["class", "IoU", "accuracy", "Dice", "pixels"]
    assert rows == [["pet", "0.6667", "0.6667", "0.8000", "3"], ["background", "0.0000", "-", "0.0000", "0"],
                    ["boundary", "-", "-", "-", "0"]]  # fmt: skip


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "the second is better: the interval does not hold 0"),
        (-0.03, -0.01, "the first is better: the interval does not hold 0"),
        (-0.01, 0.03, "no difference is shown: the interval holds 0"),
        (0.0, 0.03, "no difference is shown: the interval holds 0"),
        (float("nan"), float("nan"), "too few images"),
    ],
)
def test_a_paired_test_says_what_its_interval_says(low: float, high: float, said: str) -> None:
    found = PairedTest(0.02, low, high, 0.04)
    assert found.verdict == said
    assert Page(found._repr_html_()).tables[0][1] == ["+0.0200", f"{low:+.4f} to {high:+.4f}", "0.0400", said]


def test_numbers_are_short() -> None:
    assert repr(Interval(0.123456, 0.1, 0.2)) == "Interval(0.1235 [0.1000, 0.2000])"
    assert repr(PairedTest(0.02, -0.01, 0.03, 0.04)) == "PairedTest(+0.0200 [-0.0100, +0.0300], p = 0.0400)"
    assert str(PairedTest(0.02, -0.01, 0.03, 0.04)) == "0.0200 [-0.0100, 0.0300]"


def test_a_run_shows_its_scores_and_what_is_wrong(finished_run: Path, tmp_path: Path) -> None:
    run = RunResults.read(finished_run)
    assert len(repr(run)) < len(str(finished_run)) + 90
    assert str(run).startswith("'tiny' folder=")
    score = f"{run.metrics['test_mean_iou']:.4f} [{run.metrics['test_mean_iou_low']:.4f}"
    assert score in repr(run)
    rows = Page(run._repr_html_()).tables[0]
    assert rows[0] == ["", "validation", "test"]
    assert rows[1][0] == "mean IoU"
    assert rows[1][2].startswith(score)
    empty = RunResults.read(tmp_path)
    assert "is missing" in repr(empty)
    assert ["metrics.json", "is missing", ""] in Page(empty._repr_html_()).tables[0]


def test_a_check_shows_shares_and_findings(labels: LabelSet) -> None:
    counts = {"train": np.array([1, 2, 1, 4])}
    finding = Finding("warning", "odd", ("/data/<x>.png",), "is odd", "mend it")
    report = Report("pets", "/data", labels, {"train": 9}, 9, counts, counts, [finding] * (MAX_LINES + 2))
    assert repr(report) == f"Report(pets: 9 samples checked: 0 errors, {MAX_LINES + 2} warnings)"
    shares, findings = Page(report._repr_html_()).tables
    assert shares == [["share of the pixels", "train (9)"], ["pet", "25.00 %"], ["background", "50.00 %"],
                      ["boundary", "25.00 %"], ["ignored (255)", "50.00 %"]]  # fmt: skip
    assert findings[1:] == [["warning: odd", "<x>.png: is odd", "mend it"]] * MAX_LINES
    console = Console(file=io.StringIO(), width=200)
    report.print_findings(console)
    assert f"warning: odd ({MAX_LINES + 2})" in console.file.getvalue()
    assert console.file.getvalue().count("is odd") == MAX_LINES
    clean = Report("pets", "", labels, {"train": 9}, 9, counts, counts, [])
    assert len(Page(clean._repr_html_()).tables) == 1


def test_names_of_the_notebooks_are_public() -> None:
    for name in ("load_model", "plot_classes", "plot_confusion", "plot_curves", "show"):
        assert name in hfseg.__all__
        assert callable(getattr(hfseg, name))
