"""A model that is of no use, or was chosen by few images, says so before anything else."""

import html
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hfseg.doctor.diagnosis import judge_validation
from hfseg.metrics import caveats, half_width
from hfseg.publishing.card import build_card
from hfseg.reporting import print_table, write_report

GOOD = {"test_mean_iou": 0.7, "test_constant_mean_iou": 0.2, "test_constant_class": "pet", "eval_num_images": 50,
        "eval_mean_iou_low": 0.6, "eval_mean_iou_high": 0.75, "eval_temperature": 1.2}  # fmt: skip
USELESS = "This model is of no use: its mean IoU on test is 0.2000, and answering 'pet' everywhere scores 0.2000."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, []),
        ({"test_mean_iou": 0.2}, [USELESS]),
        ({"test_mean_iou": None}, []),
        (
            {"eval_mean_iou_high": 0.81},
            ["Checkpoint and temperature rest on 50 validation images, by which mean"],
        ),
        ({"eval_mean_iou_high": 0.81, "eval_temperature": None}, ["The checkpoint rests on 50 validation images"]),
        (
            {"eval_mean_iou_low": None, "eval_num_images": 1},
            ["Checkpoint and temperature rest on 1 validation image"],
        ),
        ({"eval_num_images": 2}, ["Checkpoint and temperature rest on 2 validation images, by which"]),
        ({"test_mean_iou": 0.1, "eval_mean_iou_low": 0.1}, ["This model is of no use", "Checkpoint and temperature"]),
    ],
)
def test_what_is_said(changes: dict[str, Any], said: list[str]) -> None:
    found = caveats(GOOD | changes)
    assert [text[: len(start)] for text, start in zip(found, said, strict=True)] == said


def test_scores_of_older_runs_say_nothing_of_their_number() -> None:
    assert caveats({"test_mean_iou": 0.7, "eval_mean_iou": 0.6}) == []


def test_it_is_said_first_everywhere(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    folder = Path(shutil.copytree(finished_run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoint-*")))
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    assert metrics["eval_num_images"] == 4
    metrics |= {
        "test_mean_iou": 0.2,
        "test_constant_mean_iou": 0.2,
        "eval_mean_iou_low": 0.1,
        "eval_mean_iou_high": 0.5,
    }
    metrics["test_constant_class"] = "pet"
    path.write_text(json.dumps(metrics))
    print_table(json.loads((folder / "per_class.json").read_text()), metrics)
    printed = capsys.readouterr().out
    assert printed.startswith(USELESS)
    card = build_card(folder).text
    page = html.unescape(write_report(folder).read_text())
    for text in (" ".join(printed.split()), card, page):
        assert "4 validation images, by which mean IoU is known to about +-0.37 (95 %)" in text
    assert card.split("\n\n")[1] == f"> **{USELESS}**"
    assert page.index(USELESS) < page.index("trained from")


@pytest.mark.parametrize(("number", "findings"), [(0, 0), (1, 1), (2, 1), (12, 1), (13, 0)])
def test_the_doctor_counts_the_validation_images(number: int, findings: int) -> None:
    found = judge_validation({"train": 100, "validation": number, "test": 1})
    assert [(each.severity, each.fault) for each in found] == [("warning", "small-validation")] * findings
    assert all(each.what.startswith(f"{number} image") for each in found)


def test_intervals_of_few_images_are_those_of_students_t() -> None:
    """Its 97.5 % quantiles, from any table."""
    for number, quantile in ((4, 3.182), (10, 2.262), (30, 2.045), (1000, 1.962)):
        assert half_width(0.01, number) == pytest.approx(0.01 * quantile, rel=0.01)
    assert half_width(0.01, 2) > 0.09
    assert half_width(1.0, 2) == 1
