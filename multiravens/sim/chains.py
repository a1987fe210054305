"""Belts and cables: rows of linked balls, and the static friction that keeps them where they have come to rest.

Bullet's contact solver lets beads creep, by a centimetre in four seconds, so static friction is a rule of its own here.
A bead that has been slow for a while is held where it is. It is let go as soon as the tip, a moving body or a bead that
moves comes near it. What moves is simulated, and only that: beads that are held cost next to no time.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np
import pybullet
from numpy.typing import NDArray

from multiravens.geometry import Array

SLOW = 0.005
"""A bead slower than this [m/s] may come to rest."""
FAST = 0.02
"""A bead faster than this [m/s] sets those around it free: slower ones creep, or were just let go."""
PERIOD = 2
"""Ticks from one look at the beads to the next: a tip that drags one gets 4 mm far meanwhile."""
TAUT = 1.1
"""While a link is longer than this share of its length, the beads are looked at every tick."""
PATIENCE = 12
"""Looks that a bead must have been slow for before it is held: in that time, 0.1 s, what falls is no longer slow."""
AROUND = 6
"""Beads within so many links of a moving one are free: taut, six links of 14 mm give 4 mm at a stretch of 5 %."""
NEAR = 2.2
"""Beads whose middles are closer than this many radii touch, or are about to."""


@dataclass(eq=False)
class Chain:
    """Beads linked in a row.

    Attributes:
        beads: Bullet identifiers in order.
        rest: length of each link at rest [m].
        closed: whether the last bead is linked to the first.
        mass: of one bead [kg].
        radius: of one bead [m].
        positions: (N, 3) of the beads at first [m].
        held: (N,) bool, which beads static friction holds.
        pinned: (N,) bool, which are clamped for good.
        speed: of the fastest bead between the last two looks [m/s].
        stretch: length of the longest link at the last look, relative to its length at rest.
    """

    beads: tuple[int, ...]
    rest: float
    closed: bool
    mass: float
    radius: float
    positions: InitVar[Array]
    stretch: float = field(default=1.0, init=False)
    speed: float = field(default=math.inf, init=False)

    def __post_init__(self, positions: Array) -> None:
        count = len(self.beads)
        self.held, self.pinned = np.zeros(count, bool), np.zeros(count, bool)
        self._positions = positions.copy()  # at the last look
        self._slow = np.zeros(count, np.int64)  # looks that each has been slow for
        links = np.abs(np.subtract.outer(np.arange(count), np.arange(count)))
        self._close = np.minimum(links, count - links if self.closed else links) <= AROUND
        ends = np.arange(count if self.closed else count - 1)
        self._links = ends, (ends + 1) % count

    def hold(self, client: int, which: NDArray[np.bool_]) -> None:
        """Hold beads (N,) bool where they are."""
        for index in np.nonzero(which & ~self.held)[0]:
            # Two bodies without mass that are both inactive are not even looked at for contacts.
            self._weigh(client, self.beads[index], 0.0, pybullet.ACTIVATION_STATE_SLEEP)
        self.held |= which

    def let_go(self, client: int, which: NDArray[np.bool_]) -> None:
        """Let beads (N,) bool move."""
        for index in np.nonzero(which & self.held & ~self.pinned)[0]:
            self._weigh(client, self.beads[index], self.mass, pybullet.ACTIVATION_STATE_DISABLE_SLEEPING)
        self._slow[which] = 0
        self.held &= ~which | self.pinned

    def free(self, client: int, bead: int) -> None:
        """Let go of a bead and those around it; does nothing for a body that is none of the chain's."""
        which = np.isin(self.beads, bead)
        if which.any():
            self.let_go(client, self._around(which))

    def look(self, client: int, near: Collection[int], seconds: float) -> None:
        """Hold the beads that have come to rest and let go those that are about to be moved.

        Args:
            client: Bullet's.
            near: identifiers of bodies that the tip holds, or that it or a moving body comes near.
            seconds: since the last look.
        """
        free = np.nonzero(~self.held)[0]
        speeds = np.zeros(len(self.beads))
        speeds[free] = self._ask(client, free) / seconds
        self._slow = np.where(speeds < SLOW, self._slow + 1, 0)
        moving = speeds > FAST
        if near:
            moving |= [bead in near for bead in self.beads]
        if moving.any():
            self.let_go(client, self._around(moving))
            if self.held.any():
                self.let_go(client, self._beside(moving))
        self.hold(client, self._slow >= PATIENCE)
        self.speed = float(speeds.max())

    def _ask(self, client: int, free: NDArray[np.int64]) -> Array:
        """Note where the free beads are, and how long the longest link is; returns how far each has come [m]."""
        if not len(free):
            return np.zeros(0)
        ask, beads = pybullet.getBasePositionAndOrientation, self.beads
        now = np.array([ask(beads[index], physicsClientId=client)[0] for index in free.tolist()])
        way = _length(now - self._positions[free])
        self._positions[free] = now
        first, second = self._links
        self.stretch = float(_length(self._positions[second] - self._positions[first]).max()) / self.rest
        return way

    def _around(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) the beads and those within `AROUND` links of them."""
        return np.asarray(self._close[which].any(0))

    def _beside(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) the held beads that touch one of these without being linked to it."""
        held = np.nonzero(self.held)[0]
        gaps = _length(self._positions[which][:, None] - self._positions[held])
        touching = np.zeros(len(self.beads), bool)
        touching[held] = (gaps < NEAR * self.radius).any(0)
        return touching

    @staticmethod
    def _weigh(client: int, bead: int, mass: float, state: int) -> None:
        pybullet.resetBaseVelocity(bead, [0, 0, 0], [0, 0, 0], physicsClientId=client)
        pybullet.changeDynamics(bead, -1, mass=mass, activationState=state, physicsClientId=client)


def _length(vectors: Array) -> Array:
    """Lengths (...) of vectors (..., 3)."""
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.asarray(np.sqrt(x * x + y * y + z * z))  # a tenth of the time of numpy's norm of few vectors


def strand(chains: Sequence[Chain], body: int, reach: int = 3) -> set[int]:
    """A body and, when it is a bead, those up to `reach` links away, which touch it where a chain hangs folded."""
    for chain in chains:
        if body in chain.beads:
            index, count = chain.beads.index(body), len(chain.beads)
            around = range(index - reach, index + reach + 1)
            return {chain.beads[i % count] for i in around if chain.closed or 0 <= i < count}
    return {body}
