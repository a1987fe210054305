"""A vacuum cup: where it seals, what it holds, and the heaviest part that is handed to it.

The cup is a stiff ring with vacuum inside. It stays on while its ring is pressed on everywhere (it tips off over an
edge) and while friction there keeps it from sliding.
"""

import math
from collections import deque
from collections.abc import Sequence

import numpy as np
import pybullet

from multiravens.geometry import Array
from multiravens.sim.world import GRAVITY, TICK, TIP_GROUP, World

RADIUS = 0.006
"""Of the cup's rim [m]."""
VACUUM = 70e3
"""Pressure below the air's [Pa]: ejectors in handling airtight parts are set to 60 to 80 kPa."""
FORCE = VACUUM * np.pi * RADIUS**2
"""Most pull [N] of a cup that seals all round, 7.9 N: pressure times area."""
FRICTION = 0.5
"""Of a rubber cup on a dry smooth surface, the figure that makers of cups reckon with."""
ACCELERATION = 5.0
"""Acceleration [m/s2] at which the heaviest load can be moved, that of a usual gantry."""
QUICKEST = 20.0
"""Most acceleration [m/s2] at which any is moved: delta robots reach several times as much."""
GENTLEST = 2.0
"""Least acceleration [m/s2], for loads whose middle hangs low and pulls at a long lever."""
SAFETY = 1.5
"""Margin that makers of cups ask for, with smooth and airtight parts."""
HEAVIEST = int(100 * FORCE / (SAFETY * (-GRAVITY + ACCELERATION / FRICTION))) / 100
"""Most mass [kg] that a module may hand to a cup, 0.26 kg: carried sideways, held from sliding by friction alone."""

TOLERANCE = 0.0015
"""Spread of heights [m] that a lip closes: 7 degrees of tilt, or a ball or a cylinder 26 mm across and larger."""
LEAST = 14 / 16
"""Share of the rim that must seal: leaks of a pump's own flow are made up for, at less vacuum."""
_RAYS = 16
_ABOVE = 0.003  # from which rays look down at what the tip touches [m]: beside an inner wall, not from within a lid
_WINDOW = 4  # ticks over which an acceleration is taken


def seal(world: World, position: Array, body: int) -> float:
    """Share of the rim that lies on a body, by rays at its collision shape.

    Args:
        world: it is in.
        position: (3,) of the cup's middle, at the height of what it touches [m].
        body: that the cup touches.

    Returns:
        0 to 1; 0 where the middle of the cup is open.
    """
    angles = 2 * np.pi * np.arange(_RAYS) / _RAYS
    ring = RADIUS * np.stack([np.cos(angles), np.sin(angles), np.zeros(_RAYS)], axis=-1)
    starts = position + np.concatenate([np.zeros((1, 3)), ring]) + [0, 0, _ABOVE]
    ends = starts - [0, 0, 2 * _ABOVE]
    hits = pybullet.rayTestBatch(
        starts.tolist(), ends.tolist(), collisionFilterMask=~TIP_GROUP, physicsClientId=world.client
    )
    heights = np.array([hit[3][2] if hit[0] == body else -np.inf for hit in hits])
    closed = heights > heights.max() - TOLERANCE
    return float(closed[1:].mean()) if np.isfinite(heights[0]) and closed[0] else 0.0


def acceleration(mass: float, hangs: float) -> float:
    """Acceleration [m/s2] at which a load, weighed as it is lifted, neither slides nor tips off.

    Args:
        mass: of the load [kg].
        hangs: how far it reaches below the cup; its middle is taken to be three quarters as far down at most [m].
    """
    held = FORCE / SAFETY + mass * GRAVITY
    sliding, tipping = FRICTION * held / mass, RADIUS * held / (mass * (0.75 * hangs + RADIUS))
    return min(max(min(sliding, tipping), GENTLEST), QUICKEST)


def holds(force: Sequence[float], moment: Sequence[float], share: float = 1.0) -> bool:
    """Tell whether a cup that points straight down passes a force and a moment on to its load.

    Args:
        force: (3,) that carrying asks of it, upwards what lifts [N].
        moment: (2,) about the world's x and y axes through the rim's middle [N m].
        share: of the rim that seals; the vacuum is less by as much.
    """
    pressed = share * FORCE - force[2]
    sideways, tipping = math.hypot(force[0], force[1]), math.hypot(*moment)
    return pressed > 0 and sideways <= FRICTION * pressed and tipping <= RADIUS * pressed


class Pull:
    """Force and moment that a load asks of a cup, from how it moves.

    Bullet tells forces of a joint at the end of a tick alone, amid the jolts that a command each tick gives; how fast a
    body has become over some ticks is free of those.

    Args:
        world: the load is in.
        body: that is held.
        share: of the cup's rim that seals.
    """

    def __init__(self, world: World, body: int, share: float) -> None:
        self._client, self._body, self._share = world.client, body, share
        self._mass = world.mass(body)
        self._velocities: deque[Sequence[float]] = deque(maxlen=_WINDOW + 1)

    def pause(self) -> None:
        """Forget how the load moved, since something else pushes it too."""
        self._velocities.clear()

    def bears(self, cup: Sequence[float]) -> bool:
        """Take this tick into account and tell whether the cup, its middle at (3,) [m], holds its load."""
        # Plain numbers: this is asked every tick.
        self._velocities.append(pybullet.getBaseVelocity(self._body, physicsClientId=self._client)[0])
        if len(self._velocities) <= _WINDOW:
            return True
        first, last = self._velocities[0], self._velocities[-1]
        fx, fy, fz = (self._mass * (now - then) / (_WINDOW * TICK) for now, then in zip(last, first, strict=True))
        fz -= self._mass * GRAVITY
        centre = pybullet.getBasePositionAndOrientation(self._body, physicsClientId=self._client)[0]
        x, y, z = (there - here for there, here in zip(centre, cup, strict=True))
        return holds((fx, fy, fz), (y * fz - z * fy, z * fx - x * fz), self._share)
