"""The parts that placing hands out, and a user's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from multiravens.errors import UserError, quote, unknown
from multiravens.geometry import Array, Pose, invert, multiply, planar_pose, quaternion_yaw, tilt, transform
from multiravens.options.paths import user_path
from multiravens.sim import suction
from multiravens.sim.shapes import RGB, Box, MeshFile, Shape, disc, prism, slab
from multiravens.sim.world import IDENTITY, World
from multiravens.tasks.symmetry import Symmetry

HEIGHT = 0.02  # [m] of every part of the library
PLATE_RADIUS = 0.036  # [m]: every part of the library stands on it whole
PLATE_HEIGHT = 0.004
_GREY: RGB = (0.5, 0.5, 0.5)
Add = Callable[[World, str, Pose, RGB, float], int]
"""Puts a part into a world: (world, name, pose, colour, mass) to Bullet's identifier."""


@dataclass(frozen=True)
class Part:
    """A kind of part.

    Attributes:
        name: of its shape.
        radius: of the circle about its origin that it fits in [m].
        height: [m].
        symmetry: turns and flips after which it looks the same.
        grasp: (x, y) of a spot of its top that a suction cup seals on, in its own frame [m].
        add: puts one into a world: (world, name, pose, colour, mass) to Bullet's identifier.
    """

    name: str
    radius: float
    height: float
    symmetry: Symmetry
    grasp: tuple[float, float]
    add: Add


def _made(name: str, shape: Shape, radius: float, symmetry: Symmetry, grasp: tuple[float, float] = (0.0, 0.0)) -> Part:
    return Part(name, radius, HEIGHT, symmetry, grasp, partial(_add_shape, shape))


def _symmetry(period_degrees: float, flip_degrees: float | None) -> Symmetry:
    flip = None if flip_degrees is None else float(np.deg2rad(flip_degrees))
    return Symmetry(float(np.deg2rad(period_degrees)), flip)


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
        _made("disc", disc(0.022, HEIGHT, _GREY), 0.022, _symmetry(0, 0)),
        _made("square", slab((0.040, 0.040, HEIGHT), _GREY), 0.0285, _symmetry(90, 0)),
        _made("bar", slab((0.056, 0.020, HEIGHT), _GREY), 0.030, _symmetry(180, 0)),
        _made("triangle", _polygon(3, 0.030), 0.030, _symmetry(120, 0)),
        _made("hexagon", _polygon(6, 0.025), 0.025, _symmetry(60, 0)),
        _made("cross", _bars((0, 0, 0.054, 0.018, 0), (0, 0, 0.018, 0.054, 0)), 0.0285, _symmetry(90, 0)),
        _made(
            "angle",
            _bars((0, -0.015, 0.048, 0.018, 0), (-0.015, 0.009, 0.018, 0.030, 0)),
            0.034,
            _symmetry(360, 45),
            (-0.015, -0.015),
        ),
        _made(
            "tee",
            _bars((0, 0.015, 0.052, 0.018, 0), (0, -0.010, 0.018, 0.032, 0)),
            0.0355,
            _symmetry(360, 90),
            (0, 0.015),
        ),
        _made(
            "zed",
            _bars((-0.010, 0.009, 0.036, 0.018, 0), (0.010, -0.009, 0.036, 0.018, 0)),
            0.0335,
            _symmetry(180, None),
        ),
    )
}
"""Shapes that differ from one another by outline alone, each about 5 cm wide."""

_GRID = 0.001  # [m] between the points at which a part is measured
_UPRIGHT, _MOST_TURNS = np.deg2rad(2), 12
"""A URDF that tips no further stands as it is; others are put down so many times, the way that they came to lie."""
_KNOCK, _KNOCKS = np.deg2rad(5), 8
"""Angle of a knock, and how many there are, each in another direction."""
_MOST_TILT, _MOST_SHIFT, _MOST_SINK = np.deg2rad(8), 0.01, 0.002
"""A part that tips further, or moves or sinks further [m], when it is put on a plate does not stand there."""
_REACH = 40  # from a part's middle along each axis, a grasp is looked for at so many points
_KEYS = ("mesh", "urdf", "name", "scale", "symmetry", "flip", "grasp")


def part(description: str | Mapping[str, Any]) -> Part:
    """A part of the library by name, or one of one's own.

    Args:
        description: a name; or a mapping with `mesh` or `urdf`, a path; and, as far as the defaults do not fit,
            `name`, `scale` (metres a unit), `symmetry` (degrees after which it looks the same, 360 by default, 0 for
            round), `flip` (direction in degrees, from its x axis, of a level axis about which half a turn looks the
            same; without it, upside down looks different) and `grasp` ([x, y] of a flat spot of its top, in metres from
            its middle; by default the one nearest to its middle).

    Raises:
        UserError: an unknown name or key, a file that cannot be read, or a part that is too large for a plate, does not
            stand there, or that no cup holds.
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
    path = user_path(str(description.get("mesh", description.get("urdf"))))
    scale = float(description.get("scale", 1.0))
    if not 0 < scale < np.inf:
        raise UserError(f"scale={scale:g}: give metres a unit of the file, above 0")
    add, extents = _mesh_part(path, scale) if "mesh" in description else _urdf_part(path, scale)
    radius, height = float(np.linalg.norm(extents[:2]) / 2), float(extents[2])
    if not (0.008 <= radius <= 0.045 and height <= 0.08):
        raise UserError(
            f"{str(path)!r} is {extents[0]:.3f} x {extents[1]:.3f} x {height:.3f} m; parts are 1.6 to "
            "9 cm across and up to 8 cm high: set scale (metres a unit of the file)"
        )
    grasp = _check_stands(add, path, description.get("grasp"))
    flip = description.get("flip")
    symmetry = _symmetry(float(description.get("symmetry", 360)), None if flip is None else float(flip))
    return Part(str(description.get("name", path.stem)), radius, height, symmetry, grasp, add)


def _mesh_part(path: Path, scale: float) -> tuple[Add, np.ndarray]:
    mesh = MeshFile(path, scale, _GREY)
    return partial(_add_mesh, mesh), mesh.load().extents


def _urdf_part(path: Path, scale: float) -> tuple[Add, np.ndarray]:
    # Published models have their origin anywhere, and not all of them stand as they are in the file: a part's frame is
    # under the middle of the body as it comes to rest on a table.
    with _at_rest(partial(_add_urdf, path, scale, IDENTITY)) as (world, body, *_):
        mass = world.mass(body)
    if mass > suction.HEAVIEST:
        raise UserError(
            f"urdf: {str(path)!r} has mass {mass:g} kg, more than a suction cup holds: give its link a <mass> of at "
            f"most {suction.HEAVIEST:g}"
        )
    turned = _steadiest(path, scale)
    lying, top = _measure(partial(_add_urdf, path, scale, invert(turned)))
    if not len(top):
        raise UserError(f"urdf: {str(path)!r} has no surface that can be held: give its link a solid <collision>")
    lower, upper = top.min(0), top.max(0)
    middle = Pose(np.array([*(lower + upper)[:2] / 2, 0.0]), IDENTITY.quaternion)
    place = multiply(invert(Pose(lying.position, IDENTITY.quaternion)), middle)
    return partial(_add_urdf, path, scale, multiply(invert(turned), place)), np.array([*(upper - lower)[:2], upper[2]])


def _steadiest(path: Path, scale: float) -> Pose:
    """Pose of a URDF's own frame in which it stands, on a curved base too, of those that it comes to lie in.

    What rocks on a curved base stands for a while and rolls over when a tip lets go of it. From pose to pose that
    knocks leave it in, fewer knocks tip it over, until none does or there is no better one.
    """
    turned, best, fewest = IDENTITY, IDENTITY, _KNOCKS + 1
    for _ in range(_MOST_TURNS):
        add = partial(_add_urdf, path, scale, invert(turned))
        lying = _put_down(add)
        if tilt(lying.quaternion) < _UPRIGHT:
            toppled = _knock(add)
            if len(toppled) >= fewest:
                break
            best, fewest = turned, len(toppled)
            if not toppled:
                break
            lying = toppled[0]
        further = multiply(planar_pose((0.0, 0.0), yaw=-quaternion_yaw(lying.quaternion)), lying)
        turned = Pose(turned.position, multiply(further, turned).quaternion)
    return best if fewest <= _KNOCKS else turned


def _add_urdf(
    path: Path, scale: float, frame: Pose, world: World, name: str, pose: Pose, color: RGB, mass: float
) -> int:
    return world.add_urdf(name, path, pose, scale, frame)


@contextmanager
def _at_rest(add: Add, tipped: Pose = IDENTITY, plate: bool = False) -> Iterator[tuple[World, int, Array, Pose]]:
    """Put a part on a table or a plate, where it falls as it likes.

    Args:
        add: puts it anywhere above or in the table.
        tipped: turns it first.
        plate: put it on a plate.

    Yields:
        A world of its own, its identifier, the spot (3,) where it was put [m], and its pose at rest from there.
    """
    spot = np.array([0.5, 0.0, PLATE_HEIGHT if plate else 0.0])
    with closing(World()) as world:
        if plate:
            world.add("plate", disc(PLATE_RADIUS, PLATE_HEIGHT, _GREY), planar_pose(spot[:2]))
        body = add(world, "part", planar_pose(spot[:2]), _GREY, 0.1)
        world.move(body, Pose(spot, tipped.quaternion))
        world.move(body, Pose(spot + [0, 0, spot[2] - world.bounds(body)[0, 2]], tipped.quaternion))
        world.settle()
        pose = world.pose(body)
        yield world, body, spot, Pose(pose.position - spot, pose.quaternion)


def _put_down(add: Add, tipped: Pose = IDENTITY) -> Pose:
    """Pose at rest of a part that was put on a table, from the spot where it was put."""
    with _at_rest(add, tipped) as (*_, lying):
        return lying


def _measure(add: Add) -> tuple[Pose, np.ndarray]:
    """Pose at rest, and points (N, 3) that are seen from above, `_GRID` apart in x and y, from the same spot [m]."""
    with _at_rest(add) as (world, body, spot, lying):
        return lying, world.seen_above(body, _GRID) - spot


def _knock(add: Add) -> list[Pose]:
    """Poses in which a part comes to lie that small knocks have tipped over; none if it stands them all."""
    half = _KNOCK / 2
    axes = [np.array([np.cos(angle), np.sin(angle), 0.0]) for angle in 2 * np.pi * np.arange(_KNOCKS) / _KNOCKS]
    knocks = [Pose(np.zeros(3), np.array([*np.sin(half) * axis, np.cos(half)])) for axis in axes]
    lying = [_put_down(add, knock) for knock in knocks]
    return [pose for pose in lying if tilt(pose.quaternion) > _MOST_TILT]


def _check_stands(add: Add, path: Path, grasp: Sequence[float] | None) -> tuple[float, float]:
    """Refuse a part that no plate could hold or no cup pick.

    Args:
        add: puts it into a world.
        path: of its file.
        grasp: (x, y) of the spot to pick it at, in its own frame [m]; None for the one nearest to its middle.

    Returns:
        The spot.

    Raises:
        UserError: it does not stand, stands round a plate instead of on it, or no cup seals at its grasp.
    """
    with _at_rest(add, plate=True) as (world, body, spot, pose):
        top = world.seen_above(body, _GRID) - spot
        found = _grasp(world, body, spot, pose, top, grasp)
    moved, tipped = float(np.linalg.norm(pose.position[:2])), tilt(pose.quaternion)
    if grasp is not None and np.linalg.norm(_on_table(pose, [grasp]) - top[:, :2], axis=1).min() > _GRID:
        raise UserError(
            f"grasp: nothing of {str(path)!r} is at {list(grasp)}; give [x, y] of a flat spot of its top, in metres "
            "from its middle"
        )
    if tipped > _MOST_TILT or moved > _MOST_SHIFT:
        raise UserError(
            f"{str(path)!r} does not stand: put on a plate, it tips by {np.rad2deg(tipped):.0f} degrees and moves by "
            f"{1000 * moved:.0f} mm; turn it in its file so that a flat side is below"
        )
    if abs(pose.position[2]) > _MOST_SINK:
        raise UserError(
            f"{str(path)!r} does not stand on a plate {2000 * PLATE_RADIUS:.0f} mm across, but "
            f"{-1000 * pose.position[2]:.0f} mm lower, round it: set a smaller scale (metres a unit of the file)"
        )
    if found is None:
        where = "has no spot" if grasp is None else f"is not flat enough at its grasp {list(grasp)}"
        raise UserError(
            f"grasp: {str(path)!r} {where} for a suction cup {2000 * suction.RADIUS:.0f} mm across, whose rim follows "
            f"{1000 * suction.TOLERANCE:g} mm up and down; give [x, y] of a flat spot of its top, or a flatter part"
        )
    return found


def _on_table(pose: Pose, spots: ArrayLike) -> Array:
    """Places on the table (N, 2) of spots (N, 2) of a part's frame, from where it was put [m]."""
    flat = np.asarray(spots, dtype=float).reshape(-1, 2)
    return transform(pose, np.c_[flat, np.zeros(len(flat))])[:, :2]


def _grasp(
    world: World, body: int, spot: Array, pose: Pose, top: Array, grasp: Sequence[float] | None
) -> tuple[float, float] | None:
    """The given spot of a part, or the one nearest to its middle where a cup seals, with a millimetre to spare if any.

    Returns:
        None where no cup seals.
    """

    def seals(at: Array) -> bool:
        below = top[np.linalg.norm(top[:, :2] - at, axis=1) <= suction.RADIUS]
        return len(below) > 0 and suction.seal(world, spot + [*at, below[:, 2].max()], body) == 1.0

    if grasp is not None:
        return (float(grasp[0]), float(grasp[1])) if seals(_on_table(pose, grasp)[0]) else None
    steps = np.arange(-_REACH, _REACH + 1)
    spots = _GRID * np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    spots = spots[np.argsort(np.linalg.norm(spots, axis=1), kind="stable")]
    around = _GRID * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])  # to spare
    best = None
    for xy, at in zip(spots, _on_table(pose, spots), strict=True):
        if seals(at):
            best = xy if best is None else best
            if all(seals(at + shift) for shift in around):
                best = xy
                break
    return None if best is None else (float(best[0]), float(best[1]))
