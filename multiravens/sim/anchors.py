"""Static friction of rigid bodies.

Bullet's friction is of moving contacts alone, so that boxes creep off one another, by 9 to 15 cm in a minute. A body
that has been slow for a while is anchored: its contacts remember where they began and pull back to there, with no more
force than friction has. Whatever pushes harder moves it, and what is out of balance tips over. Anchors hinder rolling,
so that a body that moves, is held or is touched by the tip's load has none.

The solver's rounding shakes anchored bodies by some micrometres, which takes one box in fifty 2 mm far in a minute. One
that has kept its place for a third of a second is therefore held there, until the tip, its load or a body that moves
comes near. What is out of balance does not keep its place for that long: a box's tilt grows tenfold in a sixth of a
second. Only what moves is simulated: bodies that are held cost next to no time.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pybullet

STILL = 0.005
"""A body slower than this [m/s] counts as at rest (Ravens' threshold)."""
LEVER = 0.02
"""Turning counts as the speed of a point so far from the centre [m], the half width of a typical part."""
PERIOD = 8
"""Ticks from one look at the bodies to the next."""
KEPT = 0.0001
"""A body that moves by less than this [m] has kept its place."""
PATIENCE = 10
"""Looks, a third of a second in all, for which an anchored body keeps its place before it is held."""
_FEW = 2  # looks that a body is slow for before it is anchored, or fast for before it is let go


@dataclass
class _Rest:
    """State of a body.

    Attributes:
        mass: of the body while it is not held [kg].
        inertia: about its principal axes, likewise [kg m2].
        linked: it is a robot of links to Bullet, and never held.
        anchored: its contacts remember where they began.
        held: it has no mass, so that nothing moves it.
        looks: for which it has been slow if it is free, fast if it is anchored.
        kept: looks for which it has been at `place`.
        place: position [m] and quaternion.
    """

    mass: float
    inertia: tuple[float, ...]
    linked: bool
    anchored: bool = False
    held: bool = False
    looks: int = 0
    kept: int = 0
    place: tuple[tuple[float, ...], tuple[float, ...]] | None = None


class Anchors:
    """Anchors and holds rigid bodies that have come to rest, and lets go of those that move."""

    def __init__(self) -> None:
        self._bodies: dict[int, _Rest] = {}

    def clear(self) -> None:
        """Forget all bodies."""
        self._bodies.clear()

    def add(self, client: int, body: int, linked: bool = False) -> None:
        """Take a free body into account; one that Bullet has as a robot of links is anchored alone, never held."""
        dynamics = pybullet.getDynamicsInfo(body, -1, physicsClientId=client)
        self._bodies[body] = _Rest(dynamics[0], dynamics[2], linked)

    def speeds(self, client: int) -> dict[int, float]:
        """Speed of each body [m/s]."""
        return {body: 0.0 if rest.held else _speed(client, body) for body, rest in self._bodies.items()}

    def movers(self, client: int) -> list[int]:
        """Bodies that move: anchored ones are shaken by up to `STILL`, so that twice as much is asked of them."""
        return [body for body, speed in self.speeds(client).items() if self._moves(body, speed)]

    def look(self, client: int) -> None:
        """Anchor the bodies that have been slow for a while, hold those that kept their places, let go of the fast."""
        for body, speed in self.speeds(client).items():
            rest = self._bodies[body]
            if rest.held:
                continue
            changes = self._moves(body, speed) == rest.anchored
            rest.looks = rest.looks + 1 if changes else 0
            if rest.looks >= _FEW:
                self._anchor(client, body, not rest.anchored)
            elif rest.anchored and not rest.linked:
                self._wait(client, body)

    def free(self, client: int, bodies: Iterable[int]) -> None:
        """Let go of bodies at once; others than rigid ones are passed over."""
        for body in bodies:
            rest = self._bodies.get(body)
            if rest is not None:
                self.let_go(client, [body])
                if rest.anchored:
                    self._anchor(client, body, False)
                rest.looks = 0

    def let_go(self, client: int, bodies: Iterable[int]) -> None:
        """Let bodies move that are pushed hard enough; others than rigid ones are passed over."""
        for body in bodies:
            rest = self._bodies.get(body)
            if rest is not None:
                if rest.held:
                    self._weigh(client, body, rest.mass, pybullet.ACTIVATION_STATE_DISABLE_SLEEPING)
                rest.held, rest.kept, rest.place = False, 0, None

    def let_all_go(self, client: int) -> None:
        """Let all bodies move that are pushed hard enough."""
        self.let_go(client, self._bodies)

    def _moves(self, body: int, speed: float) -> bool:
        return speed > (2 * STILL if self._bodies[body].anchored else STILL)

    def _wait(self, client: int, body: int) -> None:
        """Count the looks for which an anchored body has kept its place, and hold it after enough of them."""
        rest = self._bodies[body]
        place = pybullet.getBasePositionAndOrientation(body, physicsClientId=client)
        if rest.place is None or not _same(place, rest.place):
            rest.place, rest.kept = place, 0
        rest.kept += 1
        if rest.kept > PATIENCE:
            # Two bodies without mass that are both inactive are not even looked at for contacts.
            self._weigh(client, body, 0.0, pybullet.ACTIVATION_STATE_SLEEP)
            rest.held, rest.kept, rest.place = True, 0, None

    def _weigh(self, client: int, body: int, mass: float, state: int) -> None:
        pybullet.resetBaseVelocity(body, [0, 0, 0], [0, 0, 0], physicsClientId=client)
        pybullet.changeDynamics(body, -1, mass=mass, activationState=state, physicsClientId=client)
        if mass:
            inertia = self._bodies[body].inertia
            pybullet.changeDynamics(body, -1, localInertiaDiagonal=inertia, physicsClientId=client)

    def _anchor(self, client: int, body: int, anchored: bool) -> None:
        rest = self._bodies[body]
        rest.anchored, rest.looks = anchored, 0
        pybullet.changeDynamics(body, -1, frictionAnchor=int(anchored), physicsClientId=client)
        if anchored:
            # Contacts that there are stay as they are; entered anew, with Bullet's own filters, a body makes new ones.
            pybullet.setCollisionFilterGroupMask(body, -1, 1, -1, physicsClientId=client)


def _speed(client: int, body: int) -> float:
    linear, angular = pybullet.getBaseVelocity(body, physicsClientId=client)
    return math.hypot(*linear, LEVER * math.hypot(*angular))


def _same(
    place: tuple[tuple[float, ...], tuple[float, ...]], other: tuple[tuple[float, ...], tuple[float, ...]]
) -> bool:
    """Tell whether a body that was at one position [m] and quaternion has kept its place at another."""
    share = abs(sum(a * b for a, b in zip(place[1], other[1], strict=True)))
    return math.hypot(math.dist(place[0], other[0]), LEVER * 2 * math.acos(min(share, 1.0))) < KEPT
