"""Placing: parts onto their plates, as in kitting."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from multiravens.envs.action import Action, transport
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.region import Region
from multiravens.geometry import Array, Pose, planar_pose, quaternion_yaw, rotate, tilt, wrap_angle
from multiravens.sim.shapes import disc
from multiravens.sim.world import World
from multiravens.tasks.parts import LIBRARY, PLATE_HEIGHT, PLATE_RADIUS, Part, part

COLORS = (
    (0.84, 0.24, 0.20),
    (0.95, 0.62, 0.13),
    (0.97, 0.86, 0.30),
    (0.35, 0.70, 0.32),
    (0.20, 0.66, 0.69),
    (0.23, 0.46, 0.80),
    (0.58, 0.38, 0.72),
    (0.90, 0.52, 0.66),
)
PLATE_COLOR = (0.80, 0.80, 0.78)
PART_MASS = 0.08  # [kg], of a nylon part this size
MAX_PARTS = 8

# Success, Ravens' tolerances with height and uprightness added.
NEAR_XY, NEAR_YAW = 0.010, np.deg2rad(15)
NEAR_Z, MAX_TILT = 0.004, np.deg2rad(8)


class Placing(TaskModule):
    """Parts onto their plates, as in kitting.

    Description:
        Parts of different shapes lie about, among plates that all look alike. Each part belongs on one plate, at one
        yaw where its shape has one; the goal images alone say which. Some plates stay empty.

    Randomizations:
        Which shapes and colours are there, where parts and plates lie and how they are turned, which part goes on which
        plate and at which yaw.

    Success:
        A part's sub-goal holds while it stands upright on its plate (height within 4 mm, tilt under 8 degrees), within
        1 cm of the middle and 15 degrees of the yaw asked for. Every pose that looks the same counts: turned by its
        shape's symmetry, and upside down where that looks the same.

    Args:
        parts: how many parts, 1 to 8.
        decoys: how many more plates than parts, 0 to 4.
        same_color: paint all parts alike, so that only shape tells them apart.
        shapes: names from the library, or mappings with `mesh` or `urdf` (a path) for a part of one's own, see
            `parts.part`; None for the whole library.

    Raises:
        ValueError: a count out of its range, an unknown shape, or fewer shapes than parts.
    """

    def __init__(
        self,
        parts: int = 4,
        decoys: int = 1,
        same_color: bool = False,
        shapes: Sequence[Any] | None = None,  # `part` says of each what is wrong with it
    ) -> None:
        if not 1 <= parts <= MAX_PARTS:
            raise ValueError(f"parts={parts}: give 1 to {MAX_PARTS}")
        if not 0 <= decoys <= 4:
            raise ValueError(f"decoys={decoys}: give 0 to 4")
        names = list(LIBRARY) if shapes is None else list(shapes)
        self.library = [part(name) for name in names]
        if len(self.library) < parts:
            raise ValueError(f"parts={parts} but shapes lists {len(self.library)}; list as many shapes as parts")
        self.parts, self.decoys, self.same_color = parts, decoys, same_color

    @property
    def footprint(self) -> tuple[float, float]:
        """(length, width) [m] of the rectangle of table it needs."""
        discs = 2 * self.parts + self.decoys
        return (0.24, round(0.053 * discs, 2)) if discs <= 9 else (0.46, round(0.029 * discs, 2))

    @property
    def size(self) -> int:
        """Number of sub-goals: one a part."""
        return self.parts

    def build(self, world: World, region: Region, rng: np.random.Generator) -> list[SubGoal]:
        """Lay out plates and parts and draw which goes where."""
        self._region = region
        self._kinds: list[Part] = [self.library[i] for i in rng.permutation(len(self.library))[: self.parts]]
        colors = rng.permutation(len(COLORS))
        radii = [PLATE_RADIUS] * (self.parts + self.decoys) + [kind.radius for kind in self._kinds]
        places = region.xy(region.scatter(radii, rng))
        self._plates = places[: self.parts + self.decoys]
        plate = disc(PLATE_RADIUS, PLATE_HEIGHT, PLATE_COLOR)
        for index, xy in enumerate(self._plates):
            world.add(f"plate {index}", plate, planar_pose(xy))
        self._bodies = []
        for index, (kind, xy) in enumerate(zip(self._kinds, places[len(self._plates) :], strict=True)):
            color = COLORS[colors[0 if self.same_color else index]]
            pose = planar_pose(xy, 0.0, rng.uniform(-np.pi, np.pi))
            self._bodies.append(kind.add(world, f"part {index}", pose, color, PART_MASS))
        self._goals = rng.permutation(len(self._plates))[: self.parts]
        self._yaws = rng.uniform(-np.pi, np.pi, self.parts)
        return [SubGoal(f"{kind.name} on plate {plate}") for kind, plate in zip(self._kinds, self._goals, strict=True)]

    def holds(self, world: World) -> NDArray[np.bool_]:
        """(parts,) which parts stand on their plates."""
        return np.array([self._stands(world, index) for index in range(self.parts)], bool)

    def _stands(self, world: World, index: int) -> bool:
        pose = self._pose(world, index)
        turned = quaternion_yaw(pose.quaternion) - self._yaws[index]
        period = self._kinds[index].symmetry.period
        return bool(
            np.linalg.norm(pose.position[:2] - self._plates[self._goals[index]]) <= NEAR_XY
            and (not period or abs(wrap_angle(turned, period)) <= NEAR_YAW)
            and abs(pose.position[2] - PLATE_HEIGHT) <= NEAR_Z
            and tilt(pose.quaternion) <= MAX_TILT
        )

    def _pose(self, world: World, index: int) -> Pose:
        """Pose of a part, the right way up where that looks the same."""
        kind = self._kinds[index]
        return kind.symmetry.upright(world.pose(self._bodies[index]), kind.height)

    def expert(self, world: World, index: int) -> Action | None:
        """Bring the part to its plate; first clear away another part that is in the way there."""
        goal = self._plates[self._goals[index]]
        for other in range(self.parts):
            reach = self._kinds[index].radius + self._kinds[other].radius
            if other != index and np.linalg.norm(world.pose(self._bodies[other]).position[:2] - goal) < reach - 0.004:
                return self._transport(world, other, self._free_place(world, other), 0.0)
        return self._transport(world, index, goal, self._yaws[index])

    def _transport(self, world: World, index: int, goal: Array, yaw: float) -> Action:
        pose, kind = self._pose(world, index), self._kinds[index]
        grasp = rotate(quaternion_yaw(pose.quaternion), kind.grasp)
        pick = np.array([*(pose.position[:2] + grasp), pose.position[2] + kind.height])
        return transport(pick, pose, goal, yaw, kind.symmetry.period)

    def _free_place(self, world: World, index: int) -> Array:
        """The place in the region furthest from every plate and other part, on a 2 cm grid."""
        half = np.array(self._region.size) / 2 - self._kinds[index].radius
        axes = [np.arange(-side, side + 1e-9, 0.02) for side in half]
        grid = self._region.xy(np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2))
        others = [world.pose(body).position[:2] for i, body in enumerate(self._bodies) if i != index]
        obstacles = np.concatenate([self._plates, np.array(others).reshape(-1, 2)])
        distances = np.linalg.norm(grid[:, None] - obstacles, axis=-1).min(1)
        return np.asarray(grid[distances.argmax()])
