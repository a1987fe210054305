"""Motion primitives: what one action asks for. Ours is to pick and place.

From above the pick, down until contact, hold, up, across, down until what is held touches, let go, up. Descents are
fast until 1 cm above what was seen there, travels as high as what was seen on the way asks for. Every part ends after a
known number of ticks.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.envs.action import Action
from multiravens.envs.seen import Seen
from multiravens.geometry import Array
from multiravens.sim.beads import RADIUS as BEAD_RADIUS
from multiravens.sim.motion import Motion, ramped
from multiravens.sim.suction import RADIUS as TIP_RADIUS
from multiravens.sim.suction import acceleration
from multiravens.sim.world import TICK, World

OK = "ok"
DROPPED = "dropped: the load pulled harder than the tool holds, or slipped off"
OVERSTRETCHED = "overstretched: a link went beyond 1.2 times its length and was let go"
UNREACHABLE = "unreachable: the arm is too short for where the tip was to go"
UNSETTLED = "unsettled: bodies still moved when the time allowed had passed"

MAX_STRETCH = 1.2
"""Beads are let go when a link is longer than this share of its length, so that none gets to 1.3: under a hard pull
they grow by up to 0.06 a tick. Unhindered, they stay below 1.16."""
SLOW, BEAD = 0.001, 0.002
"""Tip speeds [m a tick] near contact, and dragging beads (6 mm solved a third of chaining in trials)."""
NEAR = 0.01
"""Descents are slow from this far above the surface that was seen below [m]."""
CLEARANCE = 0.015
"""Free height between a carried body and the highest thing seen on the way [m]."""
TIP_CLEARANCE = 0.02
"""Likewise of the empty tip."""
BEAD_LIFT = 0.06
"""Tip height for carrying a bead [m]: 35 mm posts, two bead radii of 6 mm and 1 cm to spare."""
SETTLE_CAP = 3.0


class Primitive(ABC):
    """A motion that one action asks for.

    Parameters are those of `__init__`, checked there with a ValueError that states the value and the limit. One object
    serves many episodes.

    Attributes:
        spec: the fields of its actions; its name is the one by which task modules ask for the primitive.
    """

    spec: ActionSpec

    @abstractmethod
    def execute(self, world: World, motion: Motion, action: Mapping[str, Array], seen: Seen) -> str:
        """Carry out an action, and leave the tip empty and clear of everything.

        Args:
            world: to act in; it goes on by `world.step`.
            motion: of the tip, which is wherever the last action left it.
            action: its fields, checked by `spec`.
            seen: heights of the table as the camera saw them last, for planning travel and descents.

        Returns:
            `OK`, or why it ended before its plan did: a word, a colon and a line.
        """

    def __call__(self, world: World, motion: Motion, action: Mapping[str, Array], seen: Seen) -> str:
        """Carry out an action and wait until everything is at rest.

        Returns:
            As `execute`, or that something still moves. `motion.vacuum` tells how well a load was held until it was let
            go; it is 0 where none was.
        """
        motion.vacuum = 0.0
        reason = self.execute(world, motion, action, seen)
        settled = world.settle(cap=SETTLE_CAP)
        return reason if settled or reason != OK else UNSETTLED


class PickPlace(Primitive):
    """Pick what is at one pose and place it at another."""

    spec = PICK_PLACE

    def execute(self, world: World, motion: Motion, action: Mapping[str, Array], seen: Seen) -> str:
        """Carry out an action; where things are is told by what was seen."""
        return _Primitive(world, motion, Action.of(action), seen).run()


class _Primitive:
    def __init__(self, world: World, motion: Motion, action: Action, seen: Seen) -> None:
        self.world, self.motion, self.action, self.seen = world, motion, action, seen
        self.position = np.zeros(3)
        # Only the turn between the two yaws matters to a round cup; halving it keeps an arm's wrist within its range.
        self.yaw = -action.turn / 2
        self.radius = TIP_RADIUS  # of the tip, or of the load about it, as it was seen [m]
        self.hangs = 0.0  # the load below the tip [m]
        self.reason = OK

    def run(self) -> str:
        held = self._pick() and self._carry()
        if held:
            self._lower(self._drop_height())
        self.motion.release()
        if self.reason != OK:
            self.motion.vacuum = 0.0
        self._leave()
        return self.reason

    def _pick(self) -> bool:
        xy = self.action.pick.position[:2]
        way = self.seen.along(self.motion.tip().position[:2], xy, TIP_RADIUS)
        self.position = np.array([*xy, way + TIP_CLEARANCE])
        if not self.motion.reaches(self.position):
            self.reason = UNREACHABLE
            return False
        self.motion.park(self.position, self.yaw)
        self._lower(self.seen.along(xy, xy, TIP_RADIUS))
        if not self.motion.contact() or not self.motion.grip():
            self.reason = self.motion.missed
            return False
        if self._holds_bead():
            self.hangs = 2 * BEAD_RADIUS
        else:
            # Nothing seen tells how far down the load reaches of what stands there: to the table, at most.
            self.hangs, self.radius = self.position[2], self.seen.extent(xy, self.position[2])
        return True

    def _carry(self) -> bool:
        start, goal = self.position[:2], self.action.place.position[:2]
        speed = self._loaded_speed()
        height = BEAD_LIFT
        if not self._holds_bead():
            height = self.seen.along(start, goal, self.radius) + self.hangs + CLEARANCE
        up = np.array([*start, max(height, self.position[2])])
        across = np.array([*goal, up[2]])
        return self._move(up, self.yaw, speed) and self._move(across, self.yaw + self.action.turn, speed)

    def _drop_height(self) -> float:
        """Tip height at which the load is expected to touch what is below it."""
        return self.seen.along(self.position[:2], self.position[:2], self.radius) + self.hangs

    def _lower(self, contact_height: float) -> None:
        """Descend until the tip or its load touches, fast at first, and never below the table."""
        xy, speed = self.position[:2], self.motion.fast if self.motion.held is None else self._loaded_speed()
        near = np.array([*xy, min(contact_height + NEAR, self.position[2])])
        if self._move(near, self.yaw, speed, until_contact=True) and not self.motion.contact():
            # What was seen about a place may stand beside it: nothing is picked or let go in the air.
            self._move(np.array([*xy, -0.002]), self.yaw, SLOW, until_contact=True)

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
        ticks = max(float(np.linalg.norm(goal - start)) / speed, abs(yaw - turn) / np.pi * 0.25 / speed)
        for share in ramped(ticks, self._ramp(speed)):
            self.position, self.yaw = start + share * (goal - start), turn + share * (yaw - turn)
            self.motion.command(self.position, self.yaw)
            self.world.step()
            if not self._load_is_safe():
                return False
            if until_contact and self.motion.contact():
                break
        return True

    def _ramp(self, speed: float) -> float:
        """Ticks in which the tip gets from rest to a speed [m a tick]."""
        if speed <= BEAD:
            return 0.0
        held = self.motion.held
        if held is None:
            return speed / self.motion.acceleration
        return speed / (acceleration(self.world.mass(held), self.hangs) * TICK**2)

    def _load_is_safe(self) -> bool:
        if self._holds_bead():
            if self.world.stretch() > MAX_STRETCH:
                self.reason = OVERSTRETCHED
        elif not self.motion.keeps():
            self.reason = DROPPED
        return self.reason == OK

    def _loaded_speed(self) -> float:
        return BEAD if self._holds_bead() else self.motion.loaded

    def _holds_bead(self) -> bool:
        held = self.motion.held
        return held is not None and self.world.bodies[held].kind == "bead"
