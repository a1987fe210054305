"""The interface of every agent: the view that it is shown and the action that it returns."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.agents.acting.options import PLAIN, Acting

Action = dict[str, NDArray[np.float32]]
"""Each field (W,) of an action, as its `ActionSpec` lists them; of picking and placing as `PICK_PLACE` does."""


@dataclass(frozen=True)
class View:
    """Input of an agent before an action. H, W is 320, 160 or, at half resolution, 160, 80; G sub-goals.

    Attributes:
        color: (H, W, 3) uint8 now.
        height: (H, W) float32 now [m].
        start_color: (H, W, 3) uint8 at the episode's start.
        start_height: (H, W) float32 at the episode's start [m].
        goal_color: (G, H, W, 3) uint8, the table after each sub-goal of the expert's run.
        goal_height: (G, H, W) float32 [m].
        step: actions taken so far.
        pointer: the first sub-goal that does not hold, known from the reward; None where there is no reward.
        seed: of the episode.
        problem: its name; empty where the agent knows but one.
        memory: what the agent noted at earlier steps of the episode, by step; one dictionary in all of its views.
        spec: the fields of the action that is asked for.
    """

    color: NDArray[np.uint8]
    height: NDArray[np.float32]
    start_color: NDArray[np.uint8]
    start_height: NDArray[np.float32]
    goal_color: NDArray[np.uint8]
    goal_height: NDArray[np.float32]
    step: int
    pointer: int | None
    seed: int
    problem: str = ""
    memory: dict[int, Any] = field(default_factory=dict)
    spec: ActionSpec = PICK_PLACE


class Agent(ABC):
    """Chooses actions.

    Attributes:
        name: for tables.
        pointer: `reward` if views must carry the pointer, `visual` if it is never shown, `none` if it makes no
            difference.
        resolution: of the views, `full` or `half`.
        acting: how it acts on failed attempts; its pointer is told by `pointer`.
        asks_environment: True for the oracle alone: `PickPlaceEnv.expert` acts in its place.
        follows_plan: True where the expert's recorded actions are carried out in its place, whatever it would see.
        other_goals: True where goal images, and the expert's actions, are those of another episode.
    """

    name: str
    pointer: str = "none"
    resolution: str = "full"
    acting: Acting = PLAIN
    asks_environment: bool = False
    follows_plan: bool = False
    other_goals: bool = False

    @abstractmethod
    def act(self, views: Sequence[View]) -> list[Action]:
        """One action a view; every view stands for itself, so that answers do not depend on what is asked together.

        What an agent is to know of earlier steps it notes in the view's memory, where it may overwrite this step alone.
        """

    def beside(self, measured: "Agent") -> "Agent":
        """The agent to measure beside another: this one, unless what it does depends on that."""
        return self


class Oracle(Agent):
    """The scripted expert: the ceiling of what can be reached."""

    name = "oracle"
    asks_environment = True

    def act(self, views: Sequence[View]) -> list[Action]:
        """Not possible from what a camera sees.

        Raises:
            TypeError: always; ask the environment.
        """
        raise TypeError("the oracle knows the simulation's state: take PickPlaceEnv.expert() instead")


class Random(Agent):
    """Actions drawn evenly, as picks and places from the workspace: the floor of what can be reached."""

    name = "random"

    def act(self, views: Sequence[View]) -> list[Action]:
        """Actions that depend on the episode's seed and the step alone."""
        return [view.spec.draw(np.random.default_rng([view.seed, view.step, 2])) for view in views]
