"""The perspective view of a world for people: a table, the arm, soft light.

Bodies are drawn by the world's own client and the arm by a client of the studio's, so a picture changes nothing in the
simulation. The two are joined by depth. The table and shadows are painted from the depths, which is softer and quicker
than what Bullet's software renderer would draw.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import pybullet
from numpy.typing import NDArray

from multiravens.errors import UserError
from multiravens.geometry import BOUNDS, Array, quaternion_yaw, wrap_angle
from multiravens.sim.arm import BASE, Arm
from multiravens.sim.connection import connect
from multiravens.sim.lamp import AMBIENT, DIFFUSE, TOWARDS, Lamp, Map
from multiravens.sim.motion import HOME, ArmMotion, Motion
from multiravens.sim.world import World

Image = NDArray[np.uint8]
View = tuple[Image, Map]

SUPERSAMPLING = 1.5
"""Pictures are drawn this much larger and reduced, which smooths edges."""
REST = (0.3, -0.42, 0.1)
"""The shown tip before and after a run of a floating gripper [m]."""
_NEAR, _FAR = 0.5, 3.5  # clipping distances [m]
_LOWEST = 0.1  # of the eye above the table [m]

_TABLE = ((-0.34, 0.86), (-0.78, 0.78))  # extent of the table along x and y [m]
_THICKNESS = 0.035  # of the table's top [m]
_WOOD, _EDGE, _MAT, _LINE = (222, 211, 196), (176, 160, 141), (106, 112, 121), (140, 146, 155)
_WALL = ((214, 220, 228), (243, 245, 248))  # backdrop, from bottom to top

_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


Spot = tuple[float, float, float]


class Lens(NamedTuple):
    """Position, target and angle of a view.

    Attributes:
        eye: (3,) world position [m].
        target: (3,) what is in the middle [m].
        field: vertical angle of view [degrees].
    """

    eye: Spot
    target: Spot
    field: float


# From in front of the table, across from the robot: +y is right, +x is towards the viewer.
WHOLE = Lens((1.95, -0.2, 1.3), (0.33, 0.01, 0.25), 37.0)
"""The table with the whole arm."""
CLOSE = Lens((1.6, -0.07, 1.5), (0.475, 0.0, 0.02), 18.6)
"""The workspace alone, for a picture twice as wide as high."""


_DISTANCES, _FIELDS = (0.7, 3.0), (2.0, 120.0)
"""Least and greatest distance of the eye from the target [m] and vertical angle of view [degrees]."""


def adjusted(
    lens: Lens,
    eye: Sequence[float] | None = None,
    target: Sequence[float] | None = None,
    field: float | None = None,
) -> Lens:
    """A lens with other values for those that are given.

    Raises:
        UserError: they are not numbers of a view from above the table.
    """
    out = Lens(
        lens.eye if eye is None else _spot("lens.eye", eye, lens.eye),
        lens.target if target is None else _spot("lens.target", target, lens.target),
        lens.field if field is None else float(field),
    )
    distance = float(np.linalg.norm(np.subtract(out.eye, out.target)))
    if out.eye[2] < _LOWEST or not _DISTANCES[0] <= distance <= _DISTANCES[1]:
        raise UserError(
            f"lens.eye={list(out.eye)} is {distance:.2f} m from lens.target={list(out.target)}: give a place at least "
            f"{_LOWEST} m above the table and {_DISTANCES[0]} to {_DISTANCES[1]} m away"
        )
    if not _FIELDS[0] <= out.field <= _FIELDS[1]:
        raise UserError(f"lens.field={out.field}: give {_FIELDS[0]:g} to {_FIELDS[1]:g} degrees")
    return out


def _spot(name: str, given: Sequence[float], default: Spot) -> Spot:
    if len(given) != 3 or not all(isinstance(value, int | float) for value in given):
        raise UserError(f"{name}={list(given)}: give x, y and z in metres, such as {list(default)}")
    x, y, z = map(float, given)
    return x, y, z


class Studio:
    """Draws perspective views of worlds.

    Args:
        size: (height, width) of the pictures.
        lens: where from.
    """

    def __init__(self, size: tuple[int, int] = (560, 720), lens: Lens = WHOLE) -> None:
        self.size = size
        self._client, self._disconnect = connect(self)
        self._arm = Arm(self._client)
        self._camera = _Camera((round(size[0] * SUPERSAMPLING), round(size[1] * SUPERSAMPLING)), lens)
        self._lamp = Lamp()
        self._table, self._table_distance = _paint_table(self._camera)
        self._room = self._table_distance > _FAR
        # Separate planes, which are quicker to work on than triples.
        self._rays = np.ascontiguousarray(
            np.moveaxis(self._lamp.coordinates(self._camera.rays, directions=True), -1, 0)
        )
        self._origin = self._lamp.coordinates(np.array(lens.eye))
        self._stand: tuple[World, bytes] | None = None
        self.place(np.array(HOME), 0.0)

    def close(self) -> None:
        """Disconnect the studio's client, as happens by itself when nothing uses it; further calls do nothing."""
        self._disconnect()

    def follow(self, motion: Motion) -> None:
        """Bring the shown arm to where a motion's tip is."""
        tip = motion.tip()
        if isinstance(motion, ArmMotion):
            self.position, self.yaw = tip.position, quaternion_yaw(tip.quaternion)
            self._arm.set_joints(motion.arm.joints())
        else:
            self.place(tip.position, quaternion_yaw(tip.quaternion))

    def rest(self, motion: Motion) -> None:
        """Show the arm where it waits: a real one where it is, one that follows a floating gripper out of the way."""
        if isinstance(motion, ArmMotion):
            self.follow(motion)
        else:
            self.place(np.array(REST), 0.0)

    def place(self, position: Array, yaw: float) -> None:
        """Bring the shown arm's tip to a position (3,) [m] and yaw [rad]; out of reach, it stays where it was."""
        self.position, self.yaw = np.array(position, dtype=float), float(yaw)
        try:
            self._arm.show(self.position, self.yaw)
        except ValueError:
            # A tip that was pushed off the workspace is not worth losing a video for.
            return

    def travel(self, position: Array, yaw: float, length: float) -> list[tuple[Array, float]]:
        """Tip positions and yaws of a smooth way from the shown one to another, over whatever is between.

        Args:
            position: (3,) where to go [m].
            yaw: likewise [rad].
            length: of the way between two of them [m], on average.

        Returns:
            The places between, both ends left out.
        """
        start, goal = self.position, np.asarray(position, dtype=float)
        distance = float(np.linalg.norm(goal - start))
        turn = wrap_angle(yaw - self.yaw)
        count = int(np.ceil((distance + 0.12 * abs(turn)) / length)) + 2
        share = np.linspace(0, 1, count + 1)[1:-1]
        eased = share**2 * (3 - 2 * share)
        places = start + eased[:, None] * (goal - start)
        # A flat arc: it rises straight enough to clear what was just put down.
        places[:, 2] += min(0.25 * distance, 0.06) * np.sqrt(np.sin(np.pi * eased))
        return list(zip(places, self.yaw + eased * turn, strict=True))

    def picture(self, world: World) -> Image:
        """The world's bodies, the table and the arm as it was placed last: (height, width, 3) uint8."""
        self._see(world)
        color, distance = view = self._bodies[0].copy(), self._bodies[1].copy()
        self._camera.draw(self._client, self._arm_surroundings(), view)
        behind = (distance >= np.minimum(self._table_distance, 0.999 * _FAR)).astype(np.uint8)
        cv2.copyTo(self._table, behind, color)
        np.minimum(distance, self._table_distance, out=distance)
        seen = [ray * distance + origin for ray, origin in zip(self._rays, self._origin, strict=True)]
        top = np.maximum(self._cast, self._lamp.heights(self._client))
        shade = self._lamp.shade(top, seen, behind)
        shade[self._room] = 1.0
        shaded = cv2.multiply(color, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
        return np.asarray(cv2.resize(shaded, self.size[::-1], interpolation=cv2.INTER_AREA))

    def _see(self, world: World) -> None:
        """Draw a world's bodies and what they cast shadows with, unless they stand as they were drawn last."""
        stand = world, world.poses().tobytes()
        if stand != self._stand:
            self._stand = stand
            self._bodies = self._camera.blank()
            self._camera.draw(world.client, _surroundings(world), self._bodies)
            self._cast = self._lamp.heights(world.client)

    def _arm_surroundings(self) -> Array:
        """Corners (N, 3) [m] of boxes that hold the arm."""
        states = pybullet.getLinkStates(
            self._arm.body, range(7), computeForwardKinematics=1, physicsClientId=self._client
        )
        spots = np.array([(0.0, 0.0, 0.0), BASE, *(state[4] for state in states)])
        return (spots[:, None] + _CORNERS * 0.2).reshape(-1, 3)


def _surroundings(world: World) -> Array:
    """Corners (N, 3) [m] of boxes that hold a world's bodies."""
    if not world.bodies:
        return np.zeros((0, 3))
    corners = [world.positions(list(world.bodies))[:, None] + _CORNERS * 0.1]
    corners += [
        bounds.mean(0) + _CORNERS[None] * np.ptp(bounds, axis=0) / 2 for bounds in map(world.bounds, world.bodies)
    ]
    return np.concatenate(corners).reshape(-1, 3)


class _Camera:
    """The viewer's camera: pictures of (height, width) pixels."""

    def __init__(self, size: tuple[int, int], lens: Lens) -> None:
        self.size, self.eye = size, np.array(lens.eye)
        height, width = size
        steep = np.linalg.norm(np.subtract(lens.eye, lens.target)[:2]) < 0.01
        # Seen from straight above, +x is towards the viewer, as from the front.
        self._view = pybullet.computeViewMatrix(lens.eye, lens.target, (-1, 0, 0) if steep else (0, 0, 1))
        self._projection = pybullet.computeProjectionMatrixFOV(lens.field, width / height, _NEAR, _FAR)
        self._axes = np.array(self._view).reshape(4, 4)[:3, :3]  # columns: right, up, back
        scale = np.tan(np.radians(lens.field) / 2)
        self._extent = np.array([scale * width / height, scale])
        # TinyRenderer samples a pixel at its lower left corner.
        across = (2 * np.arange(width) / width - 1) * self._extent[0]
        upwards = (1 - 2 * (np.arange(height) + 1) / height) * self._extent[1]
        right, up, back = self._axes.T
        self.rays = across[None, :, None] * right + upwards[:, None, None] * up - back
        """(height, width, 3) direction of each pixel, of length 1 along the optical axis."""

    def blank(self) -> View:
        """A view of nothing."""
        return np.zeros((*self.size, 3), np.uint8), np.full(self.size, _FAR, np.float32)

    def draw(self, client: int, corners: Array, view: View) -> None:
        """Draw what a client holds into a view, where it is nearer than what is there.

        Args:
            client: Bullet's client.
            corners: (N, 3) points [m] with everything to be drawn in their convex hull; the less of the picture they
                span, the quicker.
            view: colour (height, width, 3) and distance along the optical axis (height, width) [m].
        """
        (top, bottom), (left, right) = self._window(corners)
        if top >= bottom or left >= right:
            return
        _, _, rgba, depth, _ = pybullet.getCameraImage(
            right - left,
            bottom - top,
            self._view,
            self._cropped(top, bottom, left, right),
            lightDirection=TOWARDS,
            lightAmbientCoeff=AMBIENT,
            lightDiffuseCoeff=DIFFUSE,
            lightSpecularCoeff=0.1,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        color, distance = (part[top:bottom, left:right] for part in view)
        drawn = _FAR * _NEAR / (_FAR - (_FAR - _NEAR) * depth)
        # Copying where a mask is set is quickest in OpenCV.
        cv2.copyTo(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), (drawn < distance).astype(np.uint8), color)
        np.minimum(distance, drawn, out=distance)

    def _window(self, corners: Array) -> NDArray[np.int64]:
        """First and last row, first and last column (2, 2) of the part of the picture that holds points (N, 3)."""
        across, up, back = ((corners - self.eye) @ self._axes).T
        ndc = np.stack([-up, across], axis=1) / np.maximum(-back, _NEAR)[:, None] / self._extent[::-1]
        size = np.array(self.size)
        low, high = ndc.min(0, initial=1.0), ndc.max(0, initial=-1.0)
        first = np.floor((low + 1) / 2 * size).astype(int) - 1
        last = np.ceil((high + 1) / 2 * size).astype(int) + 1
        return np.stack([np.clip(first, 0, size), np.clip(last, 0, size)], axis=1)

    def _cropped(self, top: int, bottom: int, left: int, right: int) -> list[float]:
        """The projection matrix, column by column, of a window of the picture."""
        height, width = self.size
        projection = list(self._projection)
        zoom = width / (right - left), height / (bottom - top)
        projection[0] *= zoom[0]
        projection[5] *= zoom[1]
        projection[8] = ((left + right) / width - 1) * zoom[0]
        projection[9] = (1 - (top + bottom) / height) * zoom[1]
        return projection


def _paint_table(camera: _Camera) -> tuple[Image, Map]:
    """The empty room: colour (H, W, 3) and distance along the optical axis (H, W) [m] of the table, or far."""
    rays, eye = camera.rays, camera.eye
    color = _paint_room(rays)
    distance = np.full(rays.shape[:2], 4 * _FAR, np.float32)
    top = eye[2] / -np.minimum(rays[..., 2], -1e-3)
    spot = eye + rays * top[..., None]
    on_top = _inside(spot, _TABLE, 0.03) < 0
    for axis, side in ((0, 0), (0, 1), (1, 0), (1, 1)):
        _paint_edge(camera, axis, side, color, distance)
    color[on_top] = _WOOD
    mat = _inside(spot, tuple(BOUNDS[:2] + np.array([-0.02, 0.02])), 0.02)
    color[mat < 0] = _MAT
    line = abs(_inside(spot, tuple(BOUNDS[:2]), 0.0)) < 0.0012
    color[line] = _LINE
    distance[on_top] = top[on_top]
    return color, distance


def _paint_edge(camera: _Camera, axis: int, side: int, color: Image, distance: Map) -> None:
    """Paint the face of one of the table's edges, if the viewer is outside of it: it hides what is behind.

    Args:
        camera: the viewer's.
        axis: 0 for an edge along y, 1 for one along x.
        side: 0 for the lower one, 1 for the upper one.
        color: (H, W, 3), painted on.
        distance: (H, W) along the optical axis [m], likewise.
    """
    rays, eye, edge = camera.rays, camera.eye, _TABLE[axis][side]
    outwards = 1 if side else -1
    if (eye[axis] - edge) * outwards <= 0:
        return
    face = (edge - eye[axis]) / (np.minimum(rays[..., axis] * outwards, -1e-3) * outwards)
    hit = eye + rays * face[..., None]
    lower, upper = _TABLE[1 - axis]
    along = (hit[..., 1 - axis] > lower + 0.02) & (hit[..., 1 - axis] < upper - 0.02)
    seen = along & (hit[..., 2] < 0) & (hit[..., 2] > -_THICKNESS) & (face < distance)
    color[seen] = _EDGE
    distance[seen] = face[seen]


def _inside(spot: Array, extent: tuple, corner: float) -> Array:
    """Signed distance (H, W) [m] from points (H, W, 3) to a rectangle's outline with round corners, inside negative."""
    lower, upper = np.array(extent).T
    beyond = np.maximum(lower - spot[..., :2], spot[..., :2] - upper) + corner
    return np.linalg.norm(np.maximum(beyond, 0), axis=-1) + np.minimum(beyond.max(-1), 0) - corner


def _paint_room(rays: Array) -> Image:
    """A bright backdrop that is darker towards the floor."""
    height = np.linspace(1, 0, rays.shape[0])[:, None, None]
    lower, upper = np.array(_WALL, dtype=float)
    return np.broadcast_to(lower + height * (upper - lower), rays.shape).astype(np.uint8)
