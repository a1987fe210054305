"""Routing: a cable, held in a clamp, past pegs on the right sides and into a socket."""

import numpy as np
from numpy.typing import NDArray

from multiravens.envs.action import Action
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.region import Region
from multiravens.geometry import Array, Pose, yaw_quaternion
from multiravens.sim.beads import LINK, RADIUS, add_beads, beside, spaced
from multiravens.sim.shapes import Box, Shape, disc
from multiravens.sim.world import World

CABLE_COLOR = (0.93, 0.42, 0.17)
PEG_COLOR = (0.93, 0.90, 0.82)
CLAMP_COLOR = (0.13, 0.14, 0.17)
SOCKET_COLOR = (0.16, 0.66, 0.52)

PEG_RADIUS, PEG_HEIGHT = 0.008, 0.035
MAX_PEGS = 5
REACHABLE = 0.018  # a bead this far from a peg's axis [m] can be picked beside it
# The course runs along the region's x axis: clamp, pegs, socket [m].
SPACING = 0.070
BEFORE, BEHIND = 0.075, 0.090  # from clamp to first peg, from last peg to socket
END = 0.030  # kept free before the clamp
HALF_WIDTH = 0.090
SPARE = 0.013
"""Cable a leg of the course [m] beyond its straight length: what turning from side to side at every peg takes."""
FRICTION = 0.8  # of the cable, slicker than a belt: its arches come down sooner, and pegs let go of it
LANE = 0.062
"""The cable first lies this far to one side of the course [m]: beyond every gate, so that it passes no peg."""
REACH = 0.042
"""Half the length of a peg's gate, across the course [m]: a cable further away does not pass that peg."""

ASIDE = PEG_RADIUS + RADIUS + 0.012  # the expert leads the cable past a peg at this distance from its axis [m]
AHEAD = 0.004  # and this far beyond it along the course, so that the strand before it passes the gate [m]
PICK_AHEAD = 0.010  # it picks the cable this far beyond the peg, so that the strand behind comes down beyond it too [m]
TAIL = 0.030  # the cable's end is first brought this far beyond a peg that it does not reach past [m]
SLACK = 0.006  # of the strand between two pegs, which keeps the second pull from moving what the first one laid [m]
OCCUPIED = 0.010  # another bead this close to the socket's middle leaves no place for the end [m]
CLEAR = 0.050  # and is first taken this far back [m]
NEAR_SOCKET = 0.015


class Routing(TaskModule):
    """A cable, held in a clamp, past pegs on the right sides and into a socket.

    Description:
        A beaded cable, one end in a clamp, lies along a row of pegs without meeting them. It is to be led past each
        peg on one side and its free end into a socket; the goal images alone say on which sides.

    Randomizations:
        The side at each peg; where pegs, clamp and socket stand; on which side of the row, and in what waves, the
        cable first lies, whatever the sides asked for.

    Success:
        A peg's sub-goal holds while the cable crosses the peg's gate (the line across the course, 42 mm to either side)
        once more forwards than backwards on the side asked for, as often both ways on the other, and neither over the
        peg nor above its top. The end's holds while it is within 15 mm of its place in the socket.

    Args:
        pegs: how many pegs, 1 to 5.

    Raises:
        ValueError: a count out of its range.
    """

    tool = "fingers"

    def __init__(self, pegs: int = 3) -> None:
        if not 1 <= pegs <= MAX_PEGS:
            raise ValueError(f"pegs={pegs}: give 1 to {MAX_PEGS}")
        self.pegs = pegs
        course = BEFORE + (pegs - 1) * SPACING + BEHIND
        self.beads = int(np.ceil((course + (pegs + 1) * SPARE + 0.04) / LINK))

    @property
    def footprint(self) -> tuple[float, float]:
        """(length, width) [m] of the rectangle of table it needs."""
        return round(0.264 + 0.078 * (self.pegs - 1), 3), 2 * HALF_WIDTH

    @property
    def size(self) -> int:
        """Number of sub-goals: one a peg, and the end's."""
        return self.pegs + 1

    def build(self, world: World, region: Region, rng: np.random.Generator) -> list[SubGoal]:
        """Set up clamp, pegs and socket, lay the cable and draw the sides."""
        self._region = region
        lane = float(rng.choice([-1.0, 1.0]))
        start = -region.size[0] / 2 + END
        self._clamp = np.array([start, lane * rng.uniform(0.015, 0.030)])
        pegs = np.c_[start + BEFORE + SPACING * np.arange(self.pegs), np.zeros(self.pegs)]
        self._pegs = pegs + rng.uniform([-0.005, -0.010], [0.005, 0.010], pegs.shape)
        self._socket = np.array([self._pegs[-1, 0] + BEHIND, rng.uniform(-0.02, 0.02)])
        self._sides = rng.choice([-1, 1], self.pegs)
        peg = disc(PEG_RADIUS, PEG_HEIGHT, PEG_COLOR)
        for index, xy in enumerate(self._pegs):
            world.add(f"peg {index}", peg, region.pose(xy))
        world.add("clamp", _clamp(), region.pose(self._clamp))
        world.add("socket", _socket(), region.pose(self._socket))
        curve = region.xy(self._lay(lane, rng))
        self._cable = add_beads(world, "cable", CABLE_COLOR, curve, closed=False, lateralFriction=FRICTION)
        world.pin(self._cable.beads[0])
        sides = {1: "left", -1: "right"}
        ends = SubGoal("end in the socket", tuple(range(self.pegs)))
        return [*(SubGoal(f"peg {peg} on the {sides[int(side)]}") for peg, side in enumerate(self._sides)), ends]

    def _lay(self, lane: float, rng: np.random.Generator) -> Array:
        """(beads, 2) from the clamp out to the lane and along it, a little wavy, in the region's frame."""
        x = np.linspace(self._clamp[0], self._clamp[0] + self.beads * LINK, 2000)
        sizes, phases = rng.uniform(-0.004, 0.004, (2, 1)), rng.uniform(0, 2 * np.pi, (2, 1))
        waves = (sizes * np.sin(2 * np.pi * x / [[0.11], [0.17]] + phases)).sum(0)
        out = np.clip((x - self._clamp[0] - 0.012) / (BEFORE - 0.030), 0, 1)
        out = out * out * (3 - 2 * out)
        curve = np.c_[x, self._clamp[1] + out * (lane * LANE + waves - self._clamp[1])]
        arc = np.concatenate([[0.0], np.linalg.norm(np.diff(curve, axis=0), axis=1).cumsum()])
        return spaced(curve[arc <= (self.beads - 1) * LINK], self.beads, closed=False)

    def holds(self, world: World) -> NDArray[np.bool_]:
        """(pegs + 1,) which pegs the cable passes on the right side, and whether its end is in the socket."""
        beads = self._beads(world)
        sides = [passes(beads, peg, int(side)) for peg, side in zip(self._pegs, self._sides, strict=True)]
        return np.array([*sides, np.linalg.norm(beads[-1] - [*self._socket, RADIUS]) <= NEAR_SOCKET], bool)

    def expert(self, world: World, index: int) -> Action | None:
        """Bring the bead that belongs beside the peg there, or the end into the socket."""
        beads = self._beads(world)
        if index == self.pegs:
            return self._plug(beads)
        goal = self._pegs[index] + [AHEAD, self._sides[index] * ASIDE]
        if beads[-1, 0] < self._pegs[index, 0] + TAIL:
            return self._carry(beads, len(beads) - 1, goal + [2 * TAIL, 0])
        return self._carry(beads, self._abreast(beads, index, goal), goal)

    def _plug(self, beads: Array) -> Action:
        """Bring the end into the socket, after another bead that has taken its place there is taken out."""
        away = np.linalg.norm(beads[:-1, :2] - self._socket, axis=1)
        if away.min() < OCCUPIED:
            return self._carry(beads, int(away.argmin()), self._socket - [CLEAR, 0])
        return self._carry(beads, len(beads) - 1, self._socket)

    def _abreast(self, beads: Array, index: int, goal: Array) -> int:
        """The first bead beyond the peg that reaches its place without pulling at what lies beside the peg before."""
        laid = 0
        if index > 0:
            before = self._pegs[index - 1] + [AHEAD, self._sides[index - 1] * ASIDE]
            laid = int(np.linalg.norm(beads[:, :2] - before, axis=1).argmin())
        needed = np.linalg.norm(goal - beads[laid, :2]) + SLACK
        arc = LINK * (np.arange(len(beads)) - laid)
        ready = (beads[:, 0] >= self._pegs[index, 0] + PICK_AHEAD) & (arc >= needed)
        return int(ready.argmax()) if ready.any() else len(beads) - 2

    def _beads(self, world: World) -> Array:
        """(beads, 3) positions in the region's frame, in order from the clamp [m]."""
        positions = world.positions(self._cable.beads)
        return np.c_[self._region.local(positions[:, :2]), positions[:, 2]]

    def _carry(self, beads: Array, bead: int, goal: Array) -> Action:
        still = yaw_quaternion(0.0)
        xy = self._region.xy(beside(beads[bead, :2], self._pegs, REACHABLE))
        pick = np.array([*xy, beads[bead, 2] + RADIUS])
        return Action(Pose(pick, still), Pose(np.array([*self._region.xy(goal), 2 * RADIUS]), still), period=0.0)


def passes(cable: Array, peg: Array, side: int) -> bool:
    """Tell whether a cable passes a peg on a side.

    Args:
        cable: (N, 3) positions in order, in a frame whose x axis runs along the course [m].
        peg: (2,) [m].
        side: +1 for the left, towards +y, or -1.

    Returns:
        True when its crossings of the peg's gate, forwards counted +1 and backwards -1, sum to 1 on that side and to 0
        on the other, and none is over the peg or above its top.
    """
    ahead = (cable[:, 0] > peg[0]).astype(int)
    at = np.nonzero(np.diff(ahead))[0]
    forwards = np.diff(ahead)[at]
    share = (peg[0] - cable[at, 0]) / (cable[at + 1, 0] - cable[at, 0])
    crossings = cable[at] + share[:, None] * (cable[at + 1] - cable[at])
    offset, z = crossings[:, 1] - peg[1], crossings[:, 2]
    near = np.abs(offset) <= REACH
    if (near & ((np.abs(offset) < PEG_RADIUS) | (z > PEG_HEIGHT))).any():
        return False
    return bool(forwards[near & (offset * side > 0)].sum() == 1 and forwards[near & (offset * side < 0)].sum() == 0)


def _clamp() -> Shape:
    """Two jaws, a lid and a back about the first bead [m]."""
    jaw, height = 0.010, 0.016
    gap = RADIUS + 0.001 + jaw / 2
    boxes = (
        Box((0.022, jaw, height), (0, gap, height / 2)),
        Box((0.022, jaw, height), (0, -gap, height / 2)),
        Box((0.022, 2 * gap + jaw, 0.006), (0, 0, height + 0.003)),
        Box((0.008, 2 * gap + jaw, height), (-0.013, 0, height / 2)),
    )
    return Shape(boxes, CLAMP_COLOR)


def _socket() -> Shape:
    """A low wall round the cable's end, open towards the pegs [m]; it is higher than a bead's middle."""
    radius, wall, height = 0.0155, 0.005, 0.008
    angles = np.deg2rad(np.arange(-120, 121, 30))
    length = 2 * radius * np.tan(np.deg2rad(15)) + 0.001
    boxes = (
        Box((wall, length, height), (radius * np.cos(angle), radius * np.sin(angle), height / 2), float(angle))
        for angle in angles
    )
    return Shape(tuple(boxes), SOCKET_COLOR)
