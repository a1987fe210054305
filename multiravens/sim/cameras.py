"""Cameras of the agent. Both give the same heightmap, (320, 160, 3) uint8 and (320, 160) float32 [m].

The table, the robot and the gripper are not drawn: an empty pixel has the table's colour and height 0.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import pybullet
from numpy.typing import NDArray

from multiravens.geometry import BOUNDS, SHAPE, Array, rotation_matrix
from multiravens.heightmap import Color, Height, depth_to_points, rasterise
from multiravens.sim.domain import Domain
from multiravens.sim.world import World

TABLE_COLOR = (86, 90, 97)
"""Slate grey: no part, belt or box has it."""


class Camera(ABC):
    """Turns a world into a heightmap.

    Args:
        domain: changes what is seen; None for as it is.
    """

    def __init__(self, domain: Domain | None = None) -> None:
        self.domain = domain

    def begin(self, rng: np.random.Generator) -> None:
        """Draw what the domain keeps through an episode."""
        if self.domain is not None:
            self.domain.begin(rng)

    def observe(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Colour (320, 160, 3) and height (320, 160) [m]; rng feeds the noise of cameras that have any."""
        color, height = self.look(world, rng)
        if self.domain is None:
            return color, height
        empty = (height <= 0) & (color == np.array(TABLE_COLOR, np.uint8)).all(-1)
        return self.domain.apply(color, height, empty, rng)

    @abstractmethod
    def look(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Observe a world as colour and height, before the domain changes them."""


def _render(
    world: World, size: tuple[int, int], view: Sequence[float], projection: Sequence[float]
) -> tuple[Color, Array, NDArray[np.bool_]]:
    """Draw a world without shadow, which is fast and leaves every face its own plain colour.

    Returns:
        Of the N pixels that show registered bodies: colours (N, 3) and distances along the optical axis (N,) [m], in
        the order of the mask (H, W) bool that says which pixels they are.
    """
    height, width = size
    _, _, rgba, depth, segmentation = pybullet.getCameraImage(
        width,
        height,
        view,
        projection,
        lightDirection=[0.35, 0.25, 1.0],
        lightAmbientCoeff=0.55,
        lightDiffuseCoeff=0.5,
        lightSpecularCoeff=0.0,
        shadow=0,
        renderer=pybullet.ER_TINY_RENDERER,
        physicsClientId=world.client,
    )
    registered = np.zeros(max(world.bodies, default=0) + 2, bool)
    registered[list(world.bodies)] = True
    # Background is -1, the last entry, and whatever was loaded after the registered bodies lands there too.
    seen = registered[np.minimum(segmentation, len(registered) - 1)]
    # TinyRenderer codes depth as a perspective projection would, whatever the projection is.
    a, b = projection[10], projection[14]
    far, near = b / (a + 1), b / (a - 1)
    distance = (far * near / (near - far)) / (depth[seen].astype(float) - far / (far - near))
    return rgba[..., :3][seen], distance, seen


class Orthographic(Camera):
    """Renders the heightmap directly, straight from above, without noise.

    Args:
        domain: changes what is seen; None for as it is.
    """

    _EYE, _NEAR, _FAR = 1.0, 0.6, 1.1  # heights [m] above the table and clipping distances [m] below the camera

    def __init__(self, domain: Domain | None = None) -> None:
        super().__init__(domain)
        (left, right), (bottom, top) = BOUNDS[:2] - BOUNDS[:2].mean(1, keepdims=True)
        depth = self._FAR - self._NEAR
        # Column by column. TinyRenderer samples a pixel at its lower left corner, which makes that corner the pixel's
        # centre in our convention: no shift is wanted.
        self._projection = [2 / (right - left), 0, 0, 0, 0, 2 / (top - bottom), 0, 0]
        self._projection += [0, 0, -2 / depth, 0, 0, 0, -(self._FAR + self._NEAR) / depth, 1]
        x, y = BOUNDS[:2].mean(1)
        self._view = pybullet.computeViewMatrix([x, y, self._EYE], [x, y, 0.0], [0.0, 1.0, 0.0])

    def look(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Colour (320, 160, 3) and height (320, 160) [m]; rng is not used."""
        colors, distance, seen = _render(world, SHAPE, self._view, self._projection)
        color = np.full((*SHAPE, 3), TABLE_COLOR, np.uint8)
        height = np.zeros(SHAPE, np.float32)
        color[seen] = colors
        height[seen] = np.maximum(self._EYE - distance, 0.0)
        # The picture's rows run along -y.
        return np.ascontiguousarray(color[::-1]), np.ascontiguousarray(height[::-1])


class RealSense(Camera):
    """Three 480 x 640 RealSense D415 views, fused; poses and intrinsics are those of the Ravens family.

    Args:
        color_noise: standard deviation of the noise on colour, as a share of full scale (Ravens meant 3/255).
        depth_noise: standard deviation of the noise on depth [m] (Ravens meant 3 mm).
        domain: changes what is seen; None for as it is.
    """

    _SIZE, _FOCAL, _CENTRE = (480, 640), 450.0, (320.0, 240.0)
    _NEAR, _FAR = 0.05, 4.0
    _VIEWS = (
        ((1.0, 0.0, 0.75), (np.pi / 4, np.pi, -np.pi / 2)),
        ((0.0, 0.5, 0.75), (np.pi / 4.5, np.pi, np.pi / 4)),
        ((0.0, -0.5, 0.75), (np.pi / 4.5, np.pi, 3 * np.pi / 4)),
    )

    def __init__(self, color_noise: float = 3 / 255, depth_noise: float = 0.003, domain: Domain | None = None) -> None:
        super().__init__(domain)
        if not (0 <= color_noise <= 1 and 0 <= depth_noise <= 0.1):
            raise ValueError(
                f"color_noise={color_noise} and depth_noise={depth_noise}: "
                "give a share from 0 to 1 and metres from 0 to 0.1"
            )
        self.color_noise, self.depth_noise = color_noise, depth_noise
        height, width = self._SIZE
        near, far = self._NEAR, self._FAR
        self._projection = [2 * self._FOCAL / width, 0, 0, 0, 0, 2 * self._FOCAL / height, 0, 0]
        self._projection += [0, 0, -(far + near) / (far - near), -1, 0, 0, -2 * far * near / (far - near), 0]
        self._poses = [self._pose(np.array(position), euler) for position, euler in self._VIEWS]

    @staticmethod
    def _pose(position: Array, euler: tuple[float, float, float]) -> Array:
        """(4, 4) camera-to-world, camera x right, y down, z forward."""
        pose = np.eye(4)
        pose[:3, :3] = rotation_matrix(pybullet.getQuaternionFromEuler(euler))
        pose[:3, 3] = position
        return pose

    def look(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Colour (320, 160, 3) and height (320, 160) [m] fused from the three views, with noise drawn from rng."""
        points, colors = zip(*(self._cloud(world, pose, rng) for pose in self._poses), strict=True)
        return rasterise(np.concatenate(points), np.concatenate(colors), TABLE_COLOR)

    def _cloud(self, world: World, pose: Array, rng: np.random.Generator) -> tuple[Array, Color]:
        """World points (N, 3) and colours (N, 3) that one view sees of the registered bodies."""
        position, forward, up = pose[:3, 3], pose[:3, 2], -pose[:3, 1]
        view = pybullet.computeViewMatrix(position.tolist(), (position + forward).tolist(), up.tolist())
        colors, distance, seen = _render(world, self._SIZE, view, self._projection)
        depth = np.full(self._SIZE, np.nan)
        depth[seen] = distance + rng.normal(0.0, 1.0, len(distance)) * self.depth_noise
        noisy = colors + rng.normal(0.0, 1.0, colors.shape) * (255 * self.color_noise)
        points = depth_to_points(depth, self._FOCAL, self._CENTRE, pose)
        return points, np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
