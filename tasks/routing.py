"""Routing: a cable, held in a clamp, past pegs and into a socket."""

import numpy as np
from numpy.typing import NDArray

from multiravens.envs.action import Action
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.region import Region
from multiravens.geometry import Array, Pose, yaw_quaternion
from multiravens.sim.beads import DYNAMICS, LINK, MASS
from multiravens.sim.beads import RADIUS as BEAD_RADIUS
from multiravens.sim.shapes import Ball, Box, Cylinder, Shape, ball
from multiravens.sim.world import World


CABLE_COLOR = (0.93, 0.42, 0.17)
PEG_COLOR = (0.93, 0.90, 0.82)
CLAMP_COLOR = (0.13, 0.14, 0.17)
SOCKET_COLOR = (0.16, 0.66, 0.52)

PEG_RADIUS, PEG_HEIGHT = 0.008, 0.035
SPACING = 0.070  # of pegs along the course [m]
MAX_PEGS = 5
HALF_WIDTH = 0.09  # of the rectangle of table [m]
BEFORE, BEHIND = 0.075, 0.090  # clamp to first peg and last peg to socket, along the course [m]
REACH = 0.042  # of a peg's gate, to either side [m]
LANE = 0.062  # where the cable lies at first, from the course's middle line [m]
ASIDE = PEG_RADIUS + BEAD_RADIUS + 0.012
NEAR_SOCKET = 0.015
AHEAD = 0.010
SLACK = 0.006

class Routing(TaskModule):
    def __init__(self, pegs: int = 3) -> None:
        if not 1 <= pegs <= MAX_PEGS:
            raise ValueError(f"pegs={pegs}: give 1 to {MAX_PEGS}")
        self.pegs = pegs
        self.beads = 14 + 6 * pegs if pegs==3 else 10+6*pegs
        self.beads = int(np.ceil((BEFORE + BEHIND + 0.03 + (pegs - 1) * (SPACING + 0.016) + 0.04) / LINK)) + EXTRA

    @property
    def footprint(self) -> tuple[float, float]:
        return round(0.28 + SPACING * (self.pegs - 1), 3), 2 * HALF_WIDTH

    @property
    def size(self) -> int:
        return self.pegs + 1

    def build(self, world: World, region: Region, rng: np.random.Generator) -> list[SubGoal]:
        self._region = region
        lane = rng.choice([-1.0, 1.0])
        start = -region.size[0] / 2 + 0.03
        clamp = np.array([start, lane * rng.uniform(0.015, 0.03)])
        pegs = np.c_[start + BEFORE + SPACING * np.arange(self.pegs), np.zeros(self.pegs)]
        self._pegs = pegs + rng.uniform([-0.005, -0.010], [0.005, 0.010], pegs.shape)
        self._socket = np.array([self._pegs[-1, 0] + BEHIND, rng.uniform(-0.02, 0.02)])
        self._sides = rng.choice([-1, 1], self.pegs)
        for index, xy in enumerate(self._pegs):
            world.add(f"peg {index}", _peg(), region.pose(xy))
        world.add("clamp", _clamp(), region.pose(clamp))
        world.add("socket", _socket(), region.pose(self._socket))
        path = self._lay(clamp, lane, rng)
        positions = np.c_[region.xy(path), np.full(len(path), BEAD_RADIUS)]
        dynamics = DYNAMICS if FRIC is None else {**DYNAMICS, "lateralFriction": FRIC}
        self._cable = world.add_chain("cable", ball(BEAD_RADIUS, CABLE_COLOR), positions, MASS, False, **dynamics)
        world.pin(self._cable.beads[0])
        self._clamp = clamp
        sides = {1: "left", -1: "right"}
        return [SubGoal(f"peg {i} on the {sides[int(s)]}") for i, s in enumerate(self._sides)] + [
            SubGoal("end in the socket", tuple(range(self.pegs)))
        ]

    def _lay(self, clamp: Array, lane: float, rng: np.random.Generator) -> Array:
        x = np.linspace(clamp[0], self._region.size[0] / 2 + 0.2, 2000)
        waves = rng.uniform(-0.004, 0.004, 2)
        phases = rng.uniform(0, 2 * np.pi, 2)
        wave = sum(w * np.sin(2 * np.pi * x / p + f) for w, p, f in zip(waves, (0.11, 0.17), phases))
        out = np.clip((x - clamp[0] - 0.012) / (BEFORE - 0.030), 0, 1)
        out = out * out * (3 - 2 * out)
        y = clamp[1] + out * (lane * (LANE) + wave - clamp[1])
        curve = np.c_[x, y]
        return _evenly(curve, self.beads, LINK)

    def holds(self, world: World) -> NDArray[np.bool_]:
        beads = self._beads(world)
        sides = [passes(beads, peg, side) for peg, side in zip(self._pegs, self._sides)]
        end = np.linalg.norm(beads[-1, :2] - self._socket) <= NEAR_SOCKET
        return np.array([*sides, end], bool)

    def _beads(self, world: World) -> Array:
        positions = world.positions(self._cable.beads)
        return np.c_[self._region.local(positions[:, :2]), positions[:, 2]]

    def expert(self, world: World, index: int) -> Action | None:
        beads = self._beads(world)
        if index == self.pegs:
            return self._action(beads, len(beads) - 1, self._socket)
        return self._action(beads, self._abreast(beads, index), self._waypoint(index))

    def _waypoint(self, index: int) -> Array:
        return self._pegs[index] + [AT, self._sides[index] * ASIDE]

    def _abreast(self, beads: Array, index: int) -> int:
        """The bead that belongs beside a peg."""
        least = 0 if index == 0 else self._beside(beads, index - 1)
        last = beads[least, :2]
        before = np.linalg.norm(self._waypoint(index) - last)
        arc = LINK * (np.arange(len(beads)) - least)
        ready = (beads[:, 0] >= self._pegs[index, 0] + AHEAD) & (arc >= before + SLACK)
        bead = int(ready.argmax()) if ready.any() else len(beads) - 2
        return bead

    def _beside(self, beads: Array, index: int) -> int:
        return int(np.linalg.norm(beads[:, :2] - self._waypoint(index), axis=1).argmin())

    def _action(self, beads: Array, bead: int, goal: Array) -> Action:
        pick = np.array([*self._region.xy(beads[bead, :2]), beads[bead, 2] + BEAD_RADIUS])
        place = np.array([*self._region.xy(goal), BEAD_RADIUS * 2])
        return Action(Pose(pick, yaw_quaternion(0.0)), Pose(place, yaw_quaternion(0.0)))

EXTRA = 0
FRIC = 0.8
AT = 0.004

def passes(line: Array, peg: Array, side: int) -> bool:
    start, end = line[:-1], line[1:]
    ahead = line[:, 0] > peg[0]
    sign = ahead[1:].astype(int) - ahead[:-1].astype(int)
    at = np.nonzero(sign)[0]
    share = (peg[0] - start[at, 0]) / (end[at, 0] - start[at, 0])
    y, z = (start[at] + share[:, None] * (end[at] - start[at]))[:, 1:].T
    y = y - peg[1]
    if (abs(y) < PEG_RADIUS).any():
        return False
    near = abs(y) <= REACH
    net = {s: int(sign[at][near & (y * s > 0)].sum()) for s in (-1, 1)}
    return net[side] == 1 and net[-side] == 0


def _evenly(curve: Array, count: int, step: float) -> Array:
    points = [curve[0]]
    for point in curve:
        if np.linalg.norm(point - points[-1]) >= step:
            # the crossing between two close samples
            points.append(points[-1] + step * (point - points[-1]) / np.linalg.norm(point - points[-1]))
    return np.array(points[:count])


def _peg() -> Shape:
    return Shape((Cylinder(PEG_RADIUS, PEG_HEIGHT, (0, 0, PEG_HEIGHT / 2)),), PEG_COLOR)


def _clamp() -> Shape:
    jaw, height = 0.010, 0.016
    gap = BEAD_RADIUS + 0.001 + jaw / 2
    return Shape((
        Box((0.022, jaw, height), (0, gap, height / 2)),
        Box((0.022, jaw, height), (0, -gap, height / 2)),
        Box((0.022, 2 * gap + jaw, 0.006), (0, 0, height + 0.003)),
        Box((0.008, 2 * gap + jaw, height), (-0.013, 0, height / 2)),
    ), CLAMP_COLOR)


def _socket() -> Shape:
    radius, wall, height = 0.013, 0.005, 0.008
    angles = np.deg2rad(np.arange(-120, 121, 30))
    length = 2 * (radius + wall / 2) * np.tan(np.deg2rad(15)) + 0.001
    r = radius + wall / 2
    return Shape(tuple(
        Box((wall, length, height), (r * np.cos(a), r * np.sin(a), height / 2), a) for a in angles
    ), SOCKET_COLOR)
