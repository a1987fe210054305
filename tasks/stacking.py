"""Stacking: boxes into towers, in a drawn order."""

import cv2
import numpy as np
from numpy.typing import NDArray

from multiravens.envs.action import Action, transport
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.region import Region
from multiravens.geometry import Array, Pose, planar_pose, quaternion_yaw, rotate, tilt
from multiravens.sim.shapes import slab
from multiravens.sim.world import World
from multiravens.tasks.symmetry import Symmetry

COLORS = (
    (0.80, 0.27, 0.25),
    (0.26, 0.50, 0.80),
    (0.95, 0.77, 0.22),
    (0.36, 0.66, 0.38),
    (0.56, 0.40, 0.72),
    (0.93, 0.55, 0.25),
    (0.30, 0.70, 0.72),
    (0.90, 0.58, 0.70),
)
PAD_COLOR = (0.24, 0.25, 0.28)
PAD_SIDE, PAD_HEIGHT = 0.080, 0.002
LENGTHS, WIDTHS = (0.046, 0.060), (0.036, 0.046)
# [m]: with long sides aligned, any two boxes share at least four fifths of the smaller footprint
HEIGHTS = (0.020, 0.030)
DENSITY = 900.0  # [kg/m3]: a box of 5 cm weighs about 60 g

MIN_OVERLAP = 2 / 3
NEAR_Z, MAX_TILT = 0.004, np.deg2rad(8)
SYMMETRY = Symmetry(np.pi, flip=0.0)
"""Of a box: half a turn about any of its axes. Lying on another side it looks different, as no two sizes are alike."""
RADIUS = 0.045  # half a diagonal of the largest box, and a little [m]


class Stacking(TaskModule):
    """Boxes into towers, in a drawn order.

    Description:
        Boxes of different footprints, heights and colours lie about, with square pads for towers. Each box belongs at
        one level of one tower; the goal images alone say which.

    Randomizations:
        Sizes and colours of the boxes, where they and the pads lie and how they are turned, which box goes where, and
        how high each tower gets.

    Success:
        A box's sub-goal holds while it lies level on what it belongs on, at the height of everything below it (4 mm),
        with two thirds of the smaller of the two footprints shared, and all below it holds too. Upside down it looks
        the same and counts; on another side it does not.

    Args:
        boxes: how many boxes, 2 to 8.
        towers: how many towers, 1 to 3, of at most 4 boxes and heights as even as they can be.

    Raises:
        ValueError: a count out of its range, fewer boxes than towers, or towers of more than 4.
    """

    def __init__(self, boxes: int = 5, towers: int = 2) -> None:
        if not 2 <= boxes <= len(COLORS):
            raise ValueError(f"boxes={boxes}: give 2 to {len(COLORS)}")
        if not 1 <= towers <= 3:
            raise ValueError(f"towers={towers}: give 1 to 3")
        if not towers <= boxes <= 4 * towers:
            raise ValueError(f"boxes={boxes} in towers={towers}: give each tower 1 to 4 boxes")
        self.boxes, self.towers = boxes, towers

    @property
    def footprint(self) -> tuple[float, float]:
        """(length, width) [m] of the rectangle of table it needs."""
        discs = self.boxes + self.towers
        return (0.24, round(0.055 * discs, 2)) if discs <= 8 else (0.46, round(0.032 * discs, 2))

    @property
    def size(self) -> int:
        """Number of sub-goals: one a box."""
        return self.boxes

    def build(self, world: World, region: Region, rng: np.random.Generator) -> list[SubGoal]:
        """Lay out pads and boxes and draw the towers."""
        self._region = region
        low, high = np.array([LENGTHS, WIDTHS, HEIGHTS]).T
        self._sizes = rng.uniform(low, high, (self.boxes, 3))
        diagonals = np.linalg.norm(self._sizes[:, :2], axis=1) / 2
        places = region.xy(region.scatter([PAD_SIDE / np.sqrt(2) * 0.9] * self.towers + list(diagonals), rng))
        self._pads = [planar_pose(xy, 0.0, rng.uniform(-np.pi, np.pi)) for xy in places[: self.towers]]
        for index, pose in enumerate(self._pads):
            world.add(f"pad {index}", slab((PAD_SIDE, PAD_SIDE, PAD_HEIGHT), PAD_COLOR), pose)
        colors = rng.permutation(len(COLORS))
        self._bodies = [
            world.add(
                f"box {index}",
                slab(size, COLORS[colors[index]]),
                planar_pose(xy, 0.0, rng.uniform(-np.pi, np.pi)),
                DENSITY * float(np.prod(size)),
            )
            for index, (size, xy) in enumerate(zip(self._sizes, places[self.towers :], strict=True))
        ]
        return self._draw_towers(rng)

    def _draw_towers(self, rng: np.random.Generator) -> list[SubGoal]:
        """Deal the boxes, in a drawn order, to the towers in turn, so that heights differ by one at most."""
        order, first = rng.permutation(self.boxes), int(rng.integers(self.towers))
        stacks: list[list[int]] = [[] for _ in range(self.towers)]
        for turn, box in enumerate(order):
            stacks[(first + turn) % self.towers].append(int(box))
        self._below: dict[int, int | None] = {}
        self._tower: dict[int, int] = {}
        for tower, stack in enumerate(stacks):
            for level, box in enumerate(stack):
                self._below[box] = stack[level - 1] if level else None
                self._tower[box] = tower
        return [
            SubGoal(
                f"box {box} at level {self._level(box)} of tower {self._tower[box]}",
                () if self._below[box] is None else (self._below[box],),  # type: ignore[arg-type]
            )
            for box in range(self.boxes)
        ]

    def _level(self, box: int) -> int:
        below = self._below[box]
        return 0 if below is None else 1 + self._level(below)

    def _support(self, box: int) -> float:
        """Height [m] at which a box belongs."""
        below = self._below[box]
        return PAD_HEIGHT if below is None else self._support(below) + float(self._sizes[below, 2])

    def holds(self, world: World) -> NDArray[np.bool_]:
        """(boxes,) which boxes are where they belong."""
        poses = [self._pose(world, box) for box in range(self.boxes)]
        outlines = [
            _outline(pose.position[:2], quaternion_yaw(pose.quaternion), size)
            for pose, size in zip(poses, self._sizes, strict=True)
        ]
        flags: dict[int, bool] = {}

        def stands(box: int) -> bool:
            if box not in flags:
                below, pose = self._below[box], poses[box]
                pad = self._pads[self._tower[box]]
                under = (
                    _outline(pad.position[:2], quaternion_yaw(pad.quaternion), np.full(2, PAD_SIDE))
                    if below is None
                    else outlines[below]
                )
                flags[box] = bool(
                    abs(pose.position[2] - self._support(box)) <= NEAR_Z
                    and tilt(pose.quaternion) <= MAX_TILT
                    and _overlap(outlines[box], under) >= MIN_OVERLAP
                    and (below is None or stands(below))
                )
            return flags[box]

        return np.array([stands(box) for box in range(self.boxes)], bool)

    def _pose(self, world: World, box: int) -> Pose:
        """Pose of a box, the right way up: upside down it looks the same."""
        return SYMMETRY.upright(world.pose(self._bodies[box]), float(self._sizes[box, 2]))

    def expert(self, world: World, index: int) -> Action | None:
        """Bring the box to its level; first clear what lies on it or where it shall go."""
        poses = [self._pose(world, box) for box in range(self.boxes)]
        burden = self._highest_over(poses, poses[index].position[:2], float(poses[index].position[2]) + 0.005, {index})
        if burden is not None:
            return self._set_aside(world, burden)
        below = self._below[index]
        goal = self._pads[self._tower[index]] if below is None else poses[below]
        level = self._support(index)
        blocker = self._highest_over(poses, goal.position[:2], level - 0.005, {index})
        if blocker is not None:
            return self._set_aside(world, blocker)
        yaw = quaternion_yaw(self._pads[self._tower[index]].quaternion)
        return self._transport(world, index, goal.position[:2], yaw)

    def _highest_over(self, poses: list[Pose], xy: Array, z: float, without: set[int]) -> int | None:
        """The highest box above height z whose middle is near xy; None where there is none."""
        near = [
            (float(pose.position[2]), box)
            for box, pose in enumerate(poses)
            if box not in without and pose.position[2] > z and np.linalg.norm(pose.position[:2] - xy) < RADIUS
        ]
        return max(near)[1] if near else None

    def _set_aside(self, world: World, box: int) -> Action:
        half = np.array(self._region.size) / 2 - RADIUS
        axes = [np.arange(-side, side + 1e-9, 0.02) for side in half]
        grid = self._region.xy(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2))
        others = [world.pose(body).position[:2] for i, body in enumerate(self._bodies) if i != box]
        obstacles = np.array(others + [pad.position[:2] for pad in self._pads])
        distances = np.linalg.norm(grid[:, None] - obstacles, axis=-1).min(1)
        return self._transport(world, box, grid[distances.argmax()], 0.0)

    def _transport(self, world: World, box: int, goal: Array, yaw: float) -> Action:
        pose = self._pose(world, box)
        pick = pose.position + [0, 0, self._sizes[box, 2]]
        return transport(pick, pose, goal, yaw, SYMMETRY.period)


def _outline(xy: Array, yaw: float, size: Array) -> NDArray[np.float32]:
    """Corners (4, 2) of a footprint of size (2,) or (3,) [m], scaled to millimetres for cv2's precision."""
    half = np.asarray(size[:2]) / 2 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return (1000 * (np.asarray(xy) + rotate(yaw, half))).astype(np.float32)


def _overlap(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    """Area that two convex outlines share, as a share of the smaller one's."""
    area, _ = cv2.intersectConvexConvex(a, b)
    return float(area / min(cv2.contourArea(a), cv2.contourArea(b)))
