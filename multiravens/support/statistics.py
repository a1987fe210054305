"""Intervals for rates, means and differences. All draws have their own generator, so equal data give equal numbers."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000

Interval = tuple[float, float]


class Comparison(NamedTuple):
    """Difference between two agents on the same seeds, the first one's figure less the second one's.

    Attributes:
        mean: of the differences.
        interval: of that mean, 95 %.
        ahead: share of the resamples in which the first one is ahead.
        pairs: seeds compared.
    """

    mean: float
    interval: Interval
    ahead: float
    pairs: int


def wilson(successes: int, count: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a rate.

    Args:
        successes: 0 to count.
        count: 1 or more.
        confidence: of the interval.
    """
    interval = binomtest(successes, count).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap_mean(values: Sequence[float] | NDArray[np.float64], confidence: float = 0.95) -> Interval:
    """Percentile bootstrap interval of the mean of values (N,)."""
    return _interval(_means(np.asarray(values, np.float64)), confidence)


def paired_bootstrap(
    first: Sequence[float] | NDArray[np.float64],
    second: Sequence[float] | NDArray[np.float64],
    confidence: float = 0.95,
) -> Comparison:
    """Compare two agents on the same seeds.

    Args:
        first: (N,) values.
        second: (N,) values, in the same order of seeds.
        confidence: of the interval.

    Raises:
        ValueError: there are not as many of one as of the other, or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} values and {len(second)}: give one of each for every seed, and at least one")
    differences = np.asarray(first, np.float64) - np.asarray(second, np.float64)
    means = _means(differences)
    ahead = float((means > 0).mean() + 0.5 * (means == 0).mean())
    return Comparison(float(differences.mean()), _interval(means, confidence), ahead, len(differences))


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    rng = np.random.default_rng(0)
    return np.concatenate(
        [values[rng.integers(len(values), size=(RESAMPLES // 10, len(values)))].mean(1) for _ in range(10)]
    )


def summarise(returns: Sequence[float], successes: int) -> dict[str, Any]:
    """Mean return and rate of full success of N episodes, with their 95 % intervals, as plain values."""
    return {
        "episodes": len(returns),
        "mean_return": float(np.mean(returns)),
        "mean_return_interval": list(bootstrap_mean(returns)),
        "success_rate": successes / len(returns),
        "success_interval": list(wilson(successes, len(returns))),
    }


def _interval(means: NDArray[np.float64], confidence: float) -> Interval:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spelled(mean: float, interval: Sequence[float]) -> str:
    """A figure and its interval, as tables show them."""
    return f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def spelled_outcome(summary: Mapping[str, Any]) -> tuple[str, str]:
    """Mean return and full success of a summary with their intervals, as tables show them."""
    returned = spelled(summary["mean_return"], summary["mean_return_interval"])
    return returned, spelled(summary["success_rate"], summary["success_interval"])
