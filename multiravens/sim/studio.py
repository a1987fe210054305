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
from multiravens.sim.arm import Arm
from multiravens.sim.motion import HOME, ArmMotion, Motion
from multiravens.sim.world import World

Image = NDArray[np.uint8]
Map = NDArray[np.float32]

SUPERSAMPLING = 1.5
"""Pictures are drawn this much larger and reduced, which smooths edges."""
EYE, TARGET, FIELD_OF_VIEW = (1.95, -0.2, 1.3), (0.30, 0.01, 0.265), 37.0
"""Seen from in front of the table, across from the robot: +y is right, +x is towards the viewer."""
_NEAR, _FAR = 0.5, 3.5  # clipping distances [m]
LIGHT = (0.45, -0.62, 1.3)
"""Towards the light: over the viewer's left shoulder, so that shadows fall behind things."""
AMBIENT = 0.52
"""Share of the light that also reaches shadows."""

_TABLE = ((-0.34, 0.86), (-0.78, 0.78))  # extent of the table along x and y [m]
_THICKNESS = 0.035  # of the table's top [m]
_WOOD, _EDGE, _MAT, _LINE = (222, 211, 196), (176, 160, 141), (92, 97, 105), (126, 132, 141)
_WALL = ((214, 220, 228), (243, 245, 248))  # backdrop, from bottom to top
_GROUND = -0.7  # of the room [m]

_SHADOW_SIZE = 576  # pixels of the light's view
_SHADOW_CENTRE, _SHADOW_SPAN = (0.30, 0.0, 0.2), 1.7  # what the light's view covers [m]
_SOFTNESS = 0.035  # radius of a penumbra for each metre between what casts and what receives it
_SHARPEST, _SOFTEST = 0.002, 0.016  # limits of that radius [m]
_BIAS = 0.006  # a surface this little below another in the light's view is not shadowed by it [m]
_TAPS = 20


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
        self._rays = self._light.coordinates(self._camera.rays, directions=True)
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
        color, distance = self._camera.draw(world.client)
        arm_color, arm_distance = self._camera.draw(self._client)
        # Copying where a mask is set is quickest in OpenCV.
        nearer = (arm_distance < distance).astype(np.uint8)
        cv2.copyTo(arm_color, nearer, color)
        np.minimum(distance, arm_distance, out=distance)
        behind = (distance >= np.minimum(self._table_distance, 0.999 * _FAR)).astype(np.uint8)
        cv2.copyTo(self._table, behind, color)
        np.minimum(distance, self._table_distance, out=distance)
        seen = self._rays * distance[..., None] + self._origin
        lit = self._light.reach([world.client, self._client], seen, behind)
        shaded = color * (AMBIENT + (1 - AMBIENT) * lit)[..., None]
        small = cv2.resize(shaded, self.size[::-1], interpolation=cv2.INTER_AREA)
        return np.clip(small + 0.5, 0, 255).astype(np.uint8)


class _Camera:
    """The viewer's camera: pictures of (height, width) pixels."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        height, width = size
        self._view = pybullet.computeViewMatrix(EYE, TARGET, (0, 0, 1))
        self._projection = pybullet.computeProjectionMatrixFOV(FIELD_OF_VIEW, width / height, _NEAR, _FAR)
        axes = np.array(self._view).reshape(4, 4)[:3, :3]  # columns: right, up, back
        scale = np.tan(np.radians(FIELD_OF_VIEW) / 2)
        # TinyRenderer samples a pixel at its lower left corner.
        across = (2 * np.arange(width) / width - 1) * scale * width / height
        upwards = (1 - 2 * (np.arange(height) + 1) / height) * scale
        self.rays = across[None, :, None] * axes[:, 0] + upwards[:, None, None] * axes[:, 1] - axes[:, 2]
        """(height, width, 3) direction of each pixel, of length 1 along the optical axis."""

    def draw(self, client: int) -> tuple[Image, Map]:
        """Colour (height, width, 3) and distance along the optical axis (height, width) [m] of what a client holds."""
        height, width = self.size
        _, _, rgba, depth, _ = pybullet.getCameraImage(
            width,
            height,
            self._view,
            self._projection,
            lightDirection=LIGHT,
            lightAmbientCoeff=0.62,
            lightDiffuseCoeff=0.46,
            lightSpecularCoeff=0.12,
            shadow=0,
            flags=pybullet.ER_NO_SEGMENTATION_MASK,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=client,
        )
        return cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), _FAR * _NEAR / (_FAR - (_FAR - _NEAR) * depth)


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
        # A sunflower's spiral covers a disc evenly.
        turns = np.arange(_TAPS) * np.pi * (3 - np.sqrt(5))
        radii = np.sqrt((np.arange(_TAPS) + 0.5) / _TAPS)
        self._taps = np.stack([radii * np.cos(turns), radii * np.sin(turns)], axis=1).astype(np.float32)
        self._softest = int(np.ceil(_SOFTEST * pixels))

    def coordinates(self, points: Array, directions: bool = False) -> Map:
        """Light coordinates (..., 3) of world points (..., 3), or of directions."""
        turned = points @ self._matrix[:, :3].T
        return (turned if directions else turned + self._matrix[:, 3]).astype(np.float32)

    def reach(self, clients: list[int], seen: Map, flat: Image) -> Map:
        """How much of the light reaches each pixel.

        Args:
            clients: whose bodies cast shadows.
            seen: (H, W, 3) light coordinates of what each pixel shows.
            flat: (H, W) 1 where that is the table, which casts no shadow on itself and needs no bias.

        Returns:
            (H, W) from 0 to 1.
        """
        top = np.max([self._heights(client) for client in clients], axis=0)
        column, row, height = cv2.split(seen)
        height += _BIAS * (1 - flat)
        kernel = np.ones((2 * self._softest + 1,) * 2, np.uint8)
        highest = cv2.remap(cv2.dilate(top, kernel), column, row, cv2.INTER_NEAREST, borderValue=-9)
        lowest = cv2.remap(cv2.erode(top, kernel), column, row, cv2.INTER_NEAREST, borderValue=-9)
        lit = (lowest <= height).astype(np.float32)
        edge = np.nonzero(((highest > height) & (lowest <= height)).ravel())[0]
        lit.ravel()[edge] = self._penumbra(
            top, column.ravel()[edge], row.ravel()[edge], height.ravel()[edge], highest.ravel()[edge]
        )
        return lit

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
        return lit / len(self._taps)

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
