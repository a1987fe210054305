"""Worlds as a camera sees them, for tests of what acts in them."""

import numpy as np

from multiravens.envs.seen import Seen
from multiravens.sim.cameras import Orthographic
from multiravens.sim.world import World


def seen(world: World) -> Seen:
    """Heights of a world as it stands now."""
    return Seen(Orthographic().look(world, np.random.default_rng(0))[1])
