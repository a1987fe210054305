"""Checks of pictures from outside the simulator, the same in recording, fusing and acting."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multiravens.geometry import BOUNDS, HEIGHT_LIMIT, PIXEL, SHAPE

HEIGHTMAP = (
    f"heightmaps are {SHAPE[0]} x {SHAPE[1]} pixels of {1000 * PIXEL} mm, rows along +y from y = {BOUNDS[1, 0]} m, "
    f"columns along +x from x = {BOUNDS[0, 0]} m; multiravens.heightmap.depth_to_points and fuse make them from depth "
    "pictures"
)
FARTHEST = 10.0
"""Most [m] that half of a depth picture's pixels may be away: the range of a stereo camera. A table is nearer, and in
millimetres it is beyond; single pixels may be, by noise."""
BELOW = 0.05
"""A table is this near [m] to z = 0 at the worst: cameras on robots are calibrated to a centimetre."""
_RIGID = 0.01  # by which a rotation matrix may miss being one: what three digits of a calibration round away
_IN_METRES = "for millimetres give depth * 0.001"
_FOR_UINT8 = "for colours in [0, 1] give (255 * color).round().astype('uint8')"


def as_array(name: str, value: Any) -> np.ndarray:
    """Converts what a user gave.

    Raises:
        ValueError: If it is not an array.
    """
    try:
        return np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is not an array of numbers: {' '.join(str(error).split())}") from error


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...], why: str) -> None:
    """Refuses another shape.

    Raises:
        ValueError: If it has one.
    """
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; it must be {shape}: {why}")


def check_range(name: str, array: np.ndarray, low: float, high: float, unit: str, remedy: str) -> None:
    """Refuses numbers that are not finite or outside the limits; float32 rounding of a limit is let through.

    Raises:
        ValueError: If there is one, or there are no numbers.
    """
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} is {array.dtype}; it must be numbers [{unit}]")
    slack = 1e-6
    wrong = ~((array >= low - slack) & (array <= high + slack) & np.isfinite(array))
    if wrong.any():
        at = tuple(int(index) for index in np.argwhere(wrong)[0])
        value = f"{name}{list(at)} is {array[at]:.6g} {unit}"
        limits = "finite" if math.isinf(high) else f"within [{low:.6g}, {high:.6g}] {unit}"
        raise ValueError(f"{value}; it must be {limits}{remedy}")


def check_color(name: str, value: ArrayLike, leading: str = "") -> NDArray[np.uint8]:
    """Checks one colour heightmap, or several.

    Args:
        name: Of the argument.
        value: (H, W, 3) uint8 from 0 to 255, or (..., H, W, 3).
        leading: The first dimension, as in `T + 1, `; empty for one heightmap.

    Raises:
        ValueError: If it has another shape or type.
    """
    color = as_array(name, value)
    _check_heightmap(name, color, (*SHAPE, 3), leading)
    return _bytes(name, color)


def check_height(name: str, value: ArrayLike, leading: str = "") -> NDArray[np.float32]:
    """Checks one map of heights, or several.

    Args:
        name: Of the argument.
        value: (H, W) floating point from 0 to `HEIGHT_LIMIT` [m], or (..., H, W).
        leading: As of `check_color`.

    Raises:
        ValueError: If it has another shape or type, or a height is not finite or outside the limits.
    """
    height = as_array(name, value)
    _check_heightmap(name, height, SHAPE, leading)
    if height.dtype.kind != "f":
        raise ValueError(f"{name} is {height.dtype}; it must be floating-point metres above the table")
    remedy = ": fill what the camera did not see with 0, and clip noise below the table with np.clip(height, 0, None)"
    if np.nanmax(height, initial=0.0) > HEIGHT_LIMIT + 1e-6:
        remedy = ": heights are above the table, in metres, not millimetres nor the distance from the camera"
    check_range(name, height, 0.0, HEIGHT_LIMIT, "m", remedy)
    return height.astype(np.float32)


def check_table(name: str, height: NDArray[np.float32]) -> None:
    """Refuses a map (H, W) of heights [m] most of which lies above the workspace: a table lies below what is on it.

    Raises:
        ValueError: If it is one, such as distances from a camera.
    """
    middle = float(np.median(height))
    if middle > BOUNDS[2, 1]:
        raise ValueError(
            f"half of {name} is {middle:.3g} m or more; a table with what lies on it is below {BOUNDS[2, 1]} m: "
            "heights are above the table, not distances from the camera"
        )


def check_depth(depth: ArrayLike) -> NDArray[np.floating]:
    """Checks a depth picture (H, W) [m]; pixels that are not finite stand for nothing seen.

    Raises:
        ValueError: If it has another shape or type, a distance is negative, or most are beyond `FARTHEST`.
    """
    array = as_array("depth", depth)
    if array.ndim != 2:
        raise ValueError(f"depth has shape {array.shape}; it must be (H, W): one distance for each pixel")
    if array.dtype.kind != "f":
        raise ValueError(f"depth is {array.dtype}; it must be floating-point metres: {_IN_METRES}")
    seen = array[np.isfinite(array)]
    if (seen < 0).any():
        raise ValueError(f"depth is {seen.min():.6g} m somewhere; distances along the optical axis are 0 or more")
    if len(seen) and np.median(seen) > FARTHEST:
        raise ValueError(
            f"half of depth is {np.median(seen):.6g} m or more; a table is nearer than {FARTHEST:g} m: {_IN_METRES}"
        )
    return array


def check_pose(pose: ArrayLike) -> NDArray[np.float64]:
    """Checks a rigid transform (4, 4): a rotation, a translation [m], and the last row 0, 0, 0, 1.

    Raises:
        ValueError: If it is none.
    """
    array = as_array("pose", pose)
    check_shape("pose", array, (4, 4), "camera to world, camera x right, y down, z forward")
    check_range("pose", array, -math.inf, math.inf, "m", "")
    matrix = array.astype(float)
    rotation = matrix[:3, :3]
    if abs(rotation @ rotation.T - np.eye(3)).max() > _RIGID or np.linalg.det(rotation) < 0:
        raise ValueError(
            f"pose[:3, :3] is {rotation.round(3).tolist()}; it must be a rotation: orthonormal, of determinant 1"
        )
    if abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
        raise ValueError(f"pose[3] is {matrix[3].tolist()}; it must be [0, 0, 0, 1]: the last column translates")
    return matrix


def check_points(points: ArrayLike, colors: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    """Checks world points (N, 3) [m] and their colours (N, 3) uint8, which must show some of the table.

    Raises:
        ValueError: If they have other shapes or types, are not finite, or none lies in the workspace.
    """
    at, of = as_array("points", points), as_array("colors", colors)
    if at.ndim != 2 or at.shape[1] != 3:
        raise ValueError(f"points has shape {at.shape}; it must be (N, 3): x, y and z [m] of each")
    check_shape("colors", of, at.shape, "one red, green and blue for each point")
    check_range("points", at, -math.inf, math.inf, "m", ": leave out what the camera did not see")
    of = _bytes("colors", of)
    low, high = BOUNDS.T - [[0, 0, BELOW], [0, 0, 0]]
    if not ((at >= low) & (at <= high)).all(1).any():
        middle = np.median(at, axis=0).round(3).tolist() if len(at) else "nowhere"
        raise ValueError(
            f"none of {len(at)} points lies in the workspace, x {low[0]} to {high[0]}, y {low[1]} to {high[1]}, z "
            f"{low[2]} to {high[2]} m; their middle is {middle}: check that depth is in metres and that pose is camera "
            "to world"
        )
    return at.astype(float), of


def _check_heightmap(name: str, array: np.ndarray, shape: tuple[int, ...], leading: str) -> None:
    if array.shape[bool(leading) :] != shape:
        expected = ", ".join(map(str, shape))
        raise ValueError(f"{name} has shape {array.shape}; it must be ({leading}{expected}): {HEIGHTMAP}")


def _bytes(name: str, color: np.ndarray) -> NDArray[np.uint8]:
    """Checks colours' type."""
    if color.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {color.dtype}; it must be uint8 up to 255")
    most = color.max(initial=0)
    if color.dtype != np.uint8:
        raise ValueError(f"{name} is {color.dtype} up to {most:.6g}; it must be uint8 up to 255: {_FOR_UINT8}")
    if most == 1:
        raise ValueError(f"{name} is at most 1 of 255, as colours in [0, 1] are once rounded: {_FOR_UINT8}")
    return color
