"""Motions of a tool's tip from pose to pose. A floating head is fast; an arm drives its joints' motors.

Both hold what they touch with a bounded joint, where the tool can: a cup where it seals (`suction`), fingers what fits
between them (`fingers`). A rigid body is held by a fixed joint, a bead by a ball joint that gives way before links
stretch.
"""

import math
from abc import ABC, abstractmethod

import numpy as np
import pybullet

from multiravens.geometry import Array, Pose, yaw_quaternion
from multiravens.sim import fingers, suction
from multiravens.sim.arm import Arm
from multiravens.sim.world import World

HEAD_FORCE = 50.0
"""Most force [N] of the joint that pulls the floating head."""
HOME = (0.5, 0.0, 0.28)
TOOLS = ("suction", "fingers")
NOTHING = "missed: nothing to hold at the pick"
NO_SEAL = "missed: no seal, the cup's rim does not lie whole on what it touches"
TOO_WIDE = "missed: what the tip touches does not fit between the fingers"
_SLIP = 0.004  # a rigid load this far [m] from where it was held has come off


def ramped(ticks: float, ramp: float) -> Array:
    """Shares of a way that a motion has covered after each tick.

    Args:
        ticks: that the way would take at full speed all along.
        ramp: ticks from rest to full speed, and from there to rest again.

    Returns:
        (N,) rising to 1.
    """
    if ticks <= 0:
        return np.zeros(0)
    full = ticks >= ramp  # the way is long enough for full speed
    total = int(np.ceil(ticks + ramp if full else 2 * np.sqrt(ticks * ramp)))
    at, part = np.arange(1, total + 1) / total, ramp / total if full else 0.5
    if not part:
        return at
    begin, end = np.minimum(at, part), np.maximum(at - (1 - part), 0.0)
    return (begin**2 / 2 + part * np.maximum(at - part, 0.0) - end**2 / 2) / (part * (1 - part))


class Motion(ABC):
    """Moves the tip of a tool that points straight down.

    Args:
        slip: share of the picks that fail although the tool could hold what it touches.

    Attributes:
        held: what the tip holds; None for nothing.
        tools: which of `TOOLS` picks a body, by its identifier; suction picks the others.
        vacuum: share of the cup's rim that sealed at the last grip, 1 for fingers; 0 if they hold nothing.
        missed: a line on why the last grip held nothing.

    Raises:
        ValueError: it is not from 0 to 1.
    """

    fast: float  # tip speeds [m a tick], empty and with a load
    loaded: float
    world: World
    body: int
    link: int = -1
    held: int | None = None
    vacuum: float = 0.0
    missed: str = NOTHING
    acceleration: float  # of the empty tip [m a tick, each tick]
    _arrival: int  # ticks in which the tip comes to rest after it has travelled
    _target: tuple[Array, float]
    _joint: int | None = None

    def __init__(self, slip: float = 0.0) -> None:
        if not 0 <= slip <= 1:
            raise ValueError(f"slip={slip}: give 0 to 1")
        self.slip, self._luck = slip, np.random.default_rng(0)
        self.tools: dict[int, str] = {}

    def begin(self, rng: np.random.Generator) -> None:
        """Begin an episode: rng says which of its picks slip."""
        self._luck, self.vacuum = rng, 0.0

    def attach(self, world: World) -> None:
        """Enter a world that was just reset, the tip at HOME."""
        self.world, self.held, self._joint = world, None, None
        self.tools = {}
        self._enter()

    @abstractmethod
    def _enter(self) -> None:
        """Put the tip into the world, at HOME."""

    @abstractmethod
    def command(self, position: Array, yaw: float) -> None:
        """Ask for a tip position (3,) [m] and yaw [rad] within the next tick."""

    @abstractmethod
    def tip(self) -> Pose:
        """Pose of the tip in the world frame."""

    def reaches(self, position: Array) -> bool:
        """Tell whether the tip can be brought to a position (3,) [m]; a floating one can be brought anywhere."""
        return True

    def park(self, position: Array, yaw: float) -> None:
        """Bring the empty tip to a place above everything that is on the way: up, then across."""
        start, turn = self._target
        lifted = np.array([*start[:2], max(start[2], position[2])])
        for goal, angle in ((lifted, turn), (np.asarray(position, dtype=float), yaw)):
            begin, before = self._target
            for share in ramped(float(np.linalg.norm(goal - begin)) / self.fast, self.fast / self.acceleration):
                self.command(begin + share * (goal - begin), before + share * (angle - before))
                self.world.step()
        self.command(position, yaw)
        self.world.step(self._arrival)

    def contact(self) -> bool:
        """Tell whether the tip, or what it holds, touches anything else."""
        if self.held is None:
            return bool(self.world.touching(self.body, self.link))
        own = self.world.strand(self.held)
        return any(other not in own and other != self.body for other, _, _ in self.world.touching(self.held))

    def grip(self) -> bool:
        """Hold the movable body that the tip touches nearest to its axis; returns whether its tool could."""
        self.vacuum, self.missed = 0.0, NOTHING
        tip = self.tip().position
        touched = [
            (float(np.linalg.norm(point[:2] - tip[:2])), body)
            for body, point, _ in self.world.touching(self.body, self.link)
            if body in self.world.bodies and self.world.bodies[body].kind != "static" and not self.world.clamped(body)
        ]
        if not touched:
            return False
        body = min(touched)[1]
        share = self._fit(body, tip)
        if not share or (self.slip and self._luck.random() < self.slip):
            return False
        self.held, self.vacuum = body, share
        self.world.grip(body)
        self._joint, self._relative = self._hold(body), self._seen_from_tip(body).position
        self._pull = suction.Pull(self.world, body, share) if self._tool(body) == "suction" else None
        return True

    def _tool(self, body: int) -> str:
        return self.tools.get(body, "suction")

    def _fit(self, body: int, tip: Array) -> float:
        """Share of the tool that fits a body, as `vacuum` tells it; 0 where it can't hold it."""
        if self._tool(body) == "suction":
            share = suction.seal(self.world, tip, body)
            self.missed = NOTHING if share >= suction.LEAST else NO_SEAL
            return share if share >= suction.LEAST else 0.0
        fits = self.world.bodies[body].kind == "bead" or fingers.fits(self.world, tip, body)
        self.missed = NOTHING if fits else TOO_WIDE
        return float(fits)

    def keeps(self) -> bool:
        """Tell, every tick, whether a rigid load is where it was gripped and asks no more than its tool holds."""
        if self.held is None or self.world.bodies[self.held].kind == "bead":
            return True
        if math.dist(self._seen_from_tip(self.held).position, self._relative) > _SLIP:
            return False
        if self._pull is None:
            return True
        if self.contact():
            self._pull.pause()
            return True
        return self._pull.bears(self.tip().position.tolist())

    def release(self) -> None:
        """Let go; does nothing with an empty tip."""
        if self._joint is not None:
            pybullet.removeConstraint(self._joint, physicsClientId=self.world.client)
        self.held = self._joint = None
        self.world.release()

    def _hold(self, body: int) -> int:
        bead = self.world.bodies[body].kind == "bead"
        client, relative = self.world.client, self._seen_from_tip(body)
        joint = pybullet.createConstraint(
            self.body,
            self.link,
            body,
            -1,
            pybullet.JOINT_POINT2POINT if bead else pybullet.JOINT_FIXED,
            [0, 0, 0],
            list(relative.position),
            [0, 0, 0],
            list(relative.quaternion),
            [0, 0, 0, 1],
            physicsClientId=client,
        )
        force = fingers.BEAD_FORCE if bead else fingers.FORCE
        if self._tool(body) == "suction":
            force = self.vacuum * suction.FORCE
        pybullet.changeConstraint(joint, maxForce=force, physicsClientId=client)
        return int(joint)

    def _seen_from_tip(self, body: int) -> Pose:
        """Pose of a body's centre of mass in the frame of the link that holds."""
        held = pybullet.getBasePositionAndOrientation(body, physicsClientId=self.world.client)
        # Bullet's own arithmetic, as this is asked every tick.
        away = pybullet.invertTransform(*map(list, self._frame()))
        return Pose(*map(np.array, pybullet.multiplyTransforms(*away, *held)))

    @abstractmethod
    def _frame(self) -> Pose:
        """Centre-of-mass pose of the link that holds, which is the frame Bullet's joints are given in."""


class GripperMotion(Motion):
    """A floating head, pulled by a joint with the world of at most 50 N."""

    fast, loaded = 0.012, 0.005
    acceleration, _arrival = 0.002, 6
    _LENGTH = 0.05
    _MASS = 0.2

    def _enter(self) -> None:
        """Put the tip into the world, at HOME."""
        world, client = self.world, self.world.client
        shape = pybullet.createCollisionShape(
            pybullet.GEOM_CYLINDER, radius=suction.RADIUS, height=self._LENGTH, physicsClientId=client
        )
        centre = np.array(HOME) + [0, 0, self._LENGTH / 2]
        self.body = pybullet.createMultiBody(self._MASS, shape, world.unseen, centre.tolist(), physicsClientId=client)
        pybullet.changeDynamics(self.body, -1, linearDamping=0, angularDamping=0, physicsClientId=client)
        self._anchor = pybullet.createConstraint(
            self.body, -1, -1, -1, pybullet.JOINT_FIXED, [0, 0, 0], [0, 0, 0], centre.tolist(), physicsClientId=client
        )
        world.watch(self.body, self.link)
        self.command(np.array(HOME), 0.0)

    def command(self, position: Array, yaw: float) -> None:
        """Ask for a tip position (3,) [m] and yaw [rad] within the next tick."""
        self._target = np.array(position, dtype=float), yaw
        pybullet.changeConstraint(
            self._anchor,
            [position[0], position[1], position[2] + self._LENGTH / 2],
            list(yaw_quaternion(yaw)),
            maxForce=HEAD_FORCE,
            physicsClientId=self.world.client,
        )

    def tip(self) -> Pose:
        """Pose of the tip in the world frame."""
        frame = self._frame()
        return Pose(frame.position - [0, 0, self._LENGTH / 2], frame.quaternion)

    def _frame(self) -> Pose:
        position, quaternion = pybullet.getBasePositionAndOrientation(self.body, physicsClientId=self.world.client)
        return Pose(np.array(position), np.array(quaternion))


class ArmMotion(Motion):
    """A UR5e whose joints' motors follow the same tip poses by inverse kinematics."""

    fast, loaded = 0.004, 0.003  # about 1 m/s, as fast as a UR5e's joints carry its tool without falling behind
    acceleration, _arrival = 0.0002, 12

    def _enter(self) -> None:
        """Put the tip into the world, at HOME."""
        self.arm = Arm(self.world.client, visible=False)
        self.body, self.link = self.arm.body, self.arm.tip_link
        self.world.watch(self.body, self.link)
        self.arm.show(np.array(HOME), 0.0)
        self._target = np.array(HOME), 0.0
        self.command(*self._target)

    def command(self, position: Array, yaw: float) -> None:
        """Ask for a tip position (3,) [m] and yaw [rad] within the next tick, or by then if the joints need longer."""
        start, turn = self._target
        goal = np.array(position, dtype=float)
        ticks = self.arm.ticks(goal, yaw)
        for tick in range(1, ticks + 1):
            share = tick / ticks
            self.arm.drive(start + share * (goal - start), turn + share * (yaw - turn))
            if tick < ticks:
                self.world.step()
        self._target = goal, yaw

    def reaches(self, position: Array) -> bool:
        """Tell whether the arm is long enough for the tip to be at a position (3,) [m]."""
        try:
            self.arm.inverse_kinematics(position, 0.0)
        except ValueError:
            return False
        return True

    def tip(self) -> Pose:
        """Pose of the tip in the world frame."""
        return Pose(*self.arm.tip())

    def _frame(self) -> Pose:
        state = pybullet.getLinkState(self.body, self.link, physicsClientId=self.world.client)
        return Pose(np.array(state[0]), np.array(state[1]))
