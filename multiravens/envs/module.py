"""The interface of a task module: one job on one part of the table.

A module is one class and one YAML. It states the rectangle it needs, builds its bodies there, says which of its
sub-goals hold, and knows an expert's action for each. Composing modules, rewards, goals and oracles are made from
these.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiravens.actions import PICK_PLACE
from multiravens.envs.region import Region
from multiravens.sim.world import World


@dataclass(frozen=True)
class SubGoal:
    """One step of a module's job.

    Attributes:
        name: such as `part 2 on plate 0`.
        after: indices of the module's sub-goals that an expert reaches first.
    """

    name: str
    after: tuple[int, ...] = ()


class TaskModule(ABC):
    """One job, such as kitting parts or routing a cable.

    Parameters are those of `__init__`, checked there with a ValueError that states the value and the limit. One object
    serves many episodes: `build` forgets the last one.

    Attributes:
        primitive: name of the primitive by which it is solved.
        tool: which picks the module's bodies: `suction`, or `fingers` for what no cup holds, such as beads.
    """

    primitive: str = PICK_PLACE.name
    tool: str = "suction"

    @property
    @abstractmethod
    def footprint(self) -> tuple[float, float]:
        """(length, width) [m] of the rectangle of table it needs, everything an expert does included."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of sub-goals G, the same in every episode."""

    @property
    def steps(self) -> int:
        """Actions an expert takes when nothing goes wrong; problems allow twice as many."""
        return self.size

    @abstractmethod
    def build(self, world: World, region: Region, rng: np.random.Generator) -> list[SubGoal]:
        """Put the bodies of a new episode on the table and draw what is asked for.

        Args:
            world: to add bodies to.
            region: the rectangle; its frame's x axis runs along the footprint's length.
            rng: the only source of randomness.

        Returns:
            The G sub-goals.

        Raises:
            PlacementError: the draw did not fit; the composition draws again.
        """

    @abstractmethod
    def holds(self, world: World) -> NDArray[np.bool_]:
        """(G,) which sub-goals hold in the world as it stands now."""

    @abstractmethod
    def expert(self, world: World, index: int) -> Any:
        """An action towards sub-goal `index`, from whatever state the world is in; None where there is none.

        It is an `Action` where the primitive picks and places; of another one a mapping of its fields, or what makes
        one by `to_dict`.
        """
