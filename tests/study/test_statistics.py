"""Intervals over images and seeds: limits that are known in closed form, and coverage by simulation."""

import numpy as np
import pytest
from numpy.typing import NDArray

from hfseg.metrics import bootstrap_interval, class_iou, mean_iou, paired_test
from hfseg.metrics.scores import pixel_accuracy
from hfseg.study.statistics import arm_interval, difference_interval

T_975 = {1: 12.706, 2: 4.303, 4: 2.776}  # quantiles of Student's t, from any table


def areas(accuracy: NDArray[np.float64]) -> NDArray[np.int64]:
    """(N, 3, 2) of images of two classes of 10,000 pixels each, of which so large a share was hit."""
    hits = np.round(10_000 * np.clip(accuracy, 0, 1)).astype(np.int64)
    full = np.full_like(hits, 10_000)
    return np.stack([hits, full, full], axis=1)[:, :, None].repeat(2, axis=2)


def test_one_run_is_the_bootstrap_over_images() -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(1, 50, (20, 3, 4)) for _ in range(2))
    for runs in (first, second):
        runs[:, 0] = np.minimum(runs[:, 0], runs[:, 1:].min(1))
    second[:, 1] = first[:, 1]
    second[:, 0] = np.minimum(second[:, 0], second[:, 1])
    plain, arm = bootstrap_interval(first), arm_interval([first])
    assert not arm.has_seeds
    assert (arm.value, arm.low, arm.high) == pytest.approx((plain.value, plain.low, plain.high))
    paired, difference = paired_test(first, second), difference_interval([first], [second])
    assert (difference.value, difference.low, difference.high) == pytest.approx(
        (paired.value, paired.low, paired.high)
    )
    classes = arm_interval([first], class_iou)
    assert classes.value == pytest.approx(class_iou(first.sum(0)))
    assert classes.low.shape == (4,)


@pytest.mark.parametrize("num_seeds", [2, 3, 5])
def test_alike_images_give_the_interval_of_student(num_seeds: int) -> None:
    rng = np.random.default_rng(num_seeds)
    scores = np.round(rng.normal(0.5, 0.002, num_seeds), 4)
    runs = [areas(np.full(30, score)) for score in scores]
    found = arm_interval(runs, pixel_accuracy, num_resamples=20_000)
    half = T_975[num_seeds - 1] * scores.std(ddof=1) / np.sqrt(num_seeds)
    assert found.has_seeds
    assert found.value == pytest.approx(scores.mean())
    assert float(found.high - found.low) == pytest.approx(2 * half, rel=0.1)


def test_alike_images_give_the_interval_of_welch() -> None:
    """Three runs each with the same spread: four degrees of freedom."""
    spread = np.array([-0.01, 0, 0.01])
    first, second = ([areas(np.full(30, score)) for score in centre + spread] for centre in (0.5, 0.6))
    found = difference_interval(first, second, pixel_accuracy, num_resamples=20_000)
    half = T_975[4] * np.sqrt(2 * 0.01**2 / 3)
    assert found.value == pytest.approx(0.1)
    assert float(found.high - found.low) == pytest.approx(2 * half, rel=0.05)
    alone = difference_interval(first[:1], second, pixel_accuracy)
    assert not alone.has_seeds
    assert float(alone.high - alone.low) == pytest.approx(0, abs=1e-9)  # images do not vary, and seeds are not known


def test_equal_arms_and_too_few_images() -> None:
    rng = np.random.default_rng(0)
    runs = [areas(rng.uniform(0.3, 0.7, 12)) for _ in range(2)]
    same = difference_interval([runs[0]] * 2, [runs[0]] * 2)
    assert (same.value, same.low, same.high) == (0, 0, 0)
    single = arm_interval([run[:1] for run in runs])
    assert np.isfinite(single.value)
    assert np.isnan([single.low, single.high]).all()
    huge = arm_interval([areas(np.full(9, score)) for score in (0.1, 0.9)])
    assert (huge.low, huge.high) == (0, 1)


# of seeds, of images, and of an image's own answer to a training run
@pytest.mark.parametrize(
    ("num_seeds", "seed_sd", "image_sd", "mixed_sd", "bounds"),
    [
        (3, 0.02, 0.10, 0.05, (0.93, 1.0)),
        (3, 0.05, 0.02, 0.01, (0.92, 0.99)),
        (3, 0.00, 0.10, 0.05, (0.95, 1.0)),
        (5, 0.02, 0.10, 0.05, (0.91, 0.99)),
        (1, 0.00, 0.10, 0.05, (0.89, 0.97)),
    ],
)
def test_intervals_hold_the_truth_as_often_as_they_say(
    num_seeds: int, seed_sd: float, image_sd: float, mixed_sd: float, bounds: tuple[float, float]
) -> None:
    """Many studies of two arms whose true scores are known: 0.50 and 0.55."""
    rng = np.random.default_rng(0)
    held_difference, held_arm, studies = 0, 0, 100
    for number in range(studies):
        images = rng.normal(0, image_sd, 60)  # easy and hard ones, for every run
        first, second = (
            [
                areas(truth + rng.normal(0, seed_sd) + images + rng.normal(0, mixed_sd, 60))
                for _ in range(num_seeds)
            ]
            for truth in (0.50, 0.55)
        )  # fmt: skip
        difference = difference_interval(first, second, pixel_accuracy, num_resamples=200, seed=number)
        held_difference += bool(difference.low <= 0.05 <= difference.high)
        arm = arm_interval(second, pixel_accuracy, num_resamples=200, seed=number)
        held_arm += bool(arm.low <= 0.55 <= arm.high)
    assert bounds[0] <= held_difference / studies <= bounds[1]
    assert 0.9 <= held_arm / studies <= 1.0


def test_one_run_each_says_nothing_of_seeds() -> None:
    """Why no claim rests on one seed: with seeds that differ, an interval over images often misses."""
    rng = np.random.default_rng(0)
    held = 0
    for number in range(100):
        images = rng.normal(0, 0.1, 60)
        first, second = (areas(truth + rng.normal(0, 0.05) + images) for truth in (0.50, 0.55))
        found = difference_interval([first], [second], pixel_accuracy, num_resamples=200, seed=number)
        held += bool(found.low <= 0.05 <= found.high)
    assert held < 50


@pytest.mark.filterwarnings("error")
def test_a_class_that_no_image_has() -> None:
    runs = [np.pad(areas(np.linspace(0.3, 0.7, 40) + shift), ((0, 0), (0, 0), (0, 1))) for shift in (0, 0.1)]
    for arm in (runs, runs[:1]):
        found = arm_interval(arm, class_iou)
        assert np.isnan([found.value[2], found.low[2], found.high[2]]).all()
        assert (found.low[:2] < found.value[:2]).all()
    assert np.isfinite(arm_interval(runs).low)


def test_mean_over_runs_is_not_of_the_sum() -> None:
    rng = np.random.default_rng(0)
    runs = [areas(rng.uniform(0, 1, 10)) for _ in range(3)]
    assert arm_interval(runs).value == pytest.approx(np.mean([mean_iou(run.sum(0)) for run in runs]))
