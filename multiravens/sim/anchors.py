"""Static friction of rigid bodies.

Bullet's friction is of moving contacts alone, so that boxes creep off one another, by 9 to 15 cm in a minute. A body
that has been slow for a while is anchored: its contacts remember where they began and pull back to there, with no more
force than friction has. Whatever pushes harder moves it, and what is out of balance tips over. Anchors hinder rolling,
so that a body that moves, is held or is touched by the tip's load has none.
"""

import math
from collections.abc import Iterable

import pybullet

STILL = 0.005
"""A body slower than this [m/s] counts as at rest (Ravens' threshold)."""
LEVER = 0.02
"""Turning counts as the speed of a point so far from the centre [m], the half width of a typical part."""
PERIOD = 8
"""Ticks from one look at the bodies to the next."""
_PATIENCE = 2  # looks that a body is slow for before it is anchored, or fast for before it is let go


class Anchors:
    """Anchors rigid bodies that have come to rest, and lets go of those that move."""

    def __init__(self) -> None:
        self._anchored: dict[int, bool] = {}
        self._looks: dict[int, int] = {}  # for which each has been slow if it is free, fast if it is anchored

    def clear(self) -> None:
        """Forget all bodies."""
        self._anchored.clear()
        self._looks.clear()

    def add(self, body: int) -> None:
        """Take a free body into account."""
        self._anchored[body], self._looks[body] = False, 0

    def speeds(self, client: int) -> dict[int, float]:
        """Speed of each body [m/s]."""
        return {body: _speed(client, body) for body in self._anchored}

    def look(self, client: int) -> None:
        """Anchor the bodies that have been slow for a while, and let go of those that have been fast."""
        for body, speed in self.speeds(client).items():
            anchored = self._anchored[body]
            changes = speed > 2 * STILL if anchored else speed < STILL
            self._looks[body] = self._looks[body] + 1 if changes else 0
            if self._looks[body] >= _PATIENCE:
                self._set(client, body, not anchored)

    def free(self, client: int, bodies: Iterable[int]) -> None:
        """Let go of bodies at once; others than rigid ones are passed over."""
        for body in bodies:
            if self._anchored.get(body):
                self._set(client, body, False)
            elif body in self._looks:
                self._looks[body] = 0

    def _set(self, client: int, body: int, anchored: bool) -> None:
        self._anchored[body], self._looks[body] = anchored, 0
        pybullet.changeDynamics(body, -1, frictionAnchor=int(anchored), physicsClientId=client)
        if anchored:
            # Contacts that there are stay as they are; entered anew, with Bullet's own filters, a body makes new ones.
            pybullet.setCollisionFilterGroupMask(body, -1, 1, -1, physicsClientId=client)


def _speed(client: int, body: int) -> float:
    linear, angular = pybullet.getBaseVelocity(body, physicsClientId=client)
    return math.hypot(*linear, LEVER * math.hypot(*angular))
