"""Motions of a suction tip from pose to pose. A floating head is fast; an arm drives its joints' motors.

Both hold what they touch with a bounded constraint: a rigid body by a fixed joint, a bead by a ball joint that gives
way before links stretch.
"""

from abc import ABC, abstractmethod

import numpy as np
import pybullet

from multiravens.geometry import Array, Pose, invert, multiply, yaw_quaternion
from multiravens.sim.arm import Arm
from multiravens.sim.world import World

GRIP_FORCE = 50.0
"""Most force [N] of the joint that holds the head, and of the one that holds a rigid body (Ravens' figure)."""
BEAD_FORCE = 5.0
"""Most force [N] on a held bead: 20 N stretched links two and a half times in trials."""
TIP_RADIUS = 0.006
SUCTION_RADIUS = 0.012
"""A contact further than this [m] from the tip's axis is not sucked."""
HOME = (0.5, 0.0, 0.28)


class Motion(ABC):
    """Moves a suction tip that points straight down.

    Args:
        slip: share of the picks in which suction fails although the tip touches something.

    Raises:
        ValueError: it is not from 0 to 1.
    """

    fast: float  # tip speeds [m a tick], empty and far from anything, and with a load
    loaded: float
    world: World
    body: int
    link: int = -1
    held: int | None = None
    _joint: int | None = None

    def __init__(self, slip: float = 0.0) -> None:
        if not 0 <= slip <= 1:
            raise ValueError(f"slip={slip}: give 0 to 1")
        self.slip, self._luck = slip, np.random.default_rng(0)

    def begin(self, rng: np.random.Generator) -> None:
        """Begin an episode: rng says which of its picks slip."""
        self._luck = rng

    @abstractmethod
    def attach(self, world: World) -> None:
        """Enter a world that was just reset, the tip at HOME."""

    @abstractmethod
    def command(self, position: Array, yaw: float) -> None:
        """Ask for a tip position (3,) [m] and yaw [rad] within the next tick."""

    @abstractmethod
    def tip(self) -> Pose:
        """Pose of the tip in the world frame."""

    def reaches(self, position: Array) -> bool:
        """Tell whether the tip can be brought to a position (3,) [m]; a floating one can be brought anywhere."""
        return True

    @abstractmethod
    def park(self, position: Array, yaw: float) -> None:
        """Bring the empty tip to a free place above everything, by the quickest way this motion has."""

    def contact(self) -> bool:
        """Tell whether the tip, or what it holds, touches anything else."""
        if self.held is None:
            return bool(self.world.touching(self.body, self.link))
        own = self.world.strand(self.held)
        return any(other not in own and other != self.body for other, _, _ in self.world.touching(self.held))

    def grip(self) -> bool:
        """Hold the movable body that the tip touches nearest to its axis; returns whether there was one."""
        tip = self.tip().position
        touched = [
            (float(np.linalg.norm(point[:2] - tip[:2])), body)
            for body, point, _ in self.world.touching(self.body, self.link)
            if body in self.world.bodies and self.world.bodies[body].kind != "static" and not self.world.clamped(body)
        ]
        if not touched or min(touched)[0] > SUCTION_RADIUS:
            return False
        if self.slip and self._luck.random() < self.slip:
            return False
        self.held = min(touched)[1]
        self.world.grip(self.held)
        self._joint = self._hold(self.held)
        return True

    def release(self) -> None:
        """Let go; does nothing with an empty tip."""
        if self._joint is not None:
            pybullet.removeConstraint(self._joint, physicsClientId=self.world.client)
        self.held = self._joint = None
        self.world.release()

    def _hold(self, body: int) -> int:
        bead = self.world.bodies[body].kind == "bead"
        client = self.world.client
        held = Pose(*(np.array(part) for part in pybullet.getBasePositionAndOrientation(body, physicsClientId=client)))
        relative = multiply(invert(self._frame()), held)
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
        pybullet.changeConstraint(joint, maxForce=BEAD_FORCE if bead else GRIP_FORCE, physicsClientId=client)
        return int(joint)

    @abstractmethod
    def _frame(self) -> Pose:
        """Centre-of-mass pose of the link that holds, which is the frame Bullet's joints are given in."""


class GripperMotion(Motion):
    """A floating suction head, pulled by a joint with the world of at most 50 N."""

    fast, loaded = 0.012, 0.005
    _LENGTH = 0.05
    _MASS = 0.2

    def attach(self, world: World) -> None:
        """Enter a world that was just reset, the tip at HOME."""
        self.world, self.held, self._joint = world, None, None
        client = world.client
        shape = pybullet.createCollisionShape(
            pybullet.GEOM_CYLINDER, radius=TIP_RADIUS, height=self._LENGTH, physicsClientId=client
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
        pybullet.changeConstraint(
            self._anchor,
            [position[0], position[1], position[2] + self._LENGTH / 2],
            list(yaw_quaternion(yaw)),
            maxForce=GRIP_FORCE,
            physicsClientId=self.world.client,
        )

    def park(self, position: Array, yaw: float) -> None:
        """Bring the empty tip to a free place above everything: nothing is in its way, so it goes at once."""
        quaternion = yaw_quaternion(yaw)
        centre = position + [0, 0, self._LENGTH / 2]
        pybullet.resetBasePositionAndOrientation(
            self.body, list(centre), list(quaternion), physicsClientId=self.world.client
        )
        pybullet.resetBaseVelocity(self.body, [0, 0, 0], [0, 0, 0], physicsClientId=self.world.client)
        self.command(position, yaw)

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

    def attach(self, world: World) -> None:
        """Enter a world that was just reset, the tip at HOME."""
        self.world, self.held, self._joint = world, None, None
        self.arm = Arm(world.client, visible=False)
        self.body, self.link = self.arm.body, self.arm.tip_link
        world.watch(self.body, self.link)
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

    def park(self, position: Array, yaw: float) -> None:
        """Bring the empty tip to a free place above everything: up, then across."""
        start, turn = self._target
        lifted = np.array([start[0], start[1], max(start[2], position[2])])
        for goal in (lifted, np.asarray(position, dtype=float)):
            begin, angle = self._target
            steps = int(np.ceil(np.linalg.norm(goal - begin) / self.fast))
            for step in range(1, steps + 1):
                share = step / steps
                self.command(begin + share * (goal - begin), turn if goal is lifted else angle + share * (yaw - angle))
                self.world.step()
        self.command(position, yaw)
        self.world.step(12)

    def tip(self) -> Pose:
        """Pose of the tip in the world frame."""
        return Pose(*self.arm.tip())

    def _frame(self) -> Pose:
        state = pybullet.getLinkState(self.body, self.link, physicsClientId=self.world.client)
        return Pose(np.array(state[0]), np.array(state[1]))
