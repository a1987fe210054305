"""Belts and cables: rows of linked balls, and the static friction that keeps them where they have come to rest.

Bullet's contact solver lets beads creep, by a centimetre in four seconds, so static friction is a rule of its own here.
A bead that has been slow for a while is held where it is. It is let go as soon as the tip, a moving body or a bead that
moves comes near it. What moves is simulated, and only that: beads that are held cost next to no time.
"""

import math
from collections.abc import Container, Sequence
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
        self._slow = np.zeros(count, np.int64)  # ticks that each has been slow for

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

    def look(self, client: int, near: Container[int], seconds: float) -> None:
        """Hold the beads that have come to rest and let go those that are about to be moved.

        Args:
            client: Bullet's.
            near: identifiers of bodies that the tip holds, or that it or a moving body comes near.
            seconds: since the last look.
        """
        before = self._positions.copy()
        self._ask(client)
        speeds = np.sqrt(np.square(self._positions - before).sum(1)) / seconds
        self._slow = np.where(speeds < SLOW, self._slow + 1, 0)
        moving = speeds > FAST
        moving |= [bead in near for bead in self.beads]
        if moving.any():
            self.let_go(client, self._around(moving) | self._beside(moving))
        self.hold(client, self._slow >= PATIENCE)
        self.speed = float(speeds.max())

    def _ask(self, client: int) -> None:
        """Note where the beads are, and how long the longest link is; those that are held stay where they were."""
        free = np.nonzero(~self.held)[0]
        if len(free):
            ask = pybullet.getBasePositionAndOrientation
            self._positions[free] = [ask(self.beads[index], physicsClientId=client)[0] for index in free]
        ends = self._positions if self.closed else self._positions[:-1]
        links = np.roll(self._positions, -1, axis=0)[: len(ends)] - ends
        self.stretch = math.sqrt(np.square(links).sum(1).max()) / self.rest

    def _around(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) the beads and those within `AROUND` links of them."""
        count = len(self.beads)
        at = (np.nonzero(which)[0][:, None] + np.arange(-AROUND, AROUND + 1)).ravel()
        grown = np.zeros(count, bool)
        grown[at % count if self.closed else at[(at >= 0) & (at < count)]] = True
        return grown

    def _beside(self, which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(N,) the beads that touch one of these without being linked to it."""
        gaps = np.square(self._positions[which][:, None] - self._positions).sum(-1).min(0)
        return np.asarray(gaps < (NEAR * self.radius) ** 2)

    @staticmethod
    def _weigh(client: int, bead: int, mass: float, state: int) -> None:
        pybullet.resetBaseVelocity(bead, [0, 0, 0], [0, 0, 0], physicsClientId=client)
        pybullet.changeDynamics(bead, -1, mass=mass, activationState=state, physicsClientId=client)


def strand(chains: Sequence[Chain], body: int, reach: int = 3) -> set[int]:
    """A body and, when it is a bead, those up to `reach` links away, which touch it where a chain hangs folded."""
    for chain in chains:
        if body in chain.beads:
            index, count = chain.beads.index(body), len(chain.beads)
            around = range(index - reach, index + reach + 1)
            return {chain.beads[i % count] for i in around if chain.closed or 0 <= i < count}
    return {body}
