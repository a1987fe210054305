"""Problems: any list of modules, composed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.region import PlacementError, Region, share_table
from multiravens.errors import UserError, unknown
from multiravens.sim.motion import TOOLS, Motion
from multiravens.sim.world import World

ORDERS = ("sequential", "shuffled", "interleaved")
_ATTEMPTS = 60
PATIENCE = 2
"""Actions in vain for one sub-goal before the expert goes for another: the same pick may fail by chance once."""
MOST_STEPS = 1000
"""Actions of an episode: what its file holds at most, ten times what the longest problem needs."""
_MOST_MODULES = 16  # the table is full well before


@dataclass(frozen=True)
class Step:
    """A sub-goal's place in a composition: sub-goal `index` of module `module`, `after` those of other steps."""

    module: str
    index: int
    name: str
    after: tuple[int, ...] = ()


class Aim(NamedTuple):
    """The step that the expert goes for, by its place in `Problem.steps`, and its module's action towards it."""

    step: int
    action: Any


class Problem:
    """A composition of task modules on one table.

    Credit is the share of sub-goals that hold now: exactly 1 when all do, whatever the order they were reached in.

    Args:
        name: of the problem, for files and tables.
        modules: the modules by the name that credit is reported under.
        order: in which the goal sequence asks for sub-goals: `sequential` (module after module), `shuffled` (drawn per
            episode) or `interleaved` (one of each module in turn); within a module what must come first does.
        max_steps: actions allowed in an episode; None for twice what an expert needs.

    Raises:
        UserError: no module or more than 16, modules that do not fit on the table or are solved by several primitives,
            an unknown order or tool, or not 1 to `MOST_STEPS` steps.

    Attributes:
        primitive: name of the primitive by which its modules are solved.
    """

    def __init__(
        self, name: str, modules: Mapping[str, TaskModule], order: str = "sequential", max_steps: int | None = None
    ) -> None:
        if not modules:
            raise UserError(f"problem {name!r} has no modules; give at least one")
        if order not in ORDERS:
            raise unknown("order", order, ORDERS)
        if len(modules) > _MOST_MODULES:
            raise UserError(f"problem {name!r} has {len(modules)} modules, at most {_MOST_MODULES} are composed")
        if max_steps is not None and not 1 <= max_steps <= MOST_STEPS:
            raise UserError(f"max_steps={max_steps}: give 1 to {MOST_STEPS}, or null for twice what an expert needs")
        for module in modules.values():
            if module.tool not in TOOLS:
                raise unknown(f"tool of {type(module).__name__}", str(module.tool), TOOLS)
        self.name, self.modules, self.order = name, dict(modules), order
        self.primitive = _primitive(name, modules)
        self._share(np.random.default_rng(0))  # says now what no seed would change
        self.size = sum(module.size for module in self.modules.values())
        self.max_steps = max_steps or 2 * sum(module.steps for module in self.modules.values())
        self.regions: dict[str, Region] = {}
        self.steps: list[Step] = []

    def build(self, world: World, motion: Motion, seed: int) -> None:
        """Set up the episode of a seed in a world, drawing again until everything fits and nothing is solved.

        Raises:
            UserError: no draw of many did.
        """
        reason = ""
        for attempt in range(_ATTEMPTS):
            rng = np.random.default_rng([seed, attempt])
            world.reset()
            motion.attach(world)
            try:
                self._draw(world, motion, rng)
            except PlacementError as error:
                reason = str(error)
                continue
            settled = world.settle(cap=4.0)
            if not settled:
                reason = "the bodies did not come to rest"
            elif self.holds(world).any():
                reason = "a sub-goal held at the start"
            else:
                return
        raise UserError(
            f"{self.name}: no start state in {_ATTEMPTS} draws for seed {seed} ({reason}); use fewer bodies"
        )

    def _share(self, rng: np.random.Generator) -> list[Region]:
        return share_table([module.footprint for module in self.modules.values()], list(self.modules), rng)

    def _draw(self, world: World, motion: Motion, rng: np.random.Generator) -> None:
        regions = self._share(rng)
        subgoals: dict[str, list[SubGoal]] = {}
        for (name, module), region in zip(self.modules.items(), regions, strict=True):
            self.regions[name] = region
            there = set(world.bodies)
            subgoals[name] = module.build(world, region, rng)
            motion.tools.update(dict.fromkeys(set(world.bodies) - there, module.tool))
        self.steps = _arrange(subgoals, self.order, rng)

    def holds(self, world: World) -> NDArray[np.bool_]:
        """(G,) which sub-goals hold now, in the order of `steps`."""
        flags = {name: module.holds(world) for name, module in self.modules.items()}
        return np.array([flags[step.module][step.index] for step in self.steps], bool)

    def credit_by_module(self, holds: NDArray[np.bool_]) -> dict[str, float]:
        """Each module's share of the credit, by name."""
        return {
            name: sum(bool(held) for step, held in zip(self.steps, holds, strict=True) if step.module == name)
            / self.size
            for name in self.modules
        }

    def expert(self, world: World) -> Any:
        """The expert's action where nothing has been tried in vain; None where none is known."""
        aim = self.aim(world, [0] * self.size)
        return None if aim is None else aim.action

    def aim(self, world: World, tries: Sequence[int]) -> Aim | None:
        """Choose the expert's next sub-goal: the first that does not hold, unless it was tried in vain.

        Every `PATIENCE` tries that a sub-goal has taken put it behind those that have taken fewer, so that the expert
        goes for what else it can reach and comes back later. Sub-goals that come after one that does not hold are last.

        Args:
            world: as it stands now.
            tries: actions in vain for each of the G sub-goals.

        Returns:
            The sub-goal and the action; None where no action is known for any sub-goal that does not hold.
        """
        holds = self.holds(world)

        def turn(step: int) -> tuple[bool, int]:
            return not holds[list(self.steps[step].after)].all(), tries[step] // PATIENCE

        for step in sorted(np.flatnonzero(~holds).tolist(), key=turn):
            action = self.modules[self.steps[step].module].expert(world, self.steps[step].index)
            if action is not None:
                return Aim(step, action)
        return None


def _primitive(problem: str, modules: Mapping[str, TaskModule]) -> str:
    """Name of the primitive by which all modules are solved."""
    names = {name: module.primitive for name, module in modules.items()}
    if len(set(names.values())) > 1:
        listed = ", ".join(f"{name} by {primitive}" for name, primitive in names.items())
        raise UserError(f"problem {problem!r} needs several primitives ({listed}): compose modules of one")
    return next(iter(names.values()))


def pointer(holds: NDArray[np.bool_]) -> int:
    """The first sub-goal that does not hold; G when all do."""
    return int(np.argmin(holds)) if not holds.all() else len(holds)


def _arrange(subgoals: Mapping[str, list[SubGoal]], order: str, rng: np.random.Generator) -> list[Step]:
    """Every sub-goal once, in the asked order, none before what it comes after."""
    queues = {name: _sorted(goals) for name, goals in subgoals.items()}
    names = list(queues)
    if order == "sequential":
        turns = [name for name in names for _ in queues[name]]
    elif order == "interleaved":
        turns = [
            name for round_ in range(max(map(len, queues.values()))) for name in names if round_ < len(queues[name])
        ]
    else:
        turns = [name for name in names for _ in queues[name]]
        turns = [turns[index] for index in rng.permutation(len(turns))]
    taken = {name: iter(queue) for name, queue in queues.items()}
    steps = []
    for name in turns:
        index = next(taken[name])
        steps.append(Step(name, index, f"{name}/{subgoals[name][index].name}"))
    place = {(step.module, step.index): number for number, step in enumerate(steps)}
    return [
        replace(step, after=tuple(place[step.module, other] for other in subgoals[step.module][step.index].after))
        for step in steps
    ]


def _sorted(goals: list[SubGoal]) -> list[int]:
    """Indices with every one behind those it comes after, otherwise in the module's own order."""
    done: list[int] = []
    while len(done) < len(goals):
        ready = [i for i, goal in enumerate(goals) if i not in done and set(goal.after) <= set(done)]
        if not ready:
            raise ValueError(f"sub-goals wait for one another in a circle: {[goal.name for goal in goals]}")
        done.append(ready[0])
    return done
