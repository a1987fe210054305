"""One distant lamp with soft shadows, worked out from depths rather than drawn by Bullet."""

import cv2
import numpy as np
import pybullet
from numpy.typing import NDArray

from multiravens.geometry import Array

Map = NDArray[np.float32]

TOWARDS = (0.45, -0.62, 1.3)
"""The direction to the lamp: over the viewer's left shoulder, so that shadows fall behind things."""
AMBIENT, DIFFUSE = 0.56, 0.52
"""Light that also reaches shadows, and light that comes from the lamp, on a surface that faces it."""

_SHADOW_SIZE = 576  # pixels of the light's view
_SHADOW_CENTRE, _SHADOW_SPAN = (0.30, 0.0, 0.2), 1.7  # what the light's view covers [m]
_SOFTNESS = 0.035  # radius of a penumbra for each metre between what casts and what receives it
_SHARPEST, _SOFTEST = 0.002, 0.016  # limits of that radius [m]
_BIAS = 0.006  # a surface this little below another in the light's view is not shadowed by it [m]
_TAPS = 20


class Lamp:
    """A distant lamp with soft shadows, found in its own view of the scene.

    Its coordinates are (column, row) in that view [pixels] and the height towards the lamp [m].
    """

    _FAR_OFF = 1.5  # distance of its view from the scene's centre [m]
    _RANGE = (0.5, 2.4)  # clipping distances [m]; TinyRenderer draws nothing where they are 2 or more apart

    def __init__(self) -> None:
        towards = np.array(TOWARDS) / np.linalg.norm(TOWARDS)
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

    def shade(self, top: Map, seen: list[Map], flat: NDArray[np.uint8]) -> Map:
        """Brightness of each pixel relative to what it would have without anything in the light's way.

        Args:
            top: the lamp's view, from `heights`.
            seen: three times (H, W), light coordinates of what each pixel shows.
            flat: (H, W) 1 where that is the table, which casts no shadow on itself and needs no bias.

        Returns:
            (H, W) from AMBIENT's share to 1.
        """
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

    def heights(self, client: int) -> Map:
        """The lamp's view of what a client holds: height towards it [m] of the first thing in each pixel."""
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
