"""Confidence, against loops over all pixels, torchmetrics, and temperatures found by brute force."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from hfseg import LabelSet, SegMetrics, UserError, predict
from hfseg.config import EvalConfig
from hfseg.metrics import CalibrationCounter
from hfseg.metrics.calibration import NUM_BINS, UNIT, _best_octave, _change
from hfseg.models import segmentation_loss, store_temperature, temperature_of
from tests.builders import make_trainer, opinionated_model
from tests.extras import needs

IGNORE = 255
MODES = {
    "resize": EvalConfig(),
    "whole": EvalConfig(mode="whole"),
    "slide": EvalConfig(mode="slide", crop=32, stride=20),
    "views": EvalConfig(scales=(0.75, 1.5), flip=True),
}


def noisy(
    shape: tuple[int, int], num_labels: int, seed: int, over_confidence: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Small logits (1, K, h, w), and labels (1, 4h, 4w) that are drawn from their softmax; every tenth is ignored."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(1, num_labels, *shape, generator=generator)
    upsampled = F.interpolate(logits, scale_factor=4, mode="bilinear")
    probabilities = upsampled.softmax(1).movedim(1, -1).reshape(-1, num_labels)
    labels = probabilities.multinomial(1, generator=generator).view(1, *upsampled.shape[2:])
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = IGNORE
    return over_confidence * logits, labels


def reference(samples: list[tuple[NDArray, NDArray]]) -> tuple[NDArray, float, float]:
    """Bins (15, 3: pixels, confidence, hits), ECE and Brier score, pixel by pixel from probabilities (K, H, W)."""
    bins, brier = np.zeros((NUM_BINS, 3)), 0.0
    for probabilities, labels in samples:
        for (y, x), label in np.ndenumerate(labels):
            if label != IGNORE:
                values = probabilities[:, y, x].astype(np.float64)
                number = next(m for m in range(NUM_BINS) if values.max() <= (m + 1) / NUM_BINS or m == NUM_BINS - 1)
                bins[number] += 1, values.max(), values.argmax() == label
                brier += ((values - np.eye(len(values))[label]) ** 2).sum()
    total = bins[:, 0].sum()
    error = sum(n / total * abs(hits / n - confidence / n) for n, confidence, hits in bins if n)
    return bins, error, brier / total


def probabilities_of(logits: torch.Tensor, labels: torch.Tensor, temperature: float = 1.0) -> tuple[NDArray, NDArray]:
    upsampled = F.interpolate(logits.double(), size=labels.shape[1:], mode="bilinear") / temperature
    return upsampled.softmax(1)[0].numpy(), labels[0].numpy()


@pytest.mark.parametrize("num_labels", [2, 5])
def test_images_of_different_sizes_against_a_loop_over_pixels(num_labels: int) -> None:
    samples = [noisy(shape, num_labels, seed, 2.5) for seed, shape in enumerate([(7, 9), (12, 5), (1, 3)])]
    raw, calibrated = SegMetrics(num_labels, calibration=True), SegMetrics(num_labels, temperature=2.5)
    for logits, labels in samples:
        raw.update_logits(logits, labels)
        calibrated.update_logits(logits.numpy(), labels.numpy())
    bins, error, brier = reference([probabilities_of(*sample) for sample in samples])
    assert raw.compute()["ece"] == pytest.approx(error, rel=1e-5)
    assert raw.compute()["brier"] == pytest.approx(brier, rel=1e-5)
    found = raw.confidence.bins[0]
    assert np.array_equal(found[:, [0, 2]], bins[:, [0, 2]])
    np.testing.assert_allclose(found[:, 1] / UNIT, bins[:, 1], rtol=1e-6)
    bins, error, brier = reference([probabilities_of(*sample, 2.5) for sample in samples])
    scores = calibrated.compute()
    assert (scores["ece_calibrated"], scores["brier_calibrated"]) == pytest.approx((error, brier), rel=1e-5)
    assert (scores["ece"], scores["brier"]) == (raw.compute()["ece"], raw.compute()["brier"])
    assert scores["ece_calibrated"] < scores["ece"]


def test_ece_is_that_of_torchmetrics() -> None:
    needs("peers")
    from torchmetrics import classification

    theirs = classification.MulticlassCalibrationError(4, n_bins=15, norm="l1", ignore_index=IGNORE)
    metrics = SegMetrics(4, calibration=True)
    for seed in range(3):
        logits, labels = noisy((8, 6), 4, seed, 1.7)
        metrics.update_logits(logits, labels)
        theirs.update(F.interpolate(logits, scale_factor=4, mode="bilinear"), labels)
    assert metrics.compute()["ece"] == pytest.approx(float(theirs.compute()), rel=1e-4)


def test_strips_batches_and_order_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = (torch.cat(parts) for parts in zip(*(noisy((9, 8), 3, seed) for seed in range(3)), strict=True))
    whole = CalibrationCounter(IGNORE)
    segmentation_loss(logits, labels, observe=whole)
    monkeypatch.setattr("hfseg.models.loss.BAND_ELEMENTS_CPU", 3 * 3 * 32 * 4)  # four rows a strip
    strips, each = CalibrationCounter(IGNORE), [CalibrationCounter(IGNORE) for _ in logits]
    segmentation_loss(logits, labels, observe=strips)
    for counter, small, label in zip(each, logits, labels, strict=True):
        segmentation_loss(small[None], label[None], observe=counter)
    for other in (strips.bins, torch.cat([counter.bins for counter in each])):
        assert other.equal(whole.bins)
    for slopes in (strips.slopes, torch.cat([counter.slopes for counter in each])):
        torch.testing.assert_close(slopes, whole.slopes, rtol=1e-6, atol=1e-6)
    first, second, both = (SegMetrics(3, calibration=True) for _ in range(3))
    first.update_logits(logits[:1], labels[:1])
    second.update_logits(logits[1:], labels[1:])
    both.update_logits(logits, labels)
    second.merge(first)
    assert np.array_equal(second.confidence.bins, both.confidence.bins)
    assert second.fit_temperature() == pytest.approx(both.fit_temperature(), rel=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_any_mode_scores_the_confidence_that_predict_returns(tmp_path: Path, labels: LabelSet, mode: str) -> None:
    model, found = opinionated_model(labels), []
    for batch_size in (1, 3):
        metrics = SegMetrics(labels, calibration=True)
        trainer = make_trainer(
            tmp_path, labels, model, evaluation=MODES[mode], compute_metrics=metrics,
            per_device_eval_batch_size=batch_size,
        )  # fmt: skip
        logs = trainer.evaluate()
        found.append((metrics.confidence.bins, metrics.fit_temperature()))
    rows = [trainer.eval_dataset.rows[index] for index in range(len(trainer.eval_dataset))]
    assert len({row.label.shape for row in rows}) > 1
    _, probabilities = predict(
        model, [np.array(row.pixels()) for row in rows], trainer.processing_class, return_probabilities=True,
        eval=MODES[mode],
    )  # fmt: skip
    bins, error, brier = reference([(p, row.label) for p, row in zip(probabilities, rows, strict=True)])
    assert logs["eval_ece"] == pytest.approx(error, rel=1e-3)
    assert logs["eval_brier"] == pytest.approx(brier, rel=1e-3)
    for counts, temperature in found:
        assert np.abs(counts[0][:, [0, 2]] - bins[:, [0, 2]]).sum() <= 8  # rounding at a bin's edge
        assert temperature == pytest.approx(found[0][1], rel=1e-4)


def best_temperature(samples: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    """By L-BFGS on the cross-entropy of all pixels."""
    logits = torch.cat([F.interpolate(x, size=y.shape[1:], mode="bilinear").flatten(2)[0].T for x, y in samples])
    labels = torch.cat([y.flatten() for _, y in samples])
    inverse = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([inverse], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits.double() * inverse, labels, ignore_index=IGNORE)
        loss.backward()
        return loss

    optimizer.step(closure)
    return 1 / inverse.item()


@pytest.mark.parametrize("over_confidence", [0.2, 1.0, 3.0, 9.0])
def test_temperature_is_the_best_one(over_confidence: float) -> None:
    samples = [noisy((40 + 3 * seed, 40), 4, seed, over_confidence) for seed in range(10)]
    metrics = SegMetrics(4, calibration=True)
    for logits, labels in samples:
        metrics.update_logits(logits, labels)
    fitted = metrics.fit_temperature()
    assert fitted == pytest.approx(best_temperature(samples), rel=0.02)  # which sees 25 times as many pixels
    assert fitted == pytest.approx(over_confidence, rel=0.03)
    # on the very pixels that are used, the interpolation is all that differs
    chosen = [(F.interpolate(x, scale_factor=4, mode="bilinear")[..., ::5, ::5], y[:, ::5, ::5]) for x, y in samples]
    assert fitted == pytest.approx(best_temperature(chosen), rel=1e-3)


def cross_entropy(samples: list[tuple[torch.Tensor, torch.Tensor]], temperature: float) -> float:
    """Summed over every fifth pixel of every fifth row."""
    total = 0.0
    for logits, labels in samples:
        large = F.interpolate(logits.double(), scale_factor=4, mode="bilinear")[..., ::5, ::5] / temperature
        total += float(F.cross_entropy(large, labels[:, ::5, ::5], ignore_index=IGNORE, reduction="sum"))
    return total


@pytest.mark.parametrize("over_confidence", [(3.0, 3.0), (0.3, 4.0), (1.0, 1.0), (0.5, 1.6)])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_temperature_helps_where_it_does_on_the_other_half(
    over_confidence: tuple[float, float], batch_size: int
) -> None:
    """Against fits and sums over the pixels of both halves; images of even and of odd number differ."""
    samples = [noisy((16, 16), 4, seed, over_confidence[seed % 2]) for seed in range(6)]
    metrics = SegMetrics(4, calibration=True)
    for start in range(0, 6, batch_size):
        logits, labels = zip(*samples[start : start + batch_size], strict=True)
        metrics.update_logits(torch.cat(logits), torch.cat(labels))
    change = 0.0
    for fitted, tried in ((samples[::2], samples[1::2]), (samples[1::2], samples[::2])):
        half = SegMetrics(4, calibration=True)
        for logits, labels in fitted:
            half.update_logits(logits, labels)
        change += cross_entropy(tried, half.fit_temperature()) - cross_entropy(tried, 1.0)
    assert metrics.temperature_helps() == (change < 0)
    first, second = metrics.confidence.slopes
    found = _change(second, _best_octave(first)) + _change(first, _best_octave(second))
    assert found == pytest.approx(change, rel=1e-3, abs=1e-2)
    merged = SegMetrics(4, calibration=True)
    merged.update_logits(*samples[0])
    rest = SegMetrics(4, calibration=True)
    for logits, labels in samples[1:]:
        rest.update_logits(logits, labels)
    merged.merge(rest)
    np.testing.assert_allclose(merged.confidence.slopes, metrics.confidence.slopes, rtol=1e-6, atol=1e-6)


def test_no_temperature_of_one_image() -> None:
    metrics = SegMetrics(4, calibration=True)
    assert not metrics.temperature_helps()
    metrics.update_logits(*noisy((16, 16), 4, 0, 5.0))
    assert metrics.fit_temperature() > 2
    assert not metrics.temperature_helps()


def test_temperatures_at_the_ends() -> None:
    metrics = SegMetrics(2, calibration=True)
    assert metrics.fit_temperature() == 1
    assert np.isnan(metrics.compute()["ece"])
    metrics.update_logits(torch.zeros(1, 2, 8, 8), torch.zeros(1, 8, 8, dtype=torch.int64))
    assert metrics.fit_temperature() == 1  # nothing to scale
    right = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 8, 8)
    metrics.update_logits(right, torch.zeros(1, 8, 8, dtype=torch.int64))
    assert metrics.fit_temperature() == 1 / 16  # always right: the surer the better
    for _ in range(2):
        metrics.update_logits(right, torch.ones(1, 8, 8, dtype=torch.int64))
    assert metrics.fit_temperature() == 16  # wrong more often than not


def test_predict_divides_by_the_models_temperature(tmp_path: Path, labels: LabelSet) -> None:
    model = opinionated_model(labels)
    trainer = make_trainer(tmp_path, labels, model)
    image = np.array(trainer.eval_dataset.rows[0].pixels())
    masks, before = predict(model, image, trainer.processing_class, return_probabilities=True)
    model.config.hfseg = {"temperature": 2.0}
    model.save_pretrained(tmp_path / "model")
    loaded = type(model).from_pretrained(tmp_path / "model")
    assert temperature_of(loaded.config) == 2
    same, after = predict(loaded, image, trainer.processing_class, return_probabilities=True)
    assert np.array_equal(masks[0], same[0])
    expected = np.sqrt(before[0]) / np.sqrt(before[0]).sum(0)  # what half the logits give
    np.testing.assert_allclose(after[0], expected, rtol=1e-4, atol=1e-6)
    assert np.abs(after[0] - before[0]).max() > 0.01
    for wrong in (0, -1.0, "2", float("nan"), True):
        loaded.config.hfseg = {"temperature": wrong}
        with pytest.raises(UserError, match="not a positive number"):
            predict(loaded, image, trainer.processing_class, return_probabilities=True)
        predict(loaded, image, trainer.processing_class)


def test_what_cannot_be_scored_is_refused() -> None:
    metrics = SegMetrics(2, calibration=True)
    ids = torch.zeros(1, 2, 2, dtype=torch.int64)
    with pytest.raises(UserError, match="update_logits"):
        metrics.update(ids, ids)
    with pytest.raises(UserError, match="Logits have shape"):
        metrics.update_logits(torch.zeros(1, 3, 2, 2), ids)
    with pytest.raises(UserError, match="NaN or infinite"):
        metrics.update_logits(torch.full((1, 2, 2, 2), torch.nan), ids)
    with pytest.raises(UserError, match="calibration=True into calibration=False"):
        SegMetrics(2).merge(metrics)
    with pytest.raises(UserError, match="positive"):
        SegMetrics(2, temperature=0.0)
    with pytest.raises(UserError, match="calibration=True"):
        SegMetrics(2).fit_temperature()
    with pytest.raises(UserError, match="as they are"):
        SegMetrics(2, temperature=2.0).fit_temperature()


def test_a_model_loses_a_temperature_that_no_longer_holds(tmp_path: Path, labels: LabelSet) -> None:
    model = opinionated_model(labels)
    model.config.hfseg = {"version": "1", "temperature": 7.5}
    model.save_pretrained(tmp_path)
    for temperature in (2.0, None, None):
        store_temperature(tmp_path, temperature)
        config = type(model.config).from_pretrained(tmp_path)
        assert temperature_of(config) == temperature or temperature is None
        assert config.hfseg == {"version": "1"} | ({} if temperature is None else {"temperature": temperature})
