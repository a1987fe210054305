"""The perspective view of a world for people: a table, the arm, soft light.

Bodies are drawn by the world's own client and the arm by a client of the studio's, so a picture changes nothing in the
simulation. The two are joined by depth. The table and shadows are painted from the depths, which is softer and quicker
than what Bullet's software renderer would draw.
"""

import cv2
import numpy as np
import pybullet
from numpy.typing import NDArray

from multiravens.geometry import BOUNDS, Array, quaternion_yaw, wrap_angle
from multiravens.sim.arm import BASE, Arm
from multiravens.sim.motion import HOME, ArmMotion, Motion
from multiravens.sim.world import World

Image = NDArray[np.uint8]
Map = NDArray[np.float32]
View = tuple[Image, Map]

SUPERSAMPLING = 1.5
"""Pictures are drawn this much larger and reduced, which smooths edges."""
EYE, TARGET, FIELD_OF_VIEW = (1.95, -0.2, 1.3), (0.33, 0.01, 0.25), 37.0
"""Seen from in front of the table, across from the robot: +y is right, +x is towards the viewer."""
_NEAR, _FAR = 0.5, 3.5  # clipping distances [m]
LIGHT = (0.45, -0.62, 1.3)
"""Towards the light: over the viewer's left shoulder, so that shadows fall behind things."""
AMBIENT, DIFFUSE = 0.56, 0.52
"""Light that also reaches shadows, and light that comes from the lamp, on a surface that faces it."""

_TABLE = ((-0.34, 0.86), (-0.78, 0.78))  # extent of the table along x and y [m]
_THICKNESS = 0.035  # of the table's top [m]
_WOOD, _EDGE, _MAT, _LINE = (222, 211, 196), (176, 160, 141), (106, 112, 121), (140, 146, 155)
_WALL = ((214, 220, 228), (243, 245, 248))  # backdrop, from bottom to top
_GROUND = -0.7  # of the room [m]

_SHADOW_SIZE = 576  # pixels of the light's view
_SHADOW_CENTRE, _SHADOW_SPAN = (0.30, 0.0, 0.2), 1.7  # what the light's view covers [m]
_SOFTNESS = 0.035  # radius of a penumbra for each metre between what casts and what receives it
_SHARPEST, _SOFTEST = 0.002, 0.016  # limits of that radius [m]
_BIAS = 0.006  # a surface this little below another in the light's view is not shadowed by it [m]
_TAPS = 20
_CORNERS = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])


class Studio:
    """Draws perspective views of worlds.

    Args:
        size: (height, width) of the pictures.
    """

    def __init__(self, size: tuple[int, int] = (560, 720)) -> None:
        self.size = size
        self._client = pybullet.connect(pybullet.DIRECT)
        self._arm = Arm(self._client)
        self._camera = _Camera((round(size[0] * SUPERSAMPLING), round(size[1] * SUPERSAMPLING)))
        self._light = _Light()
        self._table, self._table_distance = _paint_table(self._camera)
        self._room = self._table_distance > _FAR
        # Separate planes, which are quicker to work on than triples.
        self._rays = np.ascontiguousarray(
            np.moveaxis(self._light.coordinates(self._camera.rays, directions=True), -1, 0)
        )
        self._origin = self._light.coordinates(np.array(EYE))
        self.place(np.array(HOME), 0.0)

    def close(self) -> None:
        """Disconnect the studio's client; further calls do nothing."""
        if self._client >= 0:
            pybullet.disconnect(self._client)
            self._client = -1

    def follow(self, motion: Motion) -> None:
        """Bring the shown arm to where a motion's tip is."""
        tip = motion.tip()
        if isinstance(motion, ArmMotion):
            self.position, self.yaw = tip.position, quaternion_yaw(tip.quaternion)
            self._arm.set_joints(motion.arm.joints())
        else:
            self.place(tip.position, quaternion_yaw(tip.quaternion))

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
        view = self._camera.blank()
        self._camera.draw(world.client, _surroundings(world), view)
        self._camera.draw(self._client, self._arm_surroundings(), view)
        color, distance = view
        behind = (distance >= np.minimum(self._table_distance, 0.999 * _FAR)).astype(np.uint8)
        cv2.copyTo(self._table, behind, color)
        np.minimum(distance, self._table_distance, out=distance)
        seen = [ray * distance + origin for ray, origin in zip(self._rays, self._origin, strict=True)]
        shade = self._light.shade([world.client, self._client], seen, behind)
        shade[self._room] = 1.0
        shaded = cv2.multiply(color, cv2.merge([shade] * 3), dtype=cv2.CV_8U)
        return np.asarray(cv2.resize(shaded, self.size[::-1], interpolation=cv2.INTER_AREA))

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

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        height, width = size
        self._view = pybullet.computeViewMatrix(EYE, TARGET, (0, 0, 1))
        self._projection = pybullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, _NEAR, _FAR)
        self._axes = np.array(self._view).reshape(4, 4)[:3, :3]  # columns: right, up, back
        scale = np.tan(np.radians(FIELD_OF_VIEW) / 2)
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
            lightDirection=LIGHT,
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
        across, up, back = ((corners - EYE) @ self._axes).T
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


class _Light:
    """A distant lamp with soft shadows, found in its own view of the scene.

    Its coordinates are (column, row) in that view [pixels] and the height towards the lamp [m].
    """

    _FAR_OFF = 1.5  # distance of its view from the scene's centre [m]
    _RANGE = (0.5, 2.4)  # clipping distances [m]; TinyRenderer draws nothing where they are 2 or more apart

    def __init__(self) -> None:
        towards = np.array(LIGHT) / np.linalg.norm(LIGHT)
        eye = np.array(_SHADOW_CENTRE) + self._FAR_OFF * towards
        self._view = pybullet.computeViewMatrix(eye.tolist(), _SHADOW_CENTRE, (0, 1, 0))
        near, far = self._RANGE
        scale, depth = 2 / _SHADOW_SPAN, far - near
        self._projection = [scale, 0, 0, 0, 0, scale, 0, 0, 0, 0, -2 / depth, 0, 0, 0, -(far + near) / depth, 1]
        pixels = _SHADOW_SIZE / _SHADOW_SPAN
        self._matrix = np.array(self._view).reshape(4, 4).T[:3] * np.array([[pixels], [-pixels], [1.0]])
        self._matrix[:2, 3] += np.array([_SHADOW_SIZE / 2, _SHADOW_SIZE / 2 - 1])
        self._table_facing = np.float32(towards[2])
        # A sunflower's spiral covers a disc evenly.
        turns = np.arange(_TAPS) * np.pi * (3 - np.sqrt(5))
        radii = np.sqrt((np.arange(_TAPS) + 0.5) / _TAPS)
        self._taps = np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1).astype(np.float32)
        self._softest = int(np.ceil(_SOFTEST * pixels))

    def coordinates(self, points: Array, directions: bool = False) -> Map:
        """Light coordinates (..., 3) of world points (..., 3), or of directions."""
        turned = points @ self._matrix[:, :3].T
        return (turned if directions else turned + self._matrix[:, 3]).astype(np.float32)

    def shade(self, clients: list[int], seen: list[Map], flat: Image) -> Map:
        """Brightness of each pixel relative to what it would have without anything in the light's way.

        Args:
            clients: whose bodies cast shadows.
            seen: three times (H, W), light coordinates of what each pixel shows.
            flat: (H, W) 1 where that is the table, which casts no shadow on itself and needs no bias.

        Returns:
            (H, W) from AMBIENT's share to 1.
        """
        top: Map = np.max([self._heights(client) for client in clients], axis=0)
        column, row, height = seen
        reached: Map = height + np.float32(_BIAS) * (1 - flat)
        kernel = np.ones((2 * self._softest + 1,) * 2, np.uint8)
        highest: Map = np.asarray(
            cv2.remap(cv2.dilate(top, kernel), column, row, cv2.INTER_NEAREST, borderValue=-9), np.float32
        )
        dim = np.flatnonzero(highest > reached)
        lit = self._penumbra(top, *(part.ravel()[dim] for part in (column, row, reached, highest)))
        direct = DIFFUSE * np.where(flat.ravel()[dim] > 0, self._table_facing, _facing(seen, dim))
        shade = np.ones(flat.shape, np.float32)
        shade.ravel()[dim] = 1 - (1 - lit) * direct / (AMBIENT + direct)
        return shade

    def _penumbra(self, top: Map, column: Map, row: Map, height: Map, highest: Map) -> Map:
        """Share of the lamp that N points (N,) see; it grows softer with the distance to what is in the way."""
        pixels = _SHADOW_SIZE / _SHADOW_SPAN
        radius = np.clip((highest - height) * _SOFTNESS, _SHARPEST, _SOFTEST) * np.float32(pixels)
        lit = np.zeros(len(column), np.float32)
        last = _SHADOW_SIZE - 1
        for across, down in self._taps:
            columns = np.clip(column + across * radius + 0.5, 0, last).astype(np.int32)
            rows = np.clip(row + down * radius + 0.5, 0, last).astype(np.int32)
            lit += top[rows, columns] <= height
        return np.asarray(lit / len(self._taps), np.float32)

    def _heights(self, client: int) -> Map:
        """The lamp's view: height towards it [m] of the first thing in each pixel."""
        depth = pybullet.getCameraImage(
            _SHADOW_SIZE,
            _SHADOW_SIZE,
            self._view,
            self._projection,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )[3]
        a, b = self._projection[10], self._projection[14]
        # TinyRenderer codes depth as a perspective projection would, whatever the projection is.
        far, near = b / (a + 1), b / (a - 1)
        distance = (far * near / (near - far)) / (depth - far / (far - near))
        return np.where(depth < 1, -distance, -9).astype(np.float32)


def _facing(seen: list[Map], pixels: NDArray[np.int64]) -> Map:
    """Cosine (N,) between the light and the surface in pixels.

    Args:
        seen: three times (H, W), light coordinates.
        pixels: (N,) flat indices into those.
    """
    width, last = seen[0].shape[1], seen[0].size - 1
    metres = (_SHADOW_SPAN / _SHADOW_SIZE,) * 2 + (1.0,)
    sides = []
    for step in (1, width):
        beside = np.minimum(pixels + step, last)
        sides.append(
            [(plane.ravel()[beside] - plane.ravel()[pixels]) * unit for plane, unit in zip(seen, metres, strict=True)]
        )
    (ax, ay, az), (bx, by, bz) = sides
    normal = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
    length = np.sqrt(normal[0] ** 2 + normal[1] ** 2 + normal[2] ** 2)
    return np.clip(normal[2] / np.maximum(length, 1e-12), 0, 1)


def _paint_table(camera: _Camera) -> tuple[Image, Map]:
    """The empty room: colour (H, W, 3) and distance along the optical axis (H, W) [m] of the table, or far."""
    rays, eye = camera.rays, np.array(EYE)
    color = _paint_room(rays)
    distance = np.full(rays.shape[:2], 4 * _FAR, np.float32)
    top = eye[2] / -np.minimum(rays[..., 2], -1e-3)
    spot = eye + rays * top[..., None]
    on_top = _inside(spot, _TABLE, 0.03) < 0
    # The front edge's face, which is nearer to the viewer than what it hides.
    face = (_TABLE[0][1] - eye[0]) / np.minimum(rays[..., 0], -1e-3)
    hit = eye + rays * face[..., None]
    on_face = (hit[..., 2] < 0) & (hit[..., 2] > -_THICKNESS) & (abs(hit[..., 1]) < _TABLE[1][1] - 0.02)
    color[on_face] = _EDGE
    distance[on_face] = face[on_face]
    color[on_top] = _WOOD
    mat = _inside(spot, tuple(BOUNDS[:2] + np.array([-0.02, 0.02])), 0.02)
    color[mat < 0] = _MAT
    line = abs(_inside(spot, tuple(BOUNDS[:2]), 0.0)) < 0.0012
    color[line] = _LINE
    distance[on_top] = top[on_top]
    return color, distance


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
