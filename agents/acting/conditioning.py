"""Conditioning: the choice of an episode's sub-goal images that an agent is shown, the same in training and acting."""

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

Indices = NDArray[np.int64]


class Conditioning(ABC):
    """Chooses sub-goals by their index in the goal sequence.

    Attributes:
        images: K, how many goal images the agent is shown at once.
        uses_pointer: whether the choice depends on the goal pointer.
    """

    images: int = 1
    uses_pointer: bool = False

    @abstractmethod
    def choose(self, pointers: ArrayLike, steps: ArrayLike, counts: ArrayLike) -> Indices:
        """Indices (N, K) of the sub-goals shown.

        Args:
            pointers: (N,) the first sub-goal that does not hold.
            steps: (N,) actions taken so far.
            counts: (N,) sub-goals of the episode.
        """


class NoGoal(Conditioning):
    """No image: the agent sees the table alone.

    Reference: Zeng et al. 2010.14406 (Transporter Networks).
    """

    images = 0

    def choose(self, pointers: ArrayLike, steps: ArrayLike, counts: ArrayLike) -> Indices:
        """Indices (N, 0)."""
        return np.zeros((len(np.asarray(counts)), 0), np.int64)


class FinalGoal(Conditioning):
    """The last image of the goal sequence.

    Reference: Seita et al. 2012.03385 (Goal-Conditioned Transporter Networks).
    """

    def choose(self, pointers: ArrayLike, steps: ArrayLike, counts: ArrayLike) -> Indices:
        """Indices (N, 1) of the last sub-goals."""
        return np.asarray(counts, np.int64)[:, None] - 1


class StepGoal(Conditioning):
    """The image whose index is the number of actions taken, whether or not they reached anything."""

    def choose(self, pointers: ArrayLike, steps: ArrayLike, counts: ArrayLike) -> Indices:
        """Indices (N, 1), the last sub-goal once there are more actions than sub-goals."""
        return np.minimum(np.asarray(steps, np.int64), np.asarray(counts, np.int64) - 1)[:, None]


class NextGoals(Conditioning):
    """The next sub-goals from the pointer on.

    Args:
        ahead: how many, 1 or more; the last one is repeated at the sequence's end.

    Raises:
        ValueError: fewer than one.

    Reference: Lim et al. 2109.07578 (Sequence-Conditioned Transporter Networks).
    """

    uses_pointer = True

    def __init__(self, ahead: int = 1) -> None:
        if ahead < 1:
            raise ValueError(f"ahead={ahead}: give 1 or more sub-goals")
        self.images = ahead

    def choose(self, pointers: ArrayLike, steps: ArrayLike, counts: ArrayLike) -> Indices:
        """Indices (N, ahead)."""
        following = np.asarray(pointers, np.int64)[:, None] + np.arange(self.images)
        return np.minimum(following, np.asarray(counts, np.int64)[:, None] - 1)
