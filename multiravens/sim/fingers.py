"""Two fingers: what fits between them, and how hard they hold."""

import numpy as np
import pybullet

from multiravens.geometry import Array
from multiravens.sim.world import World

FORCE = 50.0
"""Most force [N] of the joint that holds a rigid body: pads pressed on with 50 N from either side, of friction 0.5."""
BEAD_FORCE = 5.0
"""Most force [N] on a held bead: 20 N stretched links two and a half times in trials."""
OPENING = 0.040
"""Greatest width between the fingers [m]."""
_DEPTH = 0.004  # of the fingers' tips below what the tool touches [m]
_DIRECTIONS = 8


def fits(world: World, position: Array, body: int) -> bool:
    """Tell whether fingers about an upright axis close on a body, from one of eight directions.

    Args:
        world: it is in.
        position: (3,) of the tool's tip, at the height of what it touches [m].
        body: that the tool touches.
    """
    angles = np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    half = OPENING / 2 * np.stack([np.cos(angles), np.sin(angles), np.zeros(_DIRECTIONS)], axis=-1)
    middle = position - [0, 0, _DEPTH]
    starts, ends = np.concatenate([middle + half, middle - half]), np.tile(middle, (2 * _DIRECTIONS, 1))
    hits = pybullet.rayTestBatch(starts.tolist(), ends.tolist(), physicsClientId=world.client)
    met = np.array([hit[0] == body for hit in hits]).reshape(2, _DIRECTIONS)
    return bool(met.all(0).any())
