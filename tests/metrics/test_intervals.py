import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hfseg import SegMetrics, UserError, bootstrap_interval, paired_test
from hfseg.metrics import Counts, mean_iou
from hfseg.metrics.scores import pixel_accuracy

PIXELS = np.array([600, 300, 60])  # labelled per class in an average image


def draw_areas(rng: np.random.Generator, num_images: int, skill: float = 1.5) -> Counts:
    """Images of a population: they differ in content and in difficulty, as real ones do."""
    labelled = rng.poisson(PIXELS * rng.gamma(4, 0.25, (num_images, 3)))
    return predict(rng, labelled, rng.normal(size=num_images), skill)


def predict(rng: np.random.Generator, labelled: Counts, difficulty: np.ndarray, skill: float) -> Counts:
    """A model's answers on them: a pixel is right with a chance that falls with the image's difficulty."""
    right = 1 / (1 + np.exp(-skill + 0.7 * difficulty))
    hits = rng.binomial(labelled, right[:, None])
    missed = labelled - hits
    return np.stack([hits, labelled, hits + missed[:, [1, 0, 0]] // 2 + missed[:, [2, 2, 1]] // 2], axis=1)


def test_intervals_cover_the_populations_score() -> None:
    rng = np.random.default_rng(0)
    truth = mean_iou(draw_areas(rng, 200_000).sum(0))
    intervals = [bootstrap_interval(draw_areas(rng, 100), num_resamples=400, seed=run) for run in range(400)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 <= covered <= 0.98  # 95 % with a standard error of 1.1 %


def paired(rng: np.random.Generator, num_images: int, gain: float) -> tuple[Counts, Counts]:
    labelled = rng.poisson(PIXELS * rng.gamma(4, 0.25, (num_images, 3)))
    difficulty = rng.normal(size=num_images)
    return predict(rng, labelled, difficulty, 1.5), predict(rng, labelled, difficulty, 1.5 + gain)


def test_differences_are_covered_and_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(1)
    first, second = paired(rng, 200_000, gain=0.05)
    truth = mean_iou(second.sum(0)) - mean_iou(first.sum(0))
    tests = [paired_test(*paired(rng, 60, gain=0.05), num_resamples=250, seed=run) for run in range(300)]
    assert 0.91 <= np.mean([test.low <= truth <= test.high for test in tests]) <= 0.98
    null = [paired_test(*paired(rng, 60, gain=0), num_resamples=250, seed=run).p_value for run in range(300)]
    assert np.mean([value <= 0.05 for value in null]) <= 0.09
    assert 0.4 <= np.mean(null) <= 0.6  # uniform under the null
    # pairing takes out what the images have in common
    first, second = paired(rng, 60, gain=0.3)
    test, alone = paired_test(first, second), bootstrap_interval(first)
    assert test.high - test.low < (alone.high - alone.low) / 2
    assert test.p_value < 0.01
    assert test.low > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 12))
def test_equals_a_loop_over_drawn_images(seed: int, num_images: int) -> None:
    """The oracle draws the images themselves, one by one, by the same weights."""
    areas = draw_areas(np.random.default_rng(seed), num_images)
    rng = np.random.default_rng(7)
    scores = []
    for weights in rng.multinomial(num_images, [1 / num_images] * num_images, size=40):
        drawn = [areas[image] for image, times in enumerate(weights) for _ in range(times)]
        scores.append(float(pixel_accuracy(np.sum(drawn, axis=0))))
    interval = bootstrap_interval(areas, pixel_accuracy, num_resamples=40, seed=7)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(scores, [0.025, 0.975])), abs=1e-12)
    assert interval == bootstrap_interval(areas, pixel_accuracy, num_resamples=40, seed=7)


def test_a_model_equals_itself_and_swapping_turns_the_sign() -> None:
    first, second = paired(np.random.default_rng(2), 30, gain=0.1)
    same = paired_test(first, first)
    assert (same.value, same.low, same.high, same.p_value) == (0, 0, 0, 1)
    forth, back = paired_test(first, second), paired_test(second, first)
    assert forth.value == -back.value
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))


def test_few_images_have_no_interval() -> None:
    areas = draw_areas(np.random.default_rng(3), 1)
    assert np.isnan([bootstrap_interval(areas).low, bootstrap_interval(areas[:0]).high]).all()
    assert np.isnan(bootstrap_interval(areas[:0]).value)


def test_other_images_are_refused_by_name() -> None:
    first, second = paired(np.random.default_rng(4), 5, gain=0)
    with pytest.raises(UserError, match="image 1 has"):
        paired_test(first, second[[0, 2, 1, 3, 4]])
    with pytest.raises(UserError, match="5 images of 3 classes and 4 images"):
        paired_test(first, second[:4])


def test_from_metrics_and_in_time() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 19, (1000, 8, 8))
    first, second = SegMetrics(19), SegMetrics(19)
    first.update(np.where(rng.random(labels.shape) < 0.5, labels, 0), labels)
    second.update(np.where(rng.random(labels.shape) < 0.6, labels, 0), labels)
    start = time.process_time()
    interval = first.interval()
    assert time.process_time() - start < 4  # 0.4 s on an idle core
    assert interval.low < interval.value == first.compute()["mean_iou"] < interval.high
    assert first.compare(second).low > 0
