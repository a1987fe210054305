"""Motion primitives: what one action asks for. Ours is to pick and place.

From above the pick, down until contact, hold, up, across, down until what is held touches, let go, up. Descents are
fast until 2 cm above what rays say is below. Every part ends after a known number of ticks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.envs.action import Action
from multiravens.geometry import Array
from multiravens.sim.motion import TIP_RADIUS, Motion
from multiravens.sim.world import World

OK = "ok"
MISSED = "missed: nothing to hold at the pick"
DROPPED = "dropped: the load slipped off on the way"
OVERSTRETCHED = "overstretched: a link went beyond 1.2 times its length and was let go"
UNREACHABLE = "unreachable: the arm is too short for where the tip was to go"
UNSETTLED = "unsettled: bodies still moved when the time allowed had passed"

MAX_STRETCH = 1.2
"""Beads are let go when a link is longer than this share of its length, so that none gets to 1.3: under a hard pull
they grow by up to 0.06 a tick. Unhindered, they stay below 1.16."""
SLOW, BEAD = 0.001, 0.002
"""Tip speeds [m a tick] near contact, and dragging beads (6 mm solved a third of chaining in trials)."""
NEAR = 0.01
"""Descents are slow from this far above the surface below [m]."""
CLEARANCE = 0.015
"""Free height between a carried body and the highest thing on the table [m]."""
BEAD_LIFT = 0.06
"""Tip height for carrying a bead [m]: 35 mm posts, two bead radii of 6 mm and 1 cm to spare."""
SETTLE_CAP = 3.0
_SLIP = 0.03  # a held body this far [m] from where it was held has been dropped


class Primitive(ABC):
    """A motion that one action asks for.

    Parameters are those of `__init__`, checked there with a ValueError that states the value and the limit. One object
    serves many episodes.

    Attributes:
        spec: the fields of its actions; its name is the one by which task modules ask for the primitive.
    """

    spec: ActionSpec

    @abstractmethod
    def execute(self, world: World, motion: Motion, action: Mapping[str, Array], height: NDArray[np.float32]) -> str:
        """Carry out an action, and leave the tip empty and clear of everything.

        Args:
            world: to act in; it goes on by `world.step`.
            motion: of the tip, which is wherever the last action left it.
            action: its fields, checked by `spec`.
            height: (H, W) above the table [m], as observed last.

        Returns:
            `OK`, or why it ended before its plan did: a word, a colon and a line.
        """

    def __call__(self, world: World, motion: Motion, action: Mapping[str, Array], height: NDArray[np.float32]) -> str:
        """Carry out an action and wait until everything is at rest.

        Returns:
            As `execute`, or that something still moves.
        """
        reason = self.execute(world, motion, action, height)
        settled = world.settle(cap=SETTLE_CAP)
        return reason if settled or reason != OK else UNSETTLED


class PickPlace(Primitive):
    """Pick what is at one pose and place it at another."""

    spec = PICK_PLACE

    def execute(self, world: World, motion: Motion, action: Mapping[str, Array], height: NDArray[np.float32]) -> str:
        """Carry out an action; where the surface is, rays tell."""
        return _Primitive(world, motion, Action.of(action)).run()


class _Primitive:
    def __init__(self, world: World, motion: Motion, action: Action) -> None:
        self.world, self.motion, self.action = world, motion, action
        self.position = np.zeros(3)
        # Only the turn between the two yaws matters to a round cup; halving it keeps an arm's wrist within its range.
        self.yaw = -action.turn / 2
        self.grip_offset = np.zeros(3)
        self.reason = OK

    def run(self) -> str:
        held = self._pick() and self._carry()
        if held:
            self._lower(self._drop_height())
        self.motion.release()
        self._leave()
        return self.reason

    def _pick(self) -> bool:
        xy = self.action.pick.position[:2]
        self.position = np.array([*xy, self.world.top() + 0.02])
        if not self.motion.reaches(self.position):
            self.reason = UNREACHABLE
            return False
        self.motion.park(self.position, self.yaw)
        ring = TIP_RADIUS * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        rays = np.c_[xy + ring, np.full(5, self.position[2])]
        below = self.world.surface(rays, without=self.motion.body).max()
        self._lower(float(below))
        if not self.motion.contact() or not self.motion.grip():
            self.reason = MISSED
            return False
        self.grip_offset = self._held_position() - self.motion.tip().position
        return True

    def _carry(self) -> bool:
        goal = self.action.place.position[:2]
        speed = self._loaded_speed()
        height = BEAD_LIFT if self._holds_bead() else self._carry_height()
        up = np.array([*self.position[:2], max(height, self.position[2])])
        across = np.array([*goal, up[2]])
        return self._move(up, self.yaw, speed) and self._move(across, self.yaw + self.action.turn, speed)

    def _carry_height(self) -> float:
        """Tip height at which the load passes over everything else."""
        held = self.motion.held
        assert held is not None
        hangs = self.position[2] - self.world.bounds(held)[0, 2]
        return self.world.top(without=(held,)) + hangs + CLEARANCE

    def _drop_height(self) -> float:
        """Tip height at which the load is expected to touch what is below it."""
        held = self.motion.held
        assert held is not None
        lower, upper = self.world.bounds(held)
        hangs = self.position[2] - lower[2]
        if self._holds_bead():
            return float(self.world.surface([[*self.position[:2], lower[2] - 1e-4]], without=held).max() + hangs)
        grid = np.stack(np.meshgrid(*np.linspace(lower[:2], upper[:2], 4).T), axis=-1).reshape(-1, 2)
        points = np.c_[grid, np.full(len(grid), lower[2] - 1e-4)]
        return float(self.world.surface(points, without=held).max() + hangs)

    def _lower(self, contact_height: float) -> None:
        """Descend until the tip or its load touches, fast at first, and never below the table."""
        xy, speed = self.position[:2], self.motion.fast if self.motion.held is None else self._loaded_speed()
        near = np.array([*xy, min(contact_height + NEAR, self.position[2])])
        if self._move(near, self.yaw, speed, until_contact=True) and not self.motion.contact():
            # What rays saw below the box around a load may stand beside it: a load is never let go in the air.
            floor = contact_height - 2 * NEAR if self.motion.held is None else -np.inf
            self._move(np.array([*xy, max(-0.002, floor)]), self.yaw, SLOW, until_contact=True)

    def _leave(self) -> None:
        """Rise straight up from what was let go, slowly at first so that nothing is dragged along."""
        self._move(self.position + [0, 0, 0.01], self.yaw, SLOW)
        self._move(self.position + [0, 0, 0.03], self.yaw, self.motion.loaded)

    def _move(self, goal: Array, yaw: float, speed: float, until_contact: bool = False) -> bool:
        """Move in a straight line; False when the load was lost or had to be let go."""
        if not self.motion.reaches(goal):
            self.reason = UNREACHABLE
            return False
        start, turn = self.position, self.yaw
        # Turning is no faster than half a turn in the time the tip takes for 25 cm.
        ticks = int(np.ceil(max(float(np.linalg.norm(goal - start)) / speed, abs(yaw - turn) / np.pi * 0.25 / speed)))
        for tick in range(1, ticks + 1):
            share = tick / ticks
            self.position, self.yaw = start + share * (goal - start), turn + share * (yaw - turn)
            self.motion.command(self.position, self.yaw)
            self.world.step()
            if not self._load_is_safe(tick):
                return False
            if until_contact and self.motion.contact():
                break
        return True

    def _load_is_safe(self, tick: int) -> bool:
        if self._holds_bead():
            if self.world.stretch() > MAX_STRETCH:
                self.reason = OVERSTRETCHED
        elif self.motion.held is not None and tick % 4 == 0:
            if abs(self._held_position()[2] - self.motion.tip().position[2] - self.grip_offset[2]) > _SLIP:
                self.reason = DROPPED
        return self.reason == OK

    def _loaded_speed(self) -> float:
        return BEAD if self._holds_bead() else self.motion.loaded

    def _holds_bead(self) -> bool:
        held = self.motion.held
        return held is not None and self.world.bodies[held].kind == "bead"

    def _held_position(self) -> Array:
        assert self.motion.held is not None
        return self.world.positions([self.motion.held])[0]
