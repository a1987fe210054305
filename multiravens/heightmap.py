"""Heightmaps: fusing depth views into one, and the reduction to half resolution.

A heightmap is seen from straight above: rows along +y, columns along +x, pixel (row, column) centred at
x = 0.25 + column * PIXEL, y = -0.5 + row * PIXEL (see `geometry`).
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from multiravens.geometry import BOUNDS, SHAPE, Array, xy_to_pixel
from multiravens.picture_checks import check_depth, check_points, check_pose

Color = NDArray[np.uint8]
Height = NDArray[np.float32]


def reduce_half(color: Color, height: Height) -> tuple[Color, Height]:
    """Reduce a heightmap by two along each side: the mean of every 2 x 2 pixels.

    A mean keeps how far an edge reaches into a pixel, from which turns of small parts are told; the highest of the four
    would make every edge jagged.

    Args:
        color: (..., H, W, 3) uint8, H and W even.
        height: (..., H, W) float32 height above the table [m].

    Returns:
        Colour (..., H/2, W/2, 3), halves rounded up, and height (..., H/2, W/2).
    """
    *batch, rows, columns = height.shape
    blocks = height.reshape(*batch, rows // 2, 2, columns // 2, 2)
    colors = color.reshape(*batch, rows // 2, 2, columns // 2, 2, 3)
    summed = colors.sum((-4, -2), dtype=np.uint16)
    return ((summed + 2) // 4).astype(np.uint8), blocks.mean((-3, -1), dtype=np.float32)


def at_resolution(color: Color, height: Height, resolution: str) -> tuple[Color, Height]:
    """A heightmap at full resolution as it is, or reduced for `half`."""
    return reduce_half(color, height) if resolution == "half" else (color, height)


def depth_to_points(depth: NDArray[np.floating], focal: float, centre: tuple[float, float], pose: Array) -> Array:
    """Back-project a depth image to world points.

    Args:
        depth: (H, W) distance along the optical axis [m]; pixels that are not finite are left out.
        focal: focal length [px].
        centre: principal point (column, row) [px].
        pose: (4, 4) camera-to-world transform, camera x right, y down, z forward.

    Returns:
        (N, 3) world points [m] of the finite pixels in reading order.

    Raises:
        ValueError: depth, focal, centre or pose is none; depth is in millimetres.
    """
    depth, pose = check_depth(depth), check_pose(pose)
    if not (0 < focal < np.inf and len(centre) == 2 and np.isfinite(centre).all()):
        raise ValueError(f"focal is {focal} and centre {centre}; they must be above 0, and (column, row), in pixels")
    rows, columns = np.nonzero(np.isfinite(depth))
    z = depth[rows, columns].astype(float)
    points = np.stack([(columns - centre[0]) * z / focal, (rows - centre[1]) * z / focal, z], axis=-1)
    return points @ pose[:3, :3].T + pose[:3, 3]


def fuse(points: Array, colors: Color, background: tuple[int, int, int]) -> tuple[Color, Height]:
    """Fuse coloured points into a heightmap that keeps the highest point of every pixel.

    Args:
        points: (N, 3) world points [m]; those outside the workspace are dropped.
        colors: (N, 3) uint8.
        background: colour of pixels that no point falls on.

    Returns:
        Colour (320, 160, 3) and height (320, 160) [m]. Single empty pixels amid a surface are closed.

    Raises:
        ValueError: points or colours have another shape or type, or no point lies in the workspace.
    """
    return rasterise(*check_points(points, colors), background)


def rasterise(points: Array, colors: Color, background: tuple[int, int, int]) -> tuple[Color, Height]:
    """Fuse points as `fuse` does, whatever they are: a simulated table is not drawn, so there may be none."""
    color = np.empty((*SHAPE, 3), np.uint8)
    color[:] = background
    height = np.zeros(SHAPE, np.float32)
    pixels = xy_to_pixel(points[:, :2])
    inside = ((pixels >= 0) & (pixels < SHAPE)).all(1) & (points[:, 2] < BOUNDS[2, 1])
    pixels, points, colors = pixels[inside], points[inside], colors[inside]
    rising = np.argsort(points[:, 2], kind="stable")
    rows, columns = pixels[rising].T
    height[rows, columns] = np.maximum(points[rising, 2], 0.0)
    color[rows, columns] = colors[rising]
    return _close_holes(color, height)


def _close_holes(color: Color, height: Height) -> tuple[Color, Height]:
    """Oblique views sample a far surface more coarsely than the map, which leaves pinholes one pixel wide."""
    kernel = np.ones((3, 3), np.uint8)
    closed = cv2.morphologyEx((height > 0).astype(np.uint8), cv2.MORPH_CLOSE, kernel)
    holes = (closed > 0) & (height == 0)
    if holes.any():
        filled = cv2.medianBlur(np.where(holes, cv2.dilate(height, kernel), height).astype(np.float32), 3)
        height = np.where(holes, filled, height).astype(np.float32)
        spread = cv2.dilate(np.where((closed > 0)[..., None] & ~holes[..., None], color, 0).astype(np.uint8), kernel)
        color = np.where(holes[..., None], spread, color).astype(np.uint8)
    return color, height
