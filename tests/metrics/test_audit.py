"""Each convention against the package's own code where it is installed, and against its definition in loops."""

import os
import subprocess
import sys
from pathlib import Path

import evaluate
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from hfseg import SegMetrics, UserError, evaluate_metric
from tests.builders import Masks, audited, evaluate_mean_iou, mask_cases
from tests.extras import needs


def areas_in_loops(prediction: np.ndarray, reference: np.ndarray, num_labels: int) -> list[tuple[int, int, int]]:
    """Intersection, union and labelled pixels of each class."""
    valid = reference != 255
    rows = []
    for index in range(num_labels):
        guess, truth = (prediction == index) & valid, reference == index
        rows.append((int((guess & truth).sum()), int((guess | truth).sum()), int(truth.sum())))
    return rows


def maps(seed: int, num_images: int = 6, num_labels: int = 5) -> tuple[Masks, Masks]:
    """Images that lack classes each; class 3 is only ever predicted, class 4 is nowhere."""
    rng = np.random.default_rng(seed)
    references = [rng.choice([*rng.choice(num_labels - 2, 2), 255], (8, 9)) for _ in range(num_images)]
    predictions = [np.where(rng.random(one.shape) < 0.6, one, rng.integers(0, num_labels - 1)) for one in references]
    return [np.where(one == 255, 0, one) for one in predictions], references


@pytest.mark.parametrize("seed", range(5))
def test_definitions_in_loops(seed: int) -> None:
    predictions, references = maps(seed)
    per_image = [areas_in_loops(*pair, 5) for pair in zip(predictions, references, strict=True)]
    total = np.sum(per_image, axis=0).tolist()
    values = audited(predictions, references, 5)

    pairs = [i / u for image in per_image for i, u, _ in image if u]
    assert values["torchmetrics segmentation.MeanIoU()"] == pytest.approx(np.mean(pairs))
    per_class = [[i / u for i, u, _ in column if u] for column in zip(*per_image, strict=True)]
    means = [np.mean(column) if column else -1 for column in per_class]
    assert values["torchmetrics segmentation.MeanIoU(per_class=True), mean"] == pytest.approx(np.mean(means))
    micro = sum(i for i, _, _ in total) / sum(u for _, u, _ in total)
    assert values["torchmetrics JaccardIndex(average='micro')"] == pytest.approx(micro)
    weighted = sum(n * i / u for i, u, n in total if u) / sum(n for _, _, n in total)
    assert values["torchmetrics JaccardIndex(average='weighted')"] == pytest.approx(weighted)
    macro = np.mean([i / u for i, u, _ in total if u])
    assert values["torchmetrics JaccardIndex(average='macro')"] == values["mmseg IoUMetric"] == pytest.approx(macro)

    assert values["smp iou_score(reduction='micro')"] == pytest.approx(micro)
    assert values["smp iou_score(reduction='macro')"] == pytest.approx(
        np.mean([i / u if u else 1 for i, u, _ in total])
    )
    micro_images = [sum(i for i, _, _ in image) / sum(u for _, u, _ in image) for image in per_image]
    assert values["smp iou_score(reduction='micro-imagewise')"] == pytest.approx(np.mean(micro_images))
    every = [i / u if u else 1 for image in per_image for i, u, _ in image]
    assert values["smp iou_score(reduction='macro-imagewise')"] == pytest.approx(np.mean(every))
    labelled = [i / u for i, u, n in total if n]
    assert values["ultralytics metrics/mIoU"] == pytest.approx(np.mean(labelled))
    assert values["torchmetrics segmentation.MeanIoU()"] != values["mmseg IoUMetric"]
    assert len({round(value, 9) for value in values.values()}) >= 9  # for the same predictions


@settings(max_examples=50, deadline=None)
@given(mask_cases())
def test_evaluate_with_and_without_class_0(case: tuple[int, int, Masks, Masks]) -> None:
    num_labels, ignore_index, predictions, references = case
    values = audited(predictions, references, num_labels, ignore_index)
    expected = evaluate_mean_iou(predictions, references, num_labels, ignore_index)["mean_iou"]
    assert values["evaluate mean_iou(ignore_index=255)"] == pytest.approx(expected)
    if all(((reference == 0) | (reference == ignore_index)).all() for reference in references):
        return  # nothing is left
    expected = evaluate_mean_iou(predictions, references, num_labels, ignore_index=0)["mean_iou"]
    ours = values["evaluate mean_iou(ignore_index=0), as in transformers' examples"]
    assert ours == pytest.approx(expected, nan_ok=True)


def test_cityscapes_scripts_own_code() -> None:
    needs("cityscapes")
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as scripts
    from cityscapesscripts.helpers.labels import labels as table

    scored = [label for label in table if not label.ignoreInEval]
    rng = np.random.default_rng(0)
    truth = rng.choice([*range(15), 255], (4, 30, 40))  # four classes are nowhere in the labels
    predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 16, truth.shape)) % 255
    scripts.args.evalLabels = [label.id for label in table if label.id >= 0]
    scripts.args.evalInstLevelScore, scripts.args.avgClassSize = False, {}
    confusion = scripts.generateMatrix(scripts.args)
    ids = {label.trainId: label.id for label in scored} | {255: 0}  # id 0 is ignored in evaluation
    for row, column in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        confusion[ids[row], ids[column]] += 1
    classes = {label.name: scripts.getIouScoreForLabel(label.id, confusion, scripts.args) for label in scored}
    assert audited(list(predicted), list(truth), 19)["cityscapesScripts averageScoreClasses"] == pytest.approx(
        scripts.getScoreAverage(classes, scripts.args)
    )

    metrics = SegMetrics(19)
    metrics.update(predicted, truth)
    ours = metrics.category_iou({str(label.trainId): label.category for label in scored})
    assert len(ours) == 7
    for category, iou in ours.items():
        theirs = scripts.getIouScoreForCategory(category, confusion, scripts.args)
        assert iou == pytest.approx(theirs, nan_ok=True), category
    with pytest.raises(UserError, match="Classes without a category: 18"):
        metrics.category_iou({str(index): "any" for index in range(18)})


def test_torchmetrics_own_code() -> None:
    needs("peers")
    from torchmetrics import classification, segmentation

    predictions, references = (torch.as_tensor(np.stack(masks)) for masks in maps(0))
    references = torch.where(references == 255, predictions, references)  # MeanIoU has no ignore_index
    values = audited(list(predictions.numpy()), list(references.numpy()), 5)
    average = segmentation.MeanIoU(5, input_format="index")
    average.update(predictions[:2], references[:2])
    average.update(predictions[2:], references[2:])
    assert values["torchmetrics segmentation.MeanIoU()"] == pytest.approx(float(average.compute()), rel=1e-5)
    per_class = segmentation.MeanIoU(5, per_class=True, input_format="index")
    per_class.update(predictions, references)
    expected = float(per_class.compute().mean())
    assert values["torchmetrics segmentation.MeanIoU(per_class=True), mean"] == pytest.approx(expected, rel=1e-5)
    for average_name in ("macro", "micro", "weighted"):
        jaccard = classification.MulticlassJaccardIndex(5, average=average_name)
        expected = float(jaccard(predictions, references))
        assert values[f"torchmetrics JaccardIndex(average='{average_name}')"] == pytest.approx(expected, rel=1e-5)


def test_smp_own_code() -> None:
    needs("peers")
    from segmentation_models_pytorch.metrics import functional

    predictions, references = (torch.as_tensor(np.stack(masks)) for masks in maps(1))
    stats = functional.get_stats(predictions, references, mode="multiclass", num_classes=5, ignore_index=255)
    values = audited(*maps(1), 5)
    for reduction in ("micro", "macro", "micro-imagewise", "macro-imagewise"):
        expected = float(functional.iou_score(*stats, reduction=reduction))
        assert values[f"smp iou_score(reduction='{reduction}')"] == pytest.approx(expected, rel=1e-5)


ULTRALYTICS = """
import sys
import numpy as np
import torch
from ultralytics.utils.metrics import SemanticMetrics

metrics = SemanticMetrics(names={index: str(index) for index in range(5)})
predictions, references = (np.load(f"{sys.argv[1]}/{name}.npy") for name in ("predictions", "references"))
metrics.update_stats(torch.as_tensor(predictions), torch.as_tensor(references))
metrics.process()
print(metrics.miou)
"""


def test_ultralytics_own_code(tmp_path: Path) -> None:
    needs("peers")
    for masks, name in zip(maps(2), ("predictions", "references"), strict=True):
        np.save(tmp_path / f"{name}.npy", np.stack(masks))
    # in a process of its own: importing it replaces PIL's Image.open for everybody
    words = [sys.executable, "-c", ULTRALYTICS, str(tmp_path)]
    environment = os.environ | {"YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(tmp_path)}
    result = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    theirs = float(result.stdout.splitlines()[-1])
    assert audited(*maps(2), 5)["ultralytics metrics/mIoU"] == pytest.approx(theirs, rel=1e-5)


def test_nothing_counted_is_undefined_and_what_cannot_be_told_is_none() -> None:
    rows = SegMetrics(3).audit()
    assert {row.value is None or np.isnan(row.value) or row.value in (1, -1) for row in rows} == {True}
    assert [row.package for row in rows if row.value is None] == ["torchmetrics 1.4", "evaluate 0.4"]


def test_evaluate_metric_alone_and_combined() -> None:
    predictions, references = maps(3)
    expected = SegMetrics(5)
    expected.update(predictions, references)
    metric = evaluate_metric(5)
    assert isinstance(metric, evaluate.Metric)
    for _ in range(2):  # compute starts from zero
        metric.add(prediction=predictions[0].tolist(), reference=references[0].tolist())
        metric.add_batch(predictions=predictions[1:3], references=references[1:3])
        results = metric.compute(predictions=predictions[3:], references=torch.as_tensor(np.stack(references[3:])))
        np.testing.assert_equal(results, expected.compute())
    both = evaluate.combine([evaluate_metric(5), evaluate_metric(5)])
    both.add_batch(predictions=predictions, references=references)
    results = both.compute()
    assert results["seg_metric_0_mean_iou"] == results["seg_metric_1_mean_iou"] == expected.compute()["mean_iou"]
    with pytest.raises(UserError, match="Label ids"):
        metric.add(prediction=[[0]], reference=[[7]])
