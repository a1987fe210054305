"""Weighted sampling on two levels: first a task is drawn, then a step of one of its demonstrations.

Each level has its own choice of frequencies. What is drawn is a function of the seed, the step of training and the
losses recorded so far, so that a run resumed from `Sampler.state` draws what it would have drawn.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from multiravens.errors import UserError, quote, unknown

_MOST_WEIGHT = 1e12  # sums of such weights are still exact enough to draw by
_LEAST_LOSS = 1e-12  # stands in for a loss of 0, whose logarithm is not finite


@dataclass(frozen=True)
class Catalogue:
    """Table of the samples to draw from: S samples, each one step of one demonstration of one of T tasks.

    Attributes:
        tasks: T names.
        task: (S,) int64 index of the task.
        episode: (S,) int64 index of the demonstration, counted over all tasks.
        segment: (S,) int64 goal pointer before the step: the sub-goal that it works at.

    Raises:
        ValueError: If the columns differ in length, a task has no sample, or a demonstration belongs to two tasks.
    """

    tasks: list[str]
    task: np.ndarray
    episode: np.ndarray
    segment: np.ndarray

    def __post_init__(self) -> None:
        for name in ("task", "episode", "segment"):
            column = getattr(self, name)
            if column.shape != (len(self.task),) or column.dtype.kind not in "iu":
                raise ValueError(f"{name} must be ({len(self.task)},) integers, not {column.shape} {column.dtype}")
            if len(column) and column.min() < 0:
                raise ValueError(f"{name} holds {column.min()}: give indices of 0 or more")
        count = len(self.tasks)
        if not np.array_equal(np.unique(self.task), np.arange(count)) or len(set(self.tasks)) < max(count, 1):
            found = np.unique(self.task).tolist()
            raise ValueError(
                f"tasks={self.tasks} and samples of {found}: give each task a name of its own and a sample"
            )
        if self.demonstrations.sum() < len(np.unique(np.stack([self.task, self.episode]), axis=1).T):
            raise ValueError("a demonstration belongs to two tasks: count demonstrations over all tasks")

    @cached_property
    def counts(self) -> np.ndarray:
        """(T,) samples of each task."""
        return np.bincount(self.task, minlength=len(self.tasks))

    @cached_property
    def starts(self) -> np.ndarray:
        """(T,) where each task begins in `order`."""
        return np.cumsum(self.counts) - self.counts

    @cached_property
    def order(self) -> np.ndarray:
        """(S,) the samples task by task."""
        return np.argsort(self.task, kind="stable")

    @cached_property
    def demonstrations(self) -> np.ndarray:
        """(T,) demonstrations of each task."""
        _, first = np.unique(self.episode, return_index=True)
        return np.bincount(self.task[first], minlength=len(self.tasks))

    def largest(self, values: np.ndarray) -> np.ndarray:
        """Finds the largest of values (S,) in each task, (T,)."""
        return np.asarray(np.maximum.reduceat(values[self.order], self.starts))

    def normalised(self, weights: np.ndarray) -> np.ndarray:
        """Scales weights (S,) so that they sum to 1 over each task, (S,)."""
        sums = np.add.reduceat(weights[self.order], self.starts)
        return np.asarray(weights / sums[self.task])


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name}={value}: give a number from {low:g} to {high:g}")


class TaskChoice(ABC):
    """Choice of how often each task is drawn.

    Attributes:
        adapts: True if it depends on losses.
        memory: Share of a task's recent loss that stays when a loss of that task is recorded.
    """

    adapts: bool = False
    memory: float = 0.9

    @abstractmethod
    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        """Gives each task's probability (T,), from its recent mean loss (T,), NaN where that is unknown."""


class UniformTasks(TaskChoice):
    """Every task alike: 1 / T."""

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        return np.full(len(catalogue.tasks), 1 / len(catalogue.tasks))


class HorizonTasks(TaskChoice):
    """In proportion to the mean number of steps of a task's demonstrations: long tasks have more to learn."""

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        horizons = catalogue.counts / catalogue.demonstrations
        return np.asarray(horizons / horizons.sum())


class ExplicitTasks(TaskChoice):
    """In proportion to weights given by name.

    Args:
        weights: Each task's weight, 0 or more; 0 leaves it out.

    Raises:
        UserError: If a weight is not such a number, or none is above 0.
    """

    def __init__(self, weights: Mapping[str, float] | None) -> None:
        self.weights = dict(weights) if isinstance(weights, Mapping) else {}
        for name, weight in self.weights.items():
            if type(weight) not in (int, float) or not 0 <= weight <= _MOST_WEIGHT:
                raise UserError(f"the weight of {name} is {quote(weight)}: give a number from 0 to {_MOST_WEIGHT:g}")
        if not any(self.weights.values()):
            raise UserError(
                "no weight is above 0: give each problem's, as task_sampling.weights={placing:2,stacking:1}"
            )

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        """Gives each task's probability; a `UserError` if a weight is of no task, or a task has none."""
        for name in self.weights:
            if name not in catalogue.tasks:
                raise unknown("task in task_sampling.weights", name, catalogue.tasks)
        missing = [name for name in catalogue.tasks if name not in self.weights]
        if missing:
            raise UserError(f"task_sampling.weights lacks {', '.join(missing)}: give each a weight, 0 to leave it out")
        weights = np.array([self.weights[name] for name in catalogue.tasks], np.float64)
        return np.asarray(weights / weights.sum())


class AdaptiveTasks(TaskChoice):
    """By recent loss: p = floor / T + (1 - floor) softmax(log(loss) / temperature) over the T tasks.

    At temperature 1 the second term is in proportion to the loss; higher is more even, lower favours the hardest. Where
    a task's loss, an exponential mean over those recorded of it, is not known, the largest known stands in; where none
    is, all are alike.

    Args:
        temperature: 0.001 to 1000.
        floor: Share of the draws that is spread evenly, 0 to 1.
        memory: Share of the mean that stays when a loss is recorded, 0 to 0.9999.

    Raises:
        ValueError: If a number is out of range.
    """

    adapts = True

    def __init__(self, temperature: float = 1.0, floor: float = 0.1, memory: float = 0.9) -> None:
        _check("temperature", temperature, 1e-3, 1e3)
        _check("floor", floor, 0, 1)
        _check("memory", memory, 0, 0.9999)
        self.temperature, self.floor, self.memory = temperature, floor, memory

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        known = ~np.isnan(losses)
        largest = losses[known].max() if known.any() else 1.0
        logarithms = np.log(np.maximum(np.where(known, losses, largest), _LEAST_LOSS))
        shares = np.exp((logarithms - logarithms.max()) / self.temperature)
        return np.asarray(self.floor / len(shares) + (1 - self.floor) * shares / shares.sum())


class StepChoice(ABC):
    """Choice of how often each step of a task's demonstrations is drawn once the task is.

    Attributes:
        adapts: True if it depends on losses.
    """

    adapts: bool = False

    @abstractmethod
    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        """Gives probabilities (S,) that sum to 1 over each task, from recent losses (S,), NaN where not known."""

    def weights(self, catalogue: Catalogue, probabilities: np.ndarray, samples: np.ndarray) -> np.ndarray:
        """Gives the weights (N,) in the loss, at most 1, of samples (N,) drawn by probabilities (S,)."""
        return np.ones(len(samples))


class UniformSteps(StepChoice):
    """Every step of every demonstration of the task alike."""

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        return np.asarray(1 / catalogue.counts[catalogue.task])


class SubgoalSteps(StepChoice):
    """A demonstration of the task, then one of its sub-goal segments, then a step of that, each evenly.

    A sub-goal that took many steps is drawn no more often than one that took a single step. Steps of a demonstration
    with the same goal pointer are one segment, also where the pointer came back to it.
    """

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        pairs = np.stack([catalogue.episode, catalogue.segment])
        segments, segment, steps = np.unique(pairs, axis=1, return_inverse=True, return_counts=True)
        segment = segment.reshape(-1)
        episodes, segment_count = np.unique(segments[0], return_counts=True)
        in_episode = segment_count[np.searchsorted(episodes, catalogue.episode)]
        return np.asarray(1 / (catalogue.demonstrations[catalogue.task] * in_episode * steps[segment]))


class PrioritisedSteps(StepChoice):
    """By recent loss: within a task p is in proportion to (loss + floor) ** exponent.

    A sample that was not drawn yet counts as the task's largest loss. Importance weights (n p) ** -correction, with n
    the task's samples, undo the preference in the loss, in full at correction 1; they are divided by their largest in
    the task, so that they only ever make a step smaller.

    Args:
        exponent: 0 draws evenly, 1 in proportion to the loss.
        correction: 0 leaves the preference as it is, 1 undoes it.
        floor: Added to every loss, 1e-6 to 1000, so that what is learned is still drawn now and then.

    Raises:
        ValueError: If a number is out of range.

    Reference: Schaul et al. 1511.05952 (alpha is `exponent`, beta `correction`, epsilon `floor`).
    Departs: The loss takes the place of the temporal difference; the largest weight is the task's rather than the
    batch's, so that a sample's weight does not depend on what else was drawn; beta stays as it is.
    """

    adapts = True

    def __init__(self, exponent: float = 0.6, correction: float = 0.4, floor: float = 0.01) -> None:
        _check("exponent", exponent, 0, 1)
        _check("correction", correction, 0, 1)
        _check("floor", floor, 1e-6, 1e3)
        self.exponent, self.correction, self.floor = exponent, correction, floor

    def probabilities(self, catalogue: Catalogue, losses: np.ndarray) -> np.ndarray:
        unknown_loss = np.isnan(losses)
        largest = catalogue.largest(np.where(unknown_loss, -1.0, losses))
        largest[largest < 0] = 0.0
        filled = np.where(unknown_loss, largest[catalogue.task], losses)
        return catalogue.normalised((filled + self.floor) ** self.exponent)

    def weights(self, catalogue: Catalogue, probabilities: np.ndarray, samples: np.ndarray) -> np.ndarray:
        smallest = -catalogue.largest(-probabilities)
        return np.asarray((probabilities[samples] / smallest[catalogue.task[samples]]) ** -self.correction)


class Drawn(NamedTuple):
    """One batch.

    Attributes:
        samples: (B,) int64 indices into the catalogue.
        weights: (B,) float32 of each in the loss.
    """

    samples: np.ndarray
    weights: np.ndarray


class Sampler:
    """Draws batches and remembers losses and what was drawn.

    Args:
        catalogue: What there is to draw.
        tasks: How often each task is drawn.
        steps: How often each step of it.
        batch: Samples of a draw.
        seed: Of the draws.

    Attributes:
        drawn: (S,) int64, how often each sample was drawn.
        losses: (S,) the last loss recorded of each sample, NaN where there is none.
        task_losses: (T,) exponential mean of each task's losses in the order recorded, NaN where there is none.

    Raises:
        ValueError: If the batch or the seed is out of range.
        UserError: If weights given by name do not fit the tasks.
    """

    def __init__(self, catalogue: Catalogue, tasks: TaskChoice, steps: StepChoice, batch: int, seed: int) -> None:
        if batch < 1 or seed < 0:
            raise ValueError(f"batch={batch}, seed={seed}: give a batch of 1 or more and a seed of 0 or more")
        self.catalogue, self.tasks, self.steps, self.batch, self.seed = catalogue, tasks, steps, batch, seed
        self.drawn = np.zeros(len(catalogue.task), np.int64)
        self.losses = np.full(len(catalogue.task), np.nan)
        self.task_losses = np.full(len(catalogue.tasks), np.nan)
        self._task_running: np.ndarray | None = None
        self._table: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._lay_out()

    @property
    def drawn_tasks(self) -> np.ndarray:
        """(T,) int64, how often each task was drawn."""
        return np.add.reduceat(self.drawn[self.catalogue.order], self.catalogue.starts)

    def draw(self, step: int) -> Drawn:
        """Draws the batch of a step of training, counted from 0, and counts what it drew."""
        task_running, (probabilities, running, ends) = self._lay_out()
        uniform = np.random.default_rng([self.seed, step]).random((2, self.batch))
        task = np.searchsorted(task_running, uniform[0], side="right")
        low, high = ends[task], ends[task + 1]
        # Rounding must not carry a draw over the end of its task, where another begins.
        at = np.minimum(low + uniform[1] * (high - low), np.nextafter(high, low))
        samples = self.catalogue.order[np.searchsorted(running, at, side="right")]
        np.add.at(self.drawn, samples, 1)
        weights = self.steps.weights(self.catalogue, probabilities, samples)
        return Drawn(samples, weights.astype(np.float32))

    def record(self, samples: np.ndarray, losses: np.ndarray) -> None:
        """Remembers the losses (N,) of samples (N,), in order; one that is not finite counts as not known.

        Raises:
            ValueError: If the two differ in length.
        """
        if np.shape(samples) != np.shape(losses) or np.ndim(samples) != 1:
            raise ValueError(f"samples {np.shape(samples)} and losses {np.shape(losses)} must be (N,) both")
        keep = self.tasks.memory
        for sample, loss in zip(np.asarray(samples).tolist(), np.asarray(losses, np.float64).tolist(), strict=True):
            if not math.isfinite(loss):
                self.losses[sample] = np.nan
                continue
            loss, task = max(loss, 0.0), self.catalogue.task[sample]
            mean = self.task_losses[task]
            self.losses[sample] = loss
            self.task_losses[task] = loss if math.isnan(mean) else keep * mean + (1 - keep) * loss
        self._forget()

    def state(self) -> dict[str, np.ndarray]:
        """Gives what a checkpoint must hold; with it `restore` draws on as if there had been no break."""
        return {name: getattr(self, name).copy() for name in ("drawn", "losses", "task_losses")}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Takes up what `state` gave.

        Raises:
            UserError: If it's of other demonstrations.
        """
        own = self.state()
        for name, array in own.items():
            found = np.shape(state[name]) if name in state else "nothing"
            if found != array.shape:
                raise UserError(
                    f"the checkpoint holds {found} for the sampler's {name}, and these demonstrations need "
                    f"{array.shape}: give the problems, demos and data that the run began with"
                )
        for name, array in own.items():
            setattr(self, name, np.array(state[name], array.dtype))
        self._forget()

    def summary(self) -> dict[str, Any]:
        """Tells what was drawn so far: how many samples, the share of each task, and of each goal pointer from 0."""
        total = int(self.drawn.sum())
        segments = np.bincount(self.catalogue.segment, weights=self.drawn)
        shares = np.round(self.drawn_tasks / max(total, 1), 5).tolist()
        return {
            "draws": total,
            "tasks": dict(zip(self.catalogue.tasks, shares, strict=True)),
            "segments": np.round(segments / max(total, 1), 5).tolist(),
        }

    def _forget(self) -> None:
        """Drops the probabilities that depend on losses."""
        if self.tasks.adapts:
            self._task_running = None
        if self.steps.adapts:
            self._table = None

    def _lay_out(self) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Returns the tasks' running sum; the steps' probabilities, their running sum, and where in that tasks end."""
        if self._task_running is None:
            running = np.cumsum(self.tasks.probabilities(self.catalogue, self.task_losses))
            self._task_running = running / running[-1]
        if self._table is None:
            probabilities = self.steps.probabilities(self.catalogue, self.losses)
            running = np.cumsum(probabilities[self.catalogue.order])
            ends = running[self.catalogue.starts + self.catalogue.counts - 1]
            self._table = probabilities, running, np.r_[0.0, ends]
        return self._task_running, self._table
