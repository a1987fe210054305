"""Plots of training and evaluation, as PNG files' bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  # after the choice of a backend without a window

COLORS = ("#2a6fb0", "#d9822b", "#3f9b5f", "#b0413e", "#7a5ea8", "#6b6f76", "#c2a83e", "#3aa6a6")
_LOSSES = {"loss_pick": "pick loss", "loss_place": "place loss"}
_ACCURACIES = {"accuracy_pick": "pick right", "accuracy_place": "place right", "accuracy_rotation": "turn right"}


def learning_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Losses and accuracies over the steps, a line a run.

    Args:
        metrics: of each run, the lines of its `metrics.jsonl`.
    """
    names = {**_LOSSES, **_ACCURACIES}
    figure, axes = pyplot.subplots(1, len(names), figsize=(3.3 * len(names), 3.0))
    for axis, (key, title) in zip(axes, names.items(), strict=True):
        for index, (run, lines) in enumerate(metrics.items()):
            values = _smoothed([line[key] for line in lines])
            axis.plot([line["step"] for line in lines], values, label=run, color=COLORS[index % len(COLORS)])
        axis.set_title(title)
        axis.set_xlabel("steps")
        axis.grid(alpha=0.25)
        if key in _ACCURACIES:
            axis.set_ylim(0, 1.02)
    axes[0].legend(fontsize=7)
    return _png(figure)


def drawn_shares(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """What share of the samples each problem had, over the steps of a run."""
    figure, axis = pyplot.subplots(figsize=(6.0, 2.8))
    tasks = list(lines[-1]["drawn"]["tasks"])
    steps = [line["step"] for line in lines]
    totals = np.array([[line["drawn"]["draws"] * line["drawn"]["tasks"][task] for task in tasks] for line in lines])
    recent = np.diff(totals, axis=0, prepend=np.zeros((1, len(tasks))))
    shares = recent / recent.sum(1, keepdims=True)
    axis.stackplot(steps, shares.T, labels=tasks, colors=[COLORS[i % len(COLORS)] for i in range(len(tasks))])
    axis.set_ylim(0, 1)
    axis.set_xlabel("steps")
    axis.set_title("share of the samples drawn")
    axis.legend(fontsize=7, loc="lower left")
    return _png(figure)


def returns_by_problem(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Mean return of every run on every problem, with intervals.

    Args:
        rows: `problem`, `label` and `summary` each.
    """
    problems, labels = _unique(row["problem"] for row in rows), _unique(row["label"] for row in rows)
    figure, axis = pyplot.subplots(figsize=(max(4.0, 1.1 * len(problems) * max(len(labels), 2) * 0.6), 3.6))
    beside = {problem: [row["label"] for row in rows if row["problem"] == problem] for problem in problems}
    width = 0.8 / max(map(len, beside.values()))
    for row in rows:
        own = beside[row["problem"]]
        at = problems.index(row["problem"]) + (own.index(row["label"]) - (len(own) - 1) / 2) * width
        mean, (low, high) = row["summary"]["mean_return"], row["summary"]["mean_return_interval"]
        color = COLORS[labels.index(row["label"]) % len(COLORS)]
        first = row is next(other for other in rows if other["label"] == row["label"])
        axis.bar(at, mean, width * 0.92, color=color, label=row["label"] if first else None)
        axis.errorbar(at, mean, [[mean - low], [high - mean]], color="#222", capsize=3, linewidth=1)
    axis.set_xticks(range(len(problems)), problems, rotation=15, ha="right")
    axis.set_ylim(0, 1.05)
    axis.set_ylabel("mean return")
    axis.grid(axis="y", alpha=0.25)
    axis.legend(fontsize=7)
    return _png(figure)


def success_by_demonstrations(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Full success against the number of demonstrations, a line a problem and agent.

    Args:
        rows: `problem`, `agent`, `demos` and `summary` each.
    """
    figure, axis = pyplot.subplots(figsize=(6.0, 3.6))
    for index, (problem, agent) in enumerate(_unique((row["problem"], row["agent"]) for row in rows)):
        own = sorted((row for row in rows if (row["problem"], row["agent"]) == (problem, agent)), key=_demos)
        rates = np.array([row["summary"]["success_rate"] for row in own])
        bounds = np.array([row["summary"]["success_interval"] for row in own])
        axis.errorbar(
            [row["demos"] for row in own],
            rates,
            [np.clip(rates - bounds[:, 0], 0, 1), np.clip(bounds[:, 1] - rates, 0, 1)],
            marker="o",
            capsize=3,
            color=COLORS[index % len(COLORS)],
            label=f"{problem}, {agent}",
        )
    axis.set_xscale("log")
    axis.set_xlabel("demonstrations of each problem")
    axis.set_ylabel("full success")
    axis.set_ylim(-0.03, 1.05)
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7)
    return _png(figure)


def _demos(row: Mapping[str, Any]) -> int:
    return int(row["demos"])


def _unique(items: Any) -> list[Any]:
    return list(dict.fromkeys(items))


def _smoothed(values: Sequence[float], keep: float = 0.8) -> list[float]:
    out: list[float] = []
    for value in values:
        out.append(value if not out else keep * out[-1] + (1 - keep) * value)
    return out


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.tight_layout()
    # No date and no version in the file, so that equal figures are equal bytes.
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    pyplot.close(figure)
    return buffer.getvalue()
