"""Plots of training and evaluation, as PNG files' bytes."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from multiravens.support.statistics import title

matplotlib.use("Agg")
matplotlib.rcParams["text.parse_math"] = False  # a name may have any letters
from matplotlib import pyplot  # noqa: E402  # after the choice of a backend without a window

_WIDEST = 24.0  # [inches]
_PANELS = 6  # beside each other
_STRONG = ("#2a6fb0", "#d9822b", "#3f9b5f", "#b0413e", "#7a5ea8", "#6b6f76", "#c2a83e", "#3aa6a6")
_LIGHT = ("#9cc3e6", "#f2c894", "#a3d6b5", "#e0a09f", "#c4b1dd", "#b9bcc1", "#e6d89a", "#a5dede")
COLORS = (*_STRONG, *_LIGHT)
Programs = Mapping[str, Mapping[str, Any]]


def learning_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]], names: Sequence[str]) -> bytes:
    """Figures over the steps, a panel each and a line a run.

    Args:
        metrics: of each run, the lines of its `metrics.jsonl`.
        names: of the figures; a run without one has no line in its panel.
    """
    rows = -(-len(names) // _PANELS)
    columns = -(-len(names) // rows)
    figure, axes = pyplot.subplots(rows, columns, figsize=(3.3 * columns, 3.0 * rows), squeeze=False)
    for axis in axes.flat[len(names) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.flat, names, strict=False):
        for index, (run, lines) in enumerate(metrics.items()):
            own = [line for line in lines if name in line]
            values = _smoothed([line[name] for line in own])
            axis.plot([line["step"] for line in own], values, label=run, color=COLORS[index % len(COLORS)])
        axis.set_title(name.replace("_", " "))
        axis.set_xlabel("steps")
        axis.grid(alpha=0.25)
        if name.startswith("accuracy_"):
            axis.set_ylim(0, 1.02)
    axes[0][0].legend(fontsize=7)
    return _png(figure)


def drawn_shares(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot each problem's share of the samples, over the steps of a run."""
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


def by_problem(rows: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """Figures of a metric, of every run on every problem, with intervals.

    Args:
        rows: `problem`, `label` and `summary` each.
        metric: that all have.
    """
    problems, labels = _unique(row["problem"] for row in rows), _unique(row["label"] for row in rows)
    width = 1.1 * len(problems) * max(len(labels), 2) * 0.6
    figure, axis = pyplot.subplots(figsize=(float(np.clip(width, 4.0, _WIDEST)), 3.6))
    beside = {problem: [row["label"] for row in rows if row["problem"] == problem] for problem in problems}
    width = 0.8 / max(map(len, beside.values()))
    for row in rows:
        own = beside[row["problem"]]
        at = problems.index(row["problem"]) + (own.index(row["label"]) - (len(own) - 1) / 2) * width
        mean, (low, high) = row["summary"][metric], row["summary"][f"{metric}_interval"]
        color = COLORS[labels.index(row["label"]) % len(COLORS)]
        first = row is next(other for other in rows if other["label"] == row["label"])
        axis.bar(at, mean, width * 0.92, color=color, label=row["label"] if first else None)
        axis.errorbar(at, mean, [[mean - low], [high - mean]], color="#222", capsize=3, linewidth=1)
    axis.set_xticks(range(len(problems)), problems, rotation=15, ha="right")
    _show_share(axis, 0.0, [row["summary"][f"{metric}_interval"] for row in rows])
    axis.set_ylabel(title(metric))
    axis.grid(axis="y", alpha=0.25)
    axis.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return _png(figure)


def by_demonstrations(rows: Sequence[Mapping[str, Any]], metric: str) -> bytes:
    """Figures of a metric against the number of demonstrations, a line for each problem and way to train.

    Args:
        rows: `problem`, `way`, `demos` and `summary` each.
        metric: that all have.
    """
    figure, axis = pyplot.subplots(figsize=(6.0, 3.6))
    for index, line in enumerate(_unique((row["problem"], row["way"]) for row in rows)):
        own = sorted((row for row in rows if (row["problem"], row["way"]) == line), key=_demos)
        rates = np.array([row["summary"][metric] for row in own])
        bounds = np.array([row["summary"][f"{metric}_interval"] for row in own])
        axis.errorbar(
            [row["demos"] for row in own],
            rates,
            [np.maximum(rates - bounds[:, 0], 0), np.maximum(bounds[:, 1] - rates, 0)],
            marker="o",
            capsize=3,
            color=COLORS[index % len(COLORS)],
            label=", ".join(line),
        )
    axis.set_xscale("log")
    counts = sorted({_demos(row) for row in rows})
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.set_xlabel("demonstrations of each problem")
    axis.set_ylabel(title(metric))
    _show_share(axis, -0.03, [row["summary"][f"{metric}_interval"] for row in rows])
    axis.grid(alpha=0.25)
    axis.legend(fontsize=7)
    return _png(figure)


def _show_share(axis: Any, bottom: float, intervals: Sequence[Sequence[float]]) -> None:
    """Show all from 0 to 1 where all figures lie there; others set their own limits."""
    if all(0 <= low and high <= 1 for low, high in intervals):
        axis.set_ylim(bottom, 1.05)


def programs(shares: Programs) -> bytes:
    """Plot the shares of the blocks at each step of the programs, for each problem and stream.

    Args:
        shares: of each problem, of each stream, (L, K) of the blocks at each step.
    """
    streams = list(next(iter(shares.values())))
    figure, axes = pyplot.subplots(
        len(shares), len(streams), figsize=(2.4 * len(streams), 0.6 + 2.1 * len(shares)), squeeze=False
    )
    for row, (problem, own) in zip(axes, shares.items(), strict=True):
        for axis, (stream, steps) in zip(row, own.items(), strict=True):
            _draw_program(axis, np.array(steps))
            axis.set_title(f"{problem}, {stream}", fontsize=8)
    axes[-1][0].set_xlabel("block")
    axes[-1][0].set_ylabel("step")
    return _png(figure)


def before_and_after(before: Programs, after: Programs) -> bytes:
    """The programs of one problem as they were and as they are.

    Args:
        before: of the problem, of each stream, (L, K).
        after: likewise.
    """
    ((problem, own),) = after.items()
    figure, axes = pyplot.subplots(2, len(own), figsize=(2.4 * len(own), 4.6), squeeze=False)
    for row, word, shares in zip(axes, ("before", "after"), (before, after), strict=True):
        for axis, (stream, steps) in zip(row, shares[problem].items(), strict=True):
            _draw_program(axis, np.array(steps))
            axis.set_title(f"{problem}, {stream}, {word}", fontsize=8)
    return _png(figure)


def _draw_program(axis: Any, steps: NDArray[np.float64]) -> None:
    axis.imshow(steps, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axis.set_xticks(range(steps.shape[1]))
    axis.set_yticks(range(steps.shape[0]))
    axis.tick_params(labelsize=6)
    for step, block in enumerate(steps.argmax(1)):
        axis.text(block, step, str(block), ha="center", va="center", fontsize=7, color="#d9822b")


def program_distances(shares: Programs) -> bytes:
    """Plot the distances between problems' programs, as a heatmap and as a tree.

    The distance of two programs is the mean over streams and steps of half the sum of their shares' differences: 0 for
    equal ones, 1 where no step has a block in common.
    """
    from scipy.cluster.hierarchy import dendrogram, linkage  # only for trees
    from scipy.spatial.distance import squareform

    names = list(shares)
    stacked = np.array([[shares[name][stream] for stream in shares[name]] for name in names])
    distances = 0.5 * np.abs(stacked[:, None] - stacked[None]).sum(-1).mean((-1, -2))
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(3.2 + 1.4 * len(names), 1.4 + 0.6 * len(names)))
    left.imshow(distances, vmin=0, vmax=1, cmap="Purples")
    left.set_xticks(range(len(names)), names, rotation=30, ha="right", fontsize=7)
    left.set_yticks(range(len(names)), names, fontsize=7)
    for row, column in np.ndindex(*distances.shape):
        shade = "#fff" if distances[row, column] > 0.6 else "#222"
        left.text(column, row, f"{distances[row, column]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    left.set_title("distance between programs", fontsize=9)
    tree = linkage(squareform(distances, checks=False), "average")
    tree[:, 2] += 1e-6  # a tree of equal programs has a height too
    dendrogram(tree, labels=names, ax=right, color_threshold=0, above_threshold_color=COLORS[0], leaf_font_size=7)
    right.set_ylim(0, 1)
    right.set_title("tree", fontsize=9)
    return _png(figure)


def forming(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot how sure programs become over the steps of a run: the mean of each step's largest share.

    Args:
        lines: of a run's `metrics.jsonl` that have programs.
    """
    problems = list(lines[-1]["programs"])
    streams = list(lines[-1]["programs"][problems[0]])
    figure, axes = pyplot.subplots(1, len(streams), figsize=(3.3 * len(streams), 2.8), squeeze=False)
    for axis, stream in zip(axes[0], streams, strict=True):
        for index, problem in enumerate(problems):
            sure = [np.max(line["programs"][problem][stream], axis=1).mean() for line in lines]
            axis.plot([line["step"] for line in lines], sure, label=problem, color=COLORS[index % len(COLORS)])
        axis.set_title(f"largest share, {stream}", fontsize=9)
        axis.set_ylim(0, 1.02)
        axis.set_xlabel("steps")
        axis.grid(alpha=0.25)
    axes[0][0].legend(fontsize=7)
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
