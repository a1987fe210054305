"""Heights as a camera sees them, for planning how high a tip travels and where it slows down."""

import cv2
import numpy as np

from multiravens.geometry import BOUNDS, PIXEL, SHAPE, Array, xy_to_pixel
from multiravens.heightmap import Height

MARGIN = 0.003
"""Added to every radius [m]: a pixel shows the height at its middle alone."""
_LOW = 0.005  # lower than this is what things lie on, such as plates [m]
_NEIGHBOURS = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], np.uint8)


class Seen:
    """A heightmap of a table, as an agent sees it.

    Where a camera is noisy the highest of many pixels is taken, which errs upwards; a pixel that stands out alone
    counts as high as the highest one beside it.

    Args:
        height: (320, 160) above the table [m].
    """

    def __init__(self, height: Height) -> None:
        self._height = np.minimum(height, cv2.dilate(height, _NEIGHBOURS))
        rows, columns = np.indices(SHAPE)
        self._points = np.stack([columns, rows], axis=-1) * PIXEL + BOUNDS[:2, 0]

    def along(self, start: Array, goal: Array, radius: float) -> float:
        """Height [m] of the highest thing seen on the way of a disc.

        Args:
            start: (2,) where its middle begins [m].
            goal: (2,) where it ends, the same for a disc that does not move [m].
            radius: of the disc [m].

        Returns:
            0 where nothing but the table is seen.
        """
        way, reach = goal - start, radius + MARGIN
        # Of the map, only a window about the way is looked at.
        corners = np.array([np.minimum(start, goal) - reach, np.maximum(start, goal) + reach])
        (top, left), (bottom, right) = np.clip(xy_to_pixel(corners) + [[0, 0], [1, 1]], 0, SHAPE)
        offsets = self._points[top:bottom, left:right] - start
        share = np.clip(offsets @ way / max(float(way @ way), 1e-12), 0, 1)
        near = np.square(offsets - share[..., None] * way).sum(-1) <= reach**2
        return float(self._height[top:bottom, left:right][near].max(initial=0.0))

    def extent(self, xy: Array, top: float) -> float:
        """Radius [m] about a point (2,) of what is seen to hang together with what is there.

        Args:
            xy: of the point [m].
            top: height at which something was touched there [m].
        """
        away = np.linalg.norm(self._points - xy, axis=-1)
        _, labels = cv2.connectedComponents((self._height > min(_LOW, top / 2)).astype(np.uint8))
        there = np.unique(labels[(away <= PIXEL) & (labels > 0)])
        return float(away[np.isin(labels, there)].max(initial=PIXEL))
