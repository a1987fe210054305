"""Poses, yaw angles and the mapping between heightmap pixels and metres.

Positions are in metres in the world frame: x away from the robot, y to its left, z up, the table's plane at z = 0.
Quaternions are xyzw everywhere in this project. Angles are radians.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

BOUNDS: Array = np.array([[0.25, 0.75], [-0.5, 0.5], [0.0, 0.28]])
"""(3, 2) lower and upper workspace limits along x, y and z [m], those of the Ravens family; read-only."""
BOUNDS.setflags(write=False)
PIXEL = 0.003125
"""Side of one heightmap pixel [m]."""
HEIGHT_QUANTUM = 1e-5
"""Step in which heights are stored [m]; a tenth of the 1e-4 m to which the camera recovers heights."""
HEIGHT_LIMIT = 65535 * HEIGHT_QUANTUM
"""Greatest height of a heightmap [m]; 0.65535, more than twice the workspace's ceiling."""
SHAPE = (320, 160)
"""Rows (along +y) and columns (along +x) of a full-resolution heightmap."""


class Pose(NamedTuple):
    """A rigid transform: position (3,) [m] and unit quaternion (4,) xyzw."""

    position: Array
    quaternion: Array


def planar_pose(xy: ArrayLike, z: float = 0.0, yaw: float = 0.0) -> Pose:
    """Pose of an upright body at xy (2,) [m], height z [m], turned by yaw [rad] about the vertical."""
    x, y = np.asarray(xy, dtype=float)
    return Pose(np.array([x, y, z]), yaw_quaternion(yaw))


def yaw_quaternion(yaw: float) -> Array:
    """Quaternion (4,) xyzw of a turn by yaw [rad] about +z."""
    return np.array([0.0, 0.0, np.sin(yaw / 2), np.cos(yaw / 2)])


def quaternion_yaw(quaternion: ArrayLike) -> float:
    """Yaw [rad] in [-pi, pi) of a quaternion (4,) xyzw, which need not be upright."""
    x, y, z, w = np.asarray(quaternion, dtype=float)
    return wrap_angle(float(np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))))


def rotation_matrix(quaternion: ArrayLike) -> Array:
    """(3, 3) rotation matrix of a unit quaternion (4,) xyzw."""
    x, y, z, w = np.asarray(quaternion, dtype=float)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def tilt(quaternion: ArrayLike) -> float:
    """Angle [rad] between a body's own z axis and the vertical."""
    return float(np.arccos(np.clip(rotation_matrix(quaternion)[2, 2], -1.0, 1.0)))


def multiply(a: Pose, b: Pose) -> Pose:
    """Composition a * b: first b, then a."""
    ax, ay, az, aw = a.quaternion
    bx, by, bz, bw = b.quaternion
    quaternion = np.array(
        [
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
            aw * bw - ax * bx - ay * by - az * bz,
        ]
    )
    return Pose(np.asarray(a.position) + rotation_matrix(a.quaternion) @ np.asarray(b.position), quaternion)


def invert(pose: Pose) -> Pose:
    """The pose whose composition with this one is the identity."""
    x, y, z, w = pose.quaternion
    quaternion = np.array([-x, -y, -z, w])
    return Pose(-(rotation_matrix(quaternion) @ np.asarray(pose.position)), quaternion)


def transform(pose: Pose, points: ArrayLike) -> Array:
    """Points (N, 3) [m] of the pose's own frame in the frame the pose is given in, (N, 3)."""
    return np.asarray(points, dtype=float) @ rotation_matrix(pose.quaternion).T + np.asarray(pose.position)


def rotate(yaw: float, vectors: ArrayLike) -> Array:
    """Vectors (..., 2) turned by yaw [rad] in the plane of the table."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.asarray(vectors, dtype=float) @ np.array([[cos, sin], [-sin, cos]])


def wrap_angle(angle: float, period: float = 2 * np.pi) -> float:
    """The equivalent of angle [rad] in [-period / 2, period / 2)."""
    return float((angle + period / 2) % period - period / 2)


def pixel_to_xy(pixel: ArrayLike, factor: int = 1) -> Array:
    """World xy (..., 2) [m] of the centre of pixels (..., 2) given as (row, column).

    Args:
        pixel: rows and columns, which may be fractions.
        factor: how many full-resolution pixels a pixel spans along each side (2 for `resolution=half`).
    """
    rows_columns = np.asarray(pixel, dtype=float)
    fine = rows_columns * factor + (factor - 1) / 2
    return np.stack([BOUNDS[0, 0] + fine[..., 1] * PIXEL, BOUNDS[1, 0] + fine[..., 0] * PIXEL], axis=-1)


def xy_to_pixel(xy: ArrayLike, factor: int = 1) -> NDArray[np.int64]:
    """The (row, column) (..., 2) of the pixel centred nearest to world xy (..., 2) [m]; it may lie outside the map."""
    points = np.asarray(xy, dtype=float)
    fine = np.stack([points[..., 1] - BOUNDS[1, 0], points[..., 0] - BOUNDS[0, 0]], axis=-1) / PIXEL
    return np.floor((fine - (factor - 1) / 2) / factor + 0.5).astype(np.int64)
