"""One Bullet simulation: a table, the bodies on it, and simulated time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from multiravens.geometry import Array, Pose, invert, multiply, transform
from multiravens.sim import anchors, urdf
from multiravens.sim.anchors import STILL, Anchors
from multiravens.sim.chains import PERIOD, TAUT, Chain, strand
from multiravens.sim.connection import connect
from multiravens.sim.shapes import RGB, Shape, ball

TICK = 1 / 240
"""Time from one command to the next [s]."""
SUBSTEPS, SOLVER_ITERATIONS = 2, 15
"""Two steps of 15 iterations a tick, where Bullet takes one of 50: on chaining links stretched 6 % instead of 16 %,
beads crept 0.7 mm in four seconds instead of 1, and it was faster."""
CONTACT_DISTANCE = 0.005
"""Contacts are kept up to this share of a body's size: with Bullet's 0.02 more are solved, and boxes creep no less."""
GRAVITY = -9.8
_NEAR = 0.01
"""Bodies closer than this [m] to one that moves are free: in two ticks it comes 8 mm nearer at 1 m/s."""
TIP_GROUP = 64
"""Collision group of a tip, which rays that leave it out have in their mask; Bullet's own are up to 32."""
IDENTITY = Pose(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))
MATERIAL = {"lateralFriction": 0.6, "restitution": 0.0}
ROLLING = {"spinningFriction": 0.004, "rollingFriction": 0.001}
"""Friction against turning, of rigid bodies alone: one of two that touch is enough, and beads do not turn."""


@dataclass(frozen=True)
class Body:
    """A body that observations show and that poses are recorded of.

    Attributes:
        id: Bullet's identifier.
        name: unique within the episode, such as `placing/part 0`.
        kind: `static`, `rigid` or `bead`.
        centre: (3,) centre of mass in the shape's frame [m]; Bullet's own poses are those of this point.
        turned: (4,) quaternion xyzw of the axes that Bullet's poses are of, in the shape's frame; None for the same.
    """

    id: int
    name: str
    kind: str
    centre: Array
    turned: Array | None = None


class World:
    """A Bullet client with a table and a registry of bodies.

    `reset` empties it. Nothing in it depends on the wall clock or on what was simulated before the reset.

    Args:
        gui: open Bullet's viewer instead of simulating without a window.

    Raises:
        UserError: a viewer is asked for and cannot be opened.
    """

    def __init__(self, gui: bool = False) -> None:
        self.client, self._disconnect = connect(self, gui)
        if gui:
            # The workspace from the front, without the panels that would cover it.
            pybullet.configureDebugVisualizer(pybullet.COV_ENABLE_GUI, 0, physicsClientId=self.client)
            pybullet.resetDebugVisualizerCamera(0.9, 90, -50, [0.5, 0, 0], physicsClientId=self.client)
        self.bodies: dict[int, Body] = {}
        self.chains: list[Chain] = []
        self.gripped: set[int] = set()
        self._tip: tuple[int, int] | None = None
        self._looked = 0
        self._anchors = Anchors()
        self.ticks = 0
        self.on_tick: list[Callable[[World], None]] = []
        self.reset()

    def close(self) -> None:
        """Disconnect from Bullet, as happens by itself when nothing uses the world; further calls do nothing."""
        self._disconnect()
        self.client = -1

    def __reduce__(self) -> tuple[type["World"], tuple[()]]:
        """Make a copy or a pickle an empty world of its own, without a viewer: Bullet's bodies cannot be copied."""
        return World, ()

    def reset(self) -> None:
        """Empty the world: only the table is left."""
        # A world of rigid bodies alone steps faster than the default one, which is ready for soft bodies.
        pybullet.resetSimulation(flags=pybullet.RESET_USE_DISCRETE_DYNAMICS_WORLD, physicsClientId=self.client)
        pybullet.setPhysicsEngineParameter(
            fixedTimeStep=TICK,
            enableFileCaching=1,
            deterministicOverlappingPairs=1,
            numSubSteps=SUBSTEPS,
            numSolverIterations=SOLVER_ITERATIONS,
            solverResidualThreshold=1e-4,
            contactBreakingThreshold=CONTACT_DISTANCE,
            physicsClientId=self.client,
        )
        pybullet.setGravity(0, 0, GRAVITY, physicsClientId=self.client)
        self.bodies.clear()
        self.chains.clear()
        self.gripped, self._tip = set(), None
        self._anchors.clear()
        self.on_tick.clear()
        self.ticks = self._looked = 0
        table = pybullet.createCollisionShape(pybullet.GEOM_PLANE, physicsClientId=self.client)
        self.table = pybullet.createMultiBody(0, table, self.unseen, physicsClientId=self.client)
        pybullet.changeDynamics(self.table, -1, **MATERIAL, physicsClientId=self.client)

    @property
    def unseen(self) -> int:
        """A visual shape for bodies that observations leave out; Bullet would draw one without any as it collides."""
        return int(
            pybullet.createVisualShape(
                pybullet.GEOM_SPHERE, radius=0.001, rgbaColor=[0, 0, 0, 0], physicsClientId=self.client
            )
        )

    @property
    def time(self) -> float:
        """Simulated seconds since the reset."""
        return self.ticks * TICK

    def step(self, ticks: int = 1) -> None:
        """Simulate a number of ticks and call every `on_tick` hook after each."""
        for _ in range(ticks):
            pybullet.stepSimulation(physicsClientId=self.client)
            self.ticks += 1
            if self.ticks % PERIOD == 0 or self.stretch() > TAUT:
                self._look_around()
            if self.ticks % anchors.PERIOD == 0:
                self._anchors.look(self.client)
            for hook in self.on_tick:
                hook(self)

    def add(
        self, name: str, shape: Shape, pose: Pose, mass: float = 0.0, kind: str | None = None, **dynamics: float
    ) -> int:
        """Put a body into the world.

        Args:
            name: unique name.
            shape: its collision and visual shape.
            pose: of the shape's own frame in the world.
            mass: [kg]; 0 makes it static.
            kind: `rigid`, `static` (the default without mass) or `bead`.
            **dynamics: settings of Bullet's changeDynamics that differ from `MATERIAL`.

        Returns:
            Bullet's identifier of the body.
        """
        centre = shape.centre()
        position = transform(pose, centre[None])[0]
        body = shape.create(self.client, mass, [position], pose.quaternion)[0]
        return self._register(Body(body, name, kind or ("rigid" if mass > 0 else "static"), centre), dynamics)

    def add_urdf(self, name: str, path: Path, pose: Pose, scale: float = 1.0, frame: Pose = IDENTITY) -> int:
        """Put a user's URDF body into the world.

        Args:
            name: unique name.
            path: of the file.
            pose: of the body's frame in the world.
            scale: of all lengths in the file.
            frame: the body's frame in the file's, after scaling.

        Raises:
            UserError: the file is missing, Bullet cannot load it, or the body cannot be moved as a whole.
        """
        body, centre = urdf.load(self.client, path, scale, multiply(pose, invert(frame)))
        local = multiply(invert(frame), centre)
        turned = None if np.allclose(local.quaternion, IDENTITY.quaternion) else local.quaternion
        return self._register(Body(body, name, "rigid", local.position, turned), {}, linked=True)

    def add_chain(
        self, name: str, radius: float, color: RGB, positions: Array, mass: float, closed: bool, **dynamics: float
    ) -> Chain:
        """Put a row of linked balls into the world, every link as long as it is at first.

        Args:
            name: the beads are called `NAME bead 0` and so on.
            radius: of each ball [m].
            color: red, green, blue in [0, 1].
            positions: (N, 3) of the beads [m], evenly spaced.
            mass: of one bead [kg].
            closed: link the last bead to the first.
            **dynamics: settings of Bullet's changeDynamics that differ from `MATERIAL`.
        """
        beads = ball(radius, color).create(self.client, mass, list(positions), [0, 0, 0, 1])
        for index, bead in enumerate(beads):
            self._register(Body(bead, f"{name} bead {index}", "bead", np.zeros(3)), dynamics)
        pairs = list(zip(beads, beads[1:] + beads[:1], strict=True))[: None if closed else -1]
        for index, (first, second) in enumerate(pairs):
            half = (positions[(index + 1) % len(beads)] - positions[index]) / 2
            pybullet.createConstraint(
                first,
                -1,
                second,
                -1,
                pybullet.JOINT_POINT2POINT,
                [0, 0, 0],
                half.tolist(),
                (-half).tolist(),
                physicsClientId=self.client,
            )
        chain = Chain(tuple(beads), float(np.linalg.norm(positions[1] - positions[0])), closed, mass, radius, positions)
        self.chains.append(chain)
        return chain

    def pin(self, body: int) -> None:
        """Hold a bead where it is, as a clamp would."""
        # Bullet ties free bodies to one another only; without mass one stays put.
        for chain in self.chains:
            which = np.isin(chain.beads, body)
            chain.hold(self.client, which)
            chain.pinned |= which

    def watch(self, body: int, link: int) -> None:
        """Have the beads that a body's link touches let go, as of a tip."""
        self._tip = body, link
        pybullet.setCollisionFilterGroupMask(body, link, TIP_GROUP, -1, physicsClientId=self.client)

    def grip(self, body: int) -> None:
        """Note that the tip holds a body: it and what is near it are free at once.

        Bullet crashes on a joint between the tip and a body without mass.
        """
        self._anchors.free(self.client, self._near(body, -1))
        self.gripped = {body}
        for chain in self.chains:
            chain.free(self.client, body)

    def release(self) -> None:
        """Note that the tip holds nothing: what it held, if anything, and what is near that are free."""
        for body in self.gripped:
            self._anchors.free(self.client, self._near(body, -1))
        self.gripped = set()

    def clamped(self, body: int) -> bool:
        """True for a bead that is pinned."""
        return any(chain.pinned[np.isin(chain.beads, body)].any() for chain in self.chains)

    def sleep(self) -> None:
        """Have all belts and cables stay where they are until something moves them; see `chains`."""
        for chain in self.chains:
            chain.hold(self.client, np.ones(len(chain.beads), bool))

    def wake(self) -> None:
        """Let everything move again; what does not soon comes to rest."""
        self._anchors.let_all_go(self.client)
        for chain in self.chains:
            chain.let_go(self.client, np.ones(len(chain.beads), bool))

    def _look_around(self) -> None:
        """Let go of what the tip or a moving body comes near, and look how the belts and cables move."""
        movers = [self._tip] if self._tip is not None else []
        movers += [(body, -1) for body in self._anchors.movers(self.client)]
        near = {other for body, link in movers for other in self._near(body, link)}
        self._anchors.let_go(self.client, near)
        for chain in self.chains:
            chain.look(self.client, near | self.gripped, (self.ticks - self._looked) * TICK)
        self._looked = self.ticks

    def _near(self, body: int, link: int) -> set[int]:
        """Bodies that a body's link touches or soon may: one without mass would take the whole blow."""
        lower, upper = pybullet.getAABB(body, link, physicsClientId=self.client)
        found = pybullet.getOverlappingObjects(
            [low - _NEAR for low in lower], [high + _NEAR for high in upper], physicsClientId=self.client
        )
        return {other for other, _ in found or ()}

    def _register(self, body: Body, dynamics: dict[str, float], linked: bool = False) -> int:
        pybullet.changeDynamics(
            body.id,
            -1,
            **{**MATERIAL, **(ROLLING if body.kind == "rigid" else {}), **dynamics},
            physicsClientId=self.client,
        )
        self.bodies[body.id] = body
        if body.kind == "rigid":
            self._anchors.add(self.client, body.id, linked)
        return body.id

    def pose(self, body: int) -> Pose:
        """World pose of a body's shape frame."""
        position, quaternion = pybullet.getBasePositionAndOrientation(body, physicsClientId=self.client)
        centred, turned = Pose(np.array(position), np.array(quaternion)), self.bodies[body].turned
        if turned is not None:
            return multiply(centred, invert(Pose(self.bodies[body].centre, turned)))
        return Pose(transform(centred, -self.bodies[body].centre[None])[0], centred.quaternion)

    def positions(self, bodies: Sequence[int]) -> Array:
        """World positions (N, 3) [m] of the centres of bodies."""
        return np.array(
            [pybullet.getBasePositionAndOrientation(body, physicsClientId=self.client)[0] for body in bodies]
        ).reshape(-1, 3)

    def poses(self) -> Array:
        """World poses (B, 7), position [m] and quaternion xyzw, of all bodies in the order they were added."""
        return np.array([np.concatenate(self.pose(body)) for body in self.bodies]).reshape(-1, 7)

    def speed(self) -> float:
        """The largest speed [m/s] among the bodies that can move."""
        speeds = self._anchors.speeds(self.client).values()
        return max([*speeds, *(chain.speed for chain in self.chains)], default=0.0)

    def settle(self, cap: float = 2.0, still: float = STILL) -> bool:
        """Simulate until everything is at rest, or until `cap` simulated seconds have passed; chains at rest sleep.

        Returns:
            True if everything came to rest.
        """
        for _ in range(round(cap / TICK / 8)):
            self.step(8)
            if self.speed() < still:
                self.sleep()
                return True
        return False

    def bounds(self, body: int) -> Array:
        """Axis-aligned box (2, 3) [m] around a body: lower and upper corner."""
        return np.array(pybullet.getAABB(body, -1, physicsClientId=self.client))

    def mass(self, body: int) -> float:
        """Mass of a body [kg]; 0 for one that does not move."""
        return float(pybullet.getDynamicsInfo(body, -1, physicsClientId=self.client)[0])

    def seen_above(self, body: int, spacing: float) -> Array:
        """Points (N, 3) [m] of a body that are seen from above, so far apart in x and y, or further if it is large."""
        lower, upper = self.bounds(body)
        sides = np.maximum(upper - lower, 1e-6)[:2]
        spacing = max(spacing, float(np.sqrt(sides.prod() / 16_000)))
        axes = [np.arange(low, high + spacing, spacing) for low, high in zip(lower[:2], upper[:2], strict=True)]
        grid = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)[:16_000]
        starts, ends = (
            np.c_[grid, np.full(len(grid), upper[2] + 0.01)],
            np.c_[grid, np.full(len(grid), lower[2] - 0.01)],
        )
        hits = pybullet.rayTestBatch(starts.tolist(), ends.tolist(), physicsClientId=self.client)
        return np.array([hit[3] for hit in hits if hit[0] == body]).reshape(-1, 3)

    def touching(self, body: int, link: int = -1) -> list[tuple[int, Array, float]]:
        """Bodies in contact with a body: their identifiers, contact points (3,) [m] and distances [m]."""
        contacts = pybullet.getContactPoints(bodyA=body, linkIndexA=link, physicsClientId=self.client)
        return [(c[2], np.array(c[6]), c[8]) for c in contacts if c[8] < 5e-4]

    def push(self, body: int, linear: ArrayLike) -> None:
        """Set the velocity (3,) [m/s] of a body, as a knock would (used by tests of recovery)."""
        self.wake()
        pybullet.resetBaseVelocity(body, list(np.asarray(linear, dtype=float)), physicsClientId=self.client)

    def move(self, body: int, pose: Pose) -> None:
        """Put a body at a pose [m] at rest, as a hand would (used by initial states and tests)."""
        self.wake()
        centre, turned = self.bodies[body].centre, self.bodies[body].turned
        quaternion = pose.quaternion if turned is None else multiply(pose, Pose(centre, turned)).quaternion
        position = transform(pose, centre[None])[0]
        pybullet.resetBasePositionAndOrientation(body, list(position), list(quaternion), physicsClientId=self.client)
        pybullet.resetBaseVelocity(body, [0, 0, 0], [0, 0, 0], physicsClientId=self.client)

    def strand(self, body: int) -> set[int]:
        """A body and, when it is a bead, those next to it, which touch it where a chain hangs folded."""
        return strand(self.chains, body)

    def stretch(self) -> float:
        """The longest link of any chain relative to its length at rest, as last looked at; 0 without chains."""
        return max((chain.stretch for chain in self.chains), default=0.0)
