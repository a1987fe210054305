"""Cameras: what the agent sees. Both give the same heightmap, (320, 160, 3) uint8 and (320, 160) float32 [m].

The table, the robot and the gripper are not drawn: an empty pixel has the table's colour and height 0.
"""

from abc import ABC, abstractmethod

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from multiravens.geometry import BOUNDS, SHAPE, Array, rotation_matrix
from multiravens.heightmap import Color, Height, depth_to_points, fuse
from multiravens.sim.world import World

TABLE_COLOR = (86, 90, 97)
"""Slate grey: no part, belt or box has it."""


class Camera(ABC):
    """Turns a world into a heightmap."""

    @abstractmethod
    def observe(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Colour (320, 160, 3) and height (320, 160) [m]; rng feeds the noise of cameras that have any."""


def _raw(depth: np.ndarray, projection: ArrayLike) -> Array:
    """Undo TinyRenderer's depth coding, which is the perspective one whatever the projection is.

    Returns:
        (H, W) distance along the optical axis [m].
    """
    a, b = np.asarray(projection, dtype=float)[[10, 14]]
    far, near = b / (a + 1), b / (a - 1)
    return (far * near / (near - far)) / (depth.astype(float) - far / (far - near))


class Orthographic(Camera):
    """Renders the heightmap directly, straight from above, without noise."""

    _EYE, _NEAR, _FAR = 1.0, 0.6, 1.1  # heights [m] above the table and clipping distances [m] below the camera

    def __init__(self) -> None:
        (left, right), (bottom, top) = BOUNDS[:2] - BOUNDS[:2].mean(1, keepdims=True)
        depth = self._FAR - self._NEAR
        # Column by column. TinyRenderer samples a pixel at its lower left corner, which makes that corner the pixel's
        # centre in our convention: no shift is wanted.
        self._projection = [2 / (right - left), 0, 0, 0, 0, 2 / (top - bottom), 0, 0]
        self._projection += [0, 0, -2 / depth, 0, 0, 0, -(self._FAR + self._NEAR) / depth, 1]
        x, y = BOUNDS[:2].mean(1)
        self._view = pybullet.computeViewMatrix([x, y, self._EYE], [x, y, 0.0], [0.0, 1.0, 0.0])

    def observe(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Colour (320, 160, 3) and height (320, 160) [m]; rng is not used."""
        rows, columns = SHAPE
        _, _, rgba, depth, segmentation = pybullet.getCameraImage(
            columns,
            rows,
            self._view,
            self._projection,
            lightDirection=[0.35, 0.25, 1.0],
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.0,
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=world.client,
        )
        # The picture's rows run along -y.
        seen = np.isin(segmentation, list(world.bodies))[::-1]
        height = np.where(seen, self._EYE - _raw(depth[::-1], self._projection), 0.0)
        color = np.where(seen[..., None], rgba[::-1, :, :3], np.array(TABLE_COLOR, np.uint8))
        return np.ascontiguousarray(color.astype(np.uint8)), np.maximum(height, 0.0).astype(np.float32)


class RealSense(Camera):
    """Three 480 x 640 RealSense D415 views, fused; poses and intrinsics are those of the Ravens family.

    Args:
        color_noise: standard deviation of the noise on colour, as a share of full scale (Ravens meant 3/255).
        depth_noise: standard deviation of the noise on depth [m] (Ravens meant 3 mm).
    """

    _SIZE, _FOCAL, _CENTRE = (480, 640), 450.0, (320.0, 240.0)
    _NEAR, _FAR = 0.05, 4.0
    _VIEWS = (
        ((1.0, 0.0, 0.75), (np.pi / 4, np.pi, -np.pi / 2)),
        ((0.0, 0.5, 0.75), (np.pi / 4.5, np.pi, np.pi / 4)),
        ((0.0, -0.5, 0.75), (np.pi / 4.5, np.pi, 3 * np.pi / 4)),
    )

    def __init__(self, color_noise: float = 3 / 255, depth_noise: float = 0.003) -> None:
        if not (0 <= color_noise <= 1 and 0 <= depth_noise <= 0.1):
            raise ValueError(
                f"color_noise={color_noise} and depth_noise={depth_noise}: give a share from 0 to 1 and metres from 0 to 0.1"
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

    def observe(self, world: World, rng: np.random.Generator) -> tuple[Color, Height]:
        """Colour (320, 160, 3) and height (320, 160) [m] fused from the three views, with noise drawn from rng."""
        points, colors = zip(*(self._cloud(world, pose, rng) for pose in self._poses), strict=True)
        return fuse(np.concatenate(points), np.concatenate(colors), TABLE_COLOR)

    def _cloud(self, world: World, pose: Array, rng: np.random.Generator) -> tuple[Array, Color]:
        """World points (N, 3) and colours (N, 3) that one view sees of the registered bodies."""
        height, width = self._SIZE
        position, forward, up = pose[:3, 3], pose[:3, 2], -pose[:3, 1]
        view = pybullet.computeViewMatrix(position.tolist(), (position + forward).tolist(), up.tolist())
        _, _, rgba, depth, segmentation = pybullet.getCameraImage(
            width,
            height,
            view,
            self._projection,
            lightDirection=[0.35, 0.25, 1.0],
            lightAmbientCoeff=0.55,
            lightDiffuseCoeff=0.5,
            lightSpecularCoeff=0.0,
            shadow=0,
            renderer=pybullet.ER_TINY_RENDERER,
            physicsClientId=world.client,
        )
        distance = np.where(np.isin(segmentation, list(world.bodies)), _raw(depth, self._projection), np.nan)
        seen = np.isfinite(distance)
        distance[seen] += rng.normal(0.0, 1.0, seen.sum()) * self.depth_noise
        colors = rgba[..., :3][seen] + rng.normal(0.0, 1.0, (seen.sum(), 3)) * (255 * self.color_noise)
        points = depth_to_points(distance, self._FOCAL, self._CENTRE, pose)
        return points, np.clip(np.rint(colors), 0, 255).astype(np.uint8)
