"""Belts and cables: balls in a row, linked by ball joints."""

import numpy as np

from multiravens.geometry import Array
from multiravens.sim.chains import Chain
from multiravens.sim.shapes import RGB
from multiravens.sim.world import World

RADIUS = 0.006
MASS = 0.02  # [kg]
LINK = 0.01414
"""Distance between neighbours [m], that of the Ravens family's beads."""
DYNAMICS = {"linearDamping": 0.999, "angularDamping": 1.0, "lateralFriction": 1.0}
"""A bead that cannot roll (full angular damping) keeps its place as rubber does: rolling ones crept several
millimetres in four seconds, and a belt of them was dragged along whole instead of opening under the tip. Of friction
0.6 to 3 and damping 0.5 to 0.999, this rested best (0.5 mm) and solved most."""


def add_beads(world: World, name: str, color: RGB, curve: Array, closed: bool, **dynamics: float) -> Chain:
    """Lay a row of beads on the table.

    Args:
        world: to add them to.
        name: the beads are called `NAME bead 0` and so on.
        color: red, green, blue in [0, 1].
        curve: (N, 2) world xy of the beads [m], LINK apart.
        closed: link the last bead to the first.
        **dynamics: settings of Bullet's changeDynamics that differ from `DYNAMICS`.
    """
    positions = np.c_[curve, np.full(len(curve), RADIUS)]
    return world.add_chain(name, RADIUS, color, positions, MASS, closed, **{**DYNAMICS, **dynamics})


def spaced(curve: Array, count: int, closed: bool) -> Array:
    """Points (count, 2) at even distances along a polyline (N, 2), over its whole length."""
    line = np.concatenate([curve, curve[:1]]) if closed else curve
    arc = np.concatenate([[0.0], np.linalg.norm(np.diff(line, axis=0), axis=1).cumsum()])
    at = np.linspace(0.0, arc[-1], count + closed)[:count]
    return np.stack([np.interp(at, arc, line[:, axis]) for axis in range(2)], axis=-1)


def beside(xy: Array, posts: Array, distance: float) -> Array:
    """Position (2,) of the tip on a bead: its middle, or off it where a post would be in the tip's way.

    Args:
        xy: (2,) of the bead [m].
        posts: (P, 2) axes of the posts [m].
        distance: from an axis at which the tip touches no post [m].
    """
    away = xy - posts
    distances = np.linalg.norm(away, axis=1)
    post = int(distances.argmin())
    if not 0 < distances[post] < distance:
        return xy
    return np.asarray(posts[post] + distance * away[post] / distances[post])
