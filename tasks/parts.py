"""The parts that placing hands out, and a user's own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from multiravens.errors import UserError, quote, unknown
from multiravens.geometry import Pose
from multiravens.sim.shapes import RGB, Box, MeshFile, Shape, disc, prism, slab
from multiravens.sim.world import World

HEIGHT = 0.02  # [m] of every part of the library
_GREY: RGB = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Part:
    """A kind of part.

    Attributes:
        name: of its shape.
        radius: of the circle about its origin that it fits in [m].
        height: [m].
        period: it looks the same after this turn [rad]; 0 after any.
        grasp: (x, y) of a spot of its top, wide enough for the suction tip, in its own frame [m].
        add: puts one into a world: (world, name, pose, colour, mass) to Bullet's identifier.
    """

    name: str
    radius: float
    height: float
    period: float
    grasp: tuple[float, float]
    add: Callable[[World, str, Pose, RGB, float], int]


def _made(name: str, shape: Shape, radius: float, period_degrees: float, grasp: tuple[float, float] = (0, 0)) -> Part:
    return Part(name, radius, HEIGHT, np.deg2rad(period_degrees), grasp, partial(_add_shape, shape))


# Functions of the module rather than closures, so that an environment can be pickled.
def _add_shape(shape: Shape, world: World, name: str, pose: Pose, color: RGB, mass: float) -> int:
    return world.add(name, shape.painted(color), pose, mass)


def _add_mesh(mesh: MeshFile, world: World, name: str, pose: Pose, color: RGB, mass: float) -> int:
    return world.add(name, replace(mesh, color=color).shape(), pose, mass)


def _polygon(sides: int, radius: float) -> Shape:
    angles = 2 * np.pi * np.arange(sides) / sides
    return prism(radius * np.stack([np.cos(angles), np.sin(angles)], axis=-1), HEIGHT, _GREY)


def _bars(*bars: tuple[float, float, float, float, float]) -> Shape:
    """Boxes given as centre x, centre y, length, width [m], yaw [degrees]."""
    boxes = tuple(
        Box((length, width, HEIGHT), (x, y, HEIGHT / 2), np.deg2rad(yaw)) for x, y, length, width, yaw in bars
    )
    return Shape(boxes, _GREY)


LIBRARY = {
    part.name: part
    for part in (
        _made("disc", disc(0.022, HEIGHT, _GREY), 0.022, 0),
        _made("square", slab((0.040, 0.040, HEIGHT), _GREY), 0.0285, 90),
        _made("bar", slab((0.056, 0.020, HEIGHT), _GREY), 0.030, 180),
        _made("triangle", _polygon(3, 0.030), 0.030, 120),
        _made("hexagon", _polygon(6, 0.025), 0.025, 60),
        _made("cross", _bars((0, 0, 0.054, 0.018, 0), (0, 0, 0.018, 0.054, 0)), 0.0285, 90),
        _made(
            "angle", _bars((0, -0.015, 0.048, 0.018, 0), (-0.015, 0.009, 0.018, 0.030, 0)), 0.034, 360, (-0.015, -0.015)
        ),
        _made("tee", _bars((0, 0.015, 0.052, 0.018, 0), (0, -0.010, 0.018, 0.032, 0)), 0.0355, 360, (0, 0.015)),
        _made("zed", _bars((-0.010, 0.009, 0.036, 0.018, 0), (0.010, -0.009, 0.036, 0.018, 0)), 0.0335, 180),
    )
}
"""Shapes that differ from one another by outline alone, each about 5 cm wide."""

_KEYS = ("mesh", "urdf", "name", "scale", "symmetry", "grasp")


def part(description: str | Mapping[str, Any]) -> Part:
    """A part of the library by name, or one of one's own.

    Args:
        description: a name; or a mapping with `mesh` or `urdf`, a path; and, as far as the defaults do not fit,
            `name`, `scale` (metres a unit), `symmetry` (degrees after which it looks the same, 360 by default, 0 for
            round) and `grasp` ([x, y] of a flat spot of its top, in metres from its middle).

    Raises:
        UserError: an unknown name or key, a file that cannot be read, or a part too large for a plate.
    """
    if isinstance(description, str):
        if description not in LIBRARY:
            raise unknown("shape", description, LIBRARY)
        return LIBRARY[description]
    if not isinstance(description, Mapping):
        raise UserError(f"{quote(description)} is no part: give a name, {{mesh: PATH}} or {{urdf: PATH}}")
    for key in description:
        if key not in _KEYS:
            raise unknown("key of a part", str(key), _KEYS)
    if ("mesh" in description) == ("urdf" in description):
        raise UserError("a part of your own needs one of mesh: PATH or urdf: PATH")
    path = Path(str(description.get("mesh", description.get("urdf"))))
    scale = float(description.get("scale", 1.0))
    add, extents = _mesh_part(path, scale) if "mesh" in description else _urdf_part(path, scale)
    radius, height = float(np.linalg.norm(extents[:2]) / 2), float(extents[2])
    if not (0.008 <= radius <= 0.045 and height <= 0.08):
        raise UserError(
            f"{str(path)!r} is {extents[0]:.3f} x {extents[1]:.3f} x {height:.3f} m; parts are 1.6 to "
            "9 cm across and up to 8 cm high: set scale (metres a unit of the file)"
        )
    x, y = (float(value) for value in description.get("grasp", (0.0, 0.0)))
    symmetry = np.deg2rad(float(description.get("symmetry", 360)))
    return Part(str(description.get("name", path.stem)), radius, height, float(symmetry), (x, y), add)


def _mesh_part(path: Path, scale: float) -> tuple[Callable[[World, str, Pose, RGB, float], int], np.ndarray]:
    mesh = MeshFile(path, scale, _GREY)
    return partial(_add_mesh, mesh), mesh.load().extents


def _urdf_part(path: Path, scale: float) -> tuple[Callable[[World, str, Pose, RGB, float], int], np.ndarray]:
    world = World()
    try:
        body = world.add_urdf("part", path, Pose(np.zeros(3), np.array([0, 0, 0, 1.0])), scale)
        extents = np.ptp(world.bounds(body), axis=0)
    finally:
        world.close()

    def add(world: World, name: str, pose: Pose, color: RGB, mass: float) -> int:
        return world.add_urdf(name, path, pose, scale)

    return add, extents
