"""Intervals against published values and by their definitions."""

import numpy as np
import pytest

from multiravens.support.statistics import bootstrap_mean, paired_bootstrap, wilson


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0), (95, 100, 0.8882, 0.9785)],
)
def test_wilsons_interval(successes: int, count: int, low: float, high: float) -> None:
    assert wilson(successes, count) == pytest.approx((low, high), abs=2e-4)


def test_the_bootstrap_of_a_mean_is_near_the_normal_interval_of_many_values() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 400)
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert bootstrap_mean(values) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.003)
    assert bootstrap_mean(values) == bootstrap_mean(values)
    assert bootstrap_mean([0.5]) == (0.5, 0.5)


def test_pairs_tell_apart_what_means_alone_do_not() -> None:
    rng = np.random.default_rng(1)
    hard = rng.uniform(0, 1, 50)  # seeds differ far more than agents do
    better, worse = np.clip(hard + 0.05 + rng.normal(0, 0.02, 50), 0, 1.2), hard
    comparison = paired_bootstrap(better, worse)
    assert comparison.interval[0] > 0 and comparison.ahead == 1.0 and comparison.pairs == 50
    assert bootstrap_mean(better)[0] < worse.mean()
    level = paired_bootstrap(hard, hard)
    assert (level.mean, level.interval, level.ahead) == (0.0, (0.0, 0.0), 0.5)


def test_unpaired_values_are_refused() -> None:
    with pytest.raises(ValueError, match="2 values and 1"):
        paired_bootstrap([1.0, 0.0], [1.0])
