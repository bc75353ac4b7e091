"""`hfseg.plot_curves`, `plot_classes` and `plot_confusion` draw what runs and metrics hold."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import hfseg
from hfseg import LabelSet, SegMetrics, UserError
from hfseg.reporting import plot_class_bars, plot_learning_curves, plot_matrix
from hfseg.runs import RunResults, read_history


def metrics_of(labels: LabelSet, seed: int) -> SegMetrics:
    rng = np.random.default_rng(seed)
    metrics = SegMetrics(labels)
    metrics.update(rng.integers(0, 3, (4, 8, 8)), rng.integers(0, 3, (4, 8, 8)))
    return metrics


def test_curves_are_those_of_the_history(finished_run: Path, tmp_path: Path) -> None:
    history = read_history(finished_run / "history.jsonl")
    expected = plot_learning_curves({"tiny": history})._repr_png_()
    for source in (finished_run, str(finished_run), RunResults.read(finished_run), history):
        assert hfseg.plot_curves(source)._repr_png_() == expected
    other = tmp_path / "other"
    shutil.copytree(finished_run, other, ignore=shutil.ignore_patterns("checkpoint-*", "model"))
    legend = hfseg.plot_curves(finished_run, other).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["tiny 1", "tiny 2"]
    config = (other / "run_config.yaml").read_text().replace("name: tiny", "name: second")
    (other / "run_config.yaml").write_text(config)
    legend = hfseg.plot_curves(finished_run, other).legends[0]
    assert [text.get_text() for text in legend.get_texts()] == ["tiny", "second"]


def test_classes_and_confusion_are_those_of_the_split(finished_run: Path, labels: LabelSet) -> None:
    rows = json.loads((finished_run / "per_class.json").read_text())
    counts = np.load(finished_run / "counts.npz")
    assert rows["eval"] != rows["test"]
    for split in ("eval", "test"):
        bars = hfseg.plot_classes(finished_run, split=split)._repr_png_()
        assert bars == plot_class_bars({"tiny": rows[split]})._repr_png_()
        matrix = hfseg.plot_confusion(finished_run, split)._repr_png_()
        assert matrix == plot_matrix(counts[f"{split}_confusion"], labels.names)._repr_png_()
    assert len(hfseg.plot_classes(finished_run, metrics_of(labels, 0)).axes[0].patches) == 6


def test_of_metrics(labels: LabelSet) -> None:
    first, second = metrics_of(labels, 1), metrics_of(labels, 2)
    figure = hfseg.plot_classes(first, second)
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [row["iou"] for metrics in (first, second) for row in metrics.per_class()]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1", "2"]
    shown = hfseg.plot_confusion(first).axes[0].images[0].get_array()
    assert np.allclose(shown, 100 * first.confusion / first.confusion.sum(1, keepdims=True))


def test_what_there_is_nothing_of_is_said(finished_run: Path, tmp_path: Path, labels: LabelSet) -> None:
    for call in (hfseg.plot_curves, hfseg.plot_classes):
        with pytest.raises(UserError, match="There is no run to draw"):
            call()
    for call in (hfseg.plot_curves, hfseg.plot_classes, hfseg.plot_confusion):
        with pytest.raises(UserError) as error:
            call(finished_run.parent / "tny")
        assert f"there is no run_config.yaml in it. Did you mean `{finished_run}`?" in str(error.value)
    with pytest.raises(UserError, match="splits are 'eval'"):
        hfseg.plot_classes(finished_run, split="val")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="need the same classes"):
        hfseg.plot_classes(finished_run, SegMetrics(2))
    shutil.copy(finished_run / "run_config.yaml", tmp_path)
    with pytest.raises(UserError, match=r"no scores of the test split: .*per_class\.json is missing"):
        hfseg.plot_classes(tmp_path)
    shutil.copy(finished_run / "per_class.json", tmp_path)
    with pytest.raises(UserError, match=r"no counts\.npz with the test split"):
        hfseg.plot_confusion(tmp_path)
    assert "nothing recorded" in [text.get_text() for text in hfseg.plot_curves(tmp_path).axes[0].texts]
