"""Intervals for rates, means and differences. All draws have their own generator, so equal data give equal numbers."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

RESAMPLES = 10_000
METRIC_NAME = re.compile(r"(?!episodes$)(?!.*_interval$)[a-z][a-z0-9_]{0,39}")
"""Of a metric: a key of summaries beside the number of episodes and the intervals, and a column's head."""

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


def summarise(values: Sequence[float]) -> tuple[float, list[float]]:
    """Mean of N episodes' values and its 95 % interval: Wilson's where all are true or false, else the bootstrap's."""
    if all(isinstance(value, bool) for value in values):
        return sum(values) / len(values), list(wilson(int(sum(values)), len(values)))
    return float(np.mean(values)), list(bootstrap_mean(values))


def _interval(means: NDArray[np.float64], confidence: float) -> Interval:
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def spelled(mean: float, interval: Sequence[float]) -> str:
    """A figure and its interval, as tables show them."""
    return f"{mean:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def shown_metrics(contents: Iterable[Mapping[str, Any]]) -> list[str]:
    """Name the metrics that tables of evaluations have a column for: those of a single value, each once, in order."""
    names = [(name, content["summary"]) for content in contents for name in content["metrics"]]
    return list(dict.fromkeys(name for name, summary in names if not isinstance(summary[name], Mapping)))


def title(metric: str) -> str:
    """A metric's name as tables and plots show it."""
    return metric.replace("_", " ")


def figure_cells(summary: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """Figures of a summary with their intervals, as tables show them; empty where it lacks a metric."""
    return [spelled(summary[name], summary[f"{name}_interval"]) if name in summary else "" for name in metrics]
