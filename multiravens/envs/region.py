"""Division of the table: every module gets a rectangle of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from multiravens.errors import UserError
from multiravens.geometry import BOUNDS, Array, Pose, planar_pose, rotate

MARGIN = 0.01
"""Kept free along the workspace's edge [m]."""
_CELL = 0.01  # grid of places that a rectangle may take [m]
_ROUNDING = 1e-6
_DRAWS = 1000
"""Divisions that are drawn before modules count as too many: of the quadruple, one in fifteen fits."""


class PlacementError(Exception):
    """Things did not fit where they were drawn; the layout is drawn again."""


@dataclass(frozen=True)
class Region:
    """A rectangle of the table with a frame of its own.

    Attributes:
        centre: (2,) world xy of the frame's origin [m].
        yaw: of the frame's x axis, along the rectangle's length; a multiple of 90 degrees [rad].
        size: (length, width) [m].
    """

    centre: Array
    yaw: float
    size: tuple[float, float]

    def xy(self, local: ArrayLike) -> Array:
        """World xy (..., 2) [m] of points in the region's frame."""
        return self.centre + rotate(self.yaw, local)

    def local(self, xy: ArrayLike) -> Array:
        """Points (..., 2) in the region's frame of world xy [m]."""
        return rotate(-self.yaw, np.asarray(xy, dtype=float) - self.centre)

    def pose(self, local: ArrayLike, z: float = 0.0, yaw: float = 0.0) -> Pose:
        """World pose of an upright body at a local point (2,), height z and local yaw [rad]."""
        return planar_pose(self.xy(local), z, self.yaw + yaw)

    def scatter(self, radii: Sequence[float], rng: np.random.Generator, gap: float = 0.008) -> Array:
        """Random places for discs that keep apart and inside.

        Args:
            radii: (N,) of the discs [m].
            rng: source of the draw.
            gap: least distance between two discs [m].

        Returns:
            (N, 2) centres in the region's frame, in the order of radii.

        Raises:
            PlacementError: they did not fit after many draws.
        """
        half = np.array(self.size) / 2
        for _ in range(30):
            places: list[Array] = []
            for radius in radii:
                apart = np.array(radii[: len(places)]) + radius + gap
                candidates = rng.uniform(-half + radius, half - radius, (60, 2))
                distances = np.linalg.norm(candidates[:, None] - np.array(places).reshape(-1, 2), axis=-1)
                free = np.nonzero((distances >= apart).all(1))[0]
                if not len(free):
                    break
                places.append(candidates[free[0]])
            if len(places) == len(radii):
                return np.array(places)
        raise PlacementError(f"{len(radii)} discs do not fit in {self.size[0]:.2f} m x {self.size[1]:.2f} m")


def share_table(sizes: Sequence[tuple[float, float]], names: Sequence[str], rng: np.random.Generator) -> list[Region]:
    """Give every module a rectangle that overlaps no other, at a random place and in a random orientation.

    Args:
        sizes: (length, width) that each module needs [m].
        names: of the modules, for the error.
        rng: source of the draw.

    Raises:
        UserError: one alone is larger than the table, all together are, or they fitted in none of `_DRAWS` draws.
    """
    table = BOUNDS[:2, 1] - BOUNDS[:2, 0] - 2 * MARGIN
    needed, free = sum(length * width for length, width in sizes), float(np.prod(table))
    long, short = max(table), min(table)
    for name, size in zip(names, sizes, strict=True):
        if max(size) > long + _ROUNDING or min(size) > short + _ROUNDING:
            raise UserError(
                f"{name} needs {max(size):.2f} m x {min(size):.2f} m and the table has {long:.2f} m x {short:.2f} m; "
                "give it fewer or smaller bodies"
            )
    if needed <= free + _ROUNDING:
        for _ in range(_DRAWS):
            regions = _try_share(sizes, table, rng)
            if regions is not None:
                return regions
    rectangles = ", ".join(f"{name} {max(size):.2f} x {min(size):.2f}" for name, size in zip(names, sizes, strict=True))
    raise UserError(
        f"{len(sizes)} modules do not fit side by side: they need {needed:.2f} m2 in rectangles ({rectangles} m), and "
        f"the table has {free:.2f} m2, {long:.2f} x {short:.2f} m; use fewer or smaller modules"
    )


def _try_share(sizes: Sequence[tuple[float, float]], table: Array, rng: np.random.Generator) -> list[Region] | None:
    cells = np.floor(table / _CELL).astype(int)
    taken = np.zeros(cells, bool)
    regions: list[Region | None] = [None] * len(sizes)
    # Large ones first leaves room more often; the jitter keeps the order open.
    for index in np.argsort([-length * width * rng.uniform(0.7, 1.3) for length, width in sizes]):
        turns = int(rng.integers(4))
        for turned in (turns, turns + 1):
            extent = np.array(sizes[index] if turned % 2 == 0 else sizes[index][::-1])
            span = np.ceil(extent / _CELL - _ROUNDING).astype(int)
            corners = _free(taken, span)
            if len(corners):
                corner = corners[rng.integers(len(corners))]
                taken[corner[0] : corner[0] + span[0], corner[1] : corner[1] + span[1]] = True
                centre = BOUNDS[:2, 0] + MARGIN + (corner + span / 2) * _CELL
                regions[index] = Region(centre, np.pi / 2 * (turned % 4), sizes[index])
                break
        else:
            return None
    return [region for region in regions if region is not None]


def _free(taken: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Cells (N, 2) that can be the lower corner of a free rectangle of span (2,) cells."""
    if (span > taken.shape).any():
        return np.zeros((0, 2), int)
    summed = np.pad(taken.astype(int).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    rows, columns = span
    inside = summed[rows:, columns:] - summed[:-rows, columns:] - summed[rows:, :-columns] + summed[:-rows, :-columns]
    return np.argwhere(inside == 0)
