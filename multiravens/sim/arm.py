"""A UR5e with a suction tool that points straight down.

Meshes and URDF are made by `assets/make_arm.py` from the published kinematics.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pybullet
from numpy.typing import ArrayLike

from multiravens.geometry import Array, Pose, wrap_angle
from multiravens.sim.world import TICK

URDF = Path(__file__).parents[1] / "assets" / "ur5e" / "ur5e.urdf"

BASE = (0.0, 0.0, 0.24)
"""Position of the robot's base [m]: at the origin, as in the Ravens family, on a pedestal. The workspace's corners are
0.90 m away, and from this height the wrist is within 0.16 m of the shoulder's own, where the arm reaches 0.91 m."""
HOME_JOINTS = np.array([0.0, -2.2, -1.9, -0.61, np.pi / 2, 0.0])

# Universal Robots' published Denavit-Hartenberg parameters [m].
D1, A2, A3, D4, D5, D6 = 0.1625, -0.425, -0.3922, 0.1333, 0.0997, 0.0996
TOOL = 0.15  # from flange to tip [m]
_FORCES = (150.0, 150.0, 150.0, 28.0, 28.0, 28.0)  # the real joints' torques [Nm]
_SPEED = np.pi  # and their top speed [rad/s]


class Arm:
    """The arm in a Bullet client.

    Only its tip collides. An arm that is only shown belongs in a client of its own, where it can touch nothing and so
    does not change a bit of the simulation.

    Args:
        client: Bullet's client.
        visible: False keeps it out of pictures.

    Attributes:
        body: Bullet's identifier.
        tip_link: the link whose frame is the tool's tip, z pointing out of it.
    """

    tip_link = 6

    def __init__(self, client: int, visible: bool = True) -> None:
        self._client = client
        self.body = pybullet.loadURDF(
            str(URDF),
            BASE,
            useFixedBase=True,
            # A true cylinder, as the floating head has: a hull of one would touch 1 mm early.
            flags=pybullet.URDF_ENABLE_CACHED_GRAPHICS_SHAPES | pybullet.URDF_USE_IMPLICIT_CYLINDER,
            physicsClientId=client,
        )
        for joint in range(-1, 7):
            pybullet.changeDynamics(
                self.body, joint, linearDamping=0, angularDamping=0, jointDamping=0, physicsClientId=client
            )
            if not visible:
                pybullet.changeVisualShape(self.body, joint, rgbaColor=[0, 0, 0, 0], physicsClientId=client)
        self._joints = HOME_JOINTS.copy()
        self._set(HOME_JOINTS)

    def inverse_kinematics(self, position: ArrayLike, yaw: float, near: ArrayLike | None = None) -> Array:
        """Joint angles that bring the tip, pointing straight down, to a place.

        Elbow up, wrist outwards; closed form, since with the tool vertical the arm is a planar chain of two links.

        Args:
            position: (3,) of the tip in the world [m].
            yaw: of the tool about the vertical [rad].
            near: (6,) joint angles that full turns are chosen next to; the present ones if None.

        Returns:
            (6,) joint angles [rad].

        Raises:
            ValueError: the place is out of reach.
        """
        x, y, z = (float(value) for value in np.asarray(position, dtype=float) - BASE)
        reach = float(np.sqrt(max(x * x + y * y - D4 * D4, 0.0)))
        radius, height = reach - D5, z + TOOL + D6 - D1
        upper, fore = -A2, -A3
        span = float(np.hypot(radius, height))  # from shoulder to wrist
        if x * x + y * y < D4 * D4 or not abs(upper - fore) <= span <= upper + fore:
            place = np.round(np.asarray(position, dtype=float), 3).tolist()
            raise ValueError(
                f"the arm cannot reach {place}: it would be {np.hypot(x, y):.3f} m from its axis, {D4:.3f} m at least, "
                f"and {span:.3f} m from shoulder to wrist, {upper + fore:.3f} m at most; stay within the workspace"
            )
        cosine = (span**2 - upper**2 - fore**2) / (2 * upper * fore)
        elbow = -np.arccos(cosine)
        lift = np.arctan2(height, radius) - np.arctan2(fore * np.sin(elbow), upper + fore * np.cos(elbow)) - np.pi
        pan = np.arctan2(y, x) + np.arctan2(D4, reach)
        joints = np.array([pan, lift, elbow, np.pi / 2 - lift - elbow, np.pi / 2, pan - yaw])
        nearby = self._joints if near is None else np.asarray(near, dtype=float)
        return np.array([angle + wrap_angle(joint - angle) for joint, angle in zip(joints, nearby, strict=True)])

    def show(self, position: ArrayLike, yaw: float) -> None:
        """Put the tip at a place at once, for pictures and for starting, every joint within half a turn of home."""
        self._joints = self.inverse_kinematics(position, yaw, near=HOME_JOINTS)
        self._set(self._joints)

    def set_joints(self, joints: ArrayLike) -> None:
        """Put the joints at angles (6,) [rad] at once."""
        self._joints = np.asarray(joints, dtype=float)
        self._set(self._joints)

    def ticks(self, position: ArrayLike, yaw: float) -> int:
        """Ticks that the joints need at top speed from their targets to those of a place; 1 at least.

        Near the edge of its reach the elbow has to turn much faster than the tip moves.

        Args:
            position: (3,) of the tip in the world [m].
            yaw: of the tool about the vertical [rad].

        Raises:
            ValueError: the place is out of reach.
        """
        furthest = np.abs(self.inverse_kinematics(position, yaw) - self._joints).max()
        return max(int(np.ceil(furthest / (_SPEED * TICK))), 1)

    def drive(self, position: ArrayLike, yaw: float) -> None:
        """Have the motors pull the tip to a place within the next tick, as far as torques and speeds allow."""
        self._joints = self.inverse_kinematics(position, yaw)
        for joint, (angle, force) in enumerate(zip(self._joints, _FORCES, strict=True)):
            pybullet.setJointMotorControl2(
                self.body,
                joint,
                pybullet.POSITION_CONTROL,
                targetPosition=angle,
                positionGain=0.6,
                velocityGain=1.0,
                force=force,
                maxVelocity=_SPEED,
                physicsClientId=self._client,
            )

    def tip(self) -> Pose:
        """World pose of the tip; its z axis points out of the tool, downwards."""
        state = pybullet.getLinkState(
            self.body, self.tip_link, computeForwardKinematics=1, physicsClientId=self._client
        )
        return Pose(np.array(state[4]), np.array(state[5]))

    def joints(self) -> Array:
        """(6,) present joint angles [rad]."""
        states = pybullet.getJointStates(self.body, range(6), physicsClientId=self._client)
        return np.array([state[0] for state in states])

    def _set(self, joints: Sequence[float] | Array) -> None:
        for joint, angle in enumerate(joints):
            pybullet.resetJointState(self.body, joint, angle, physicsClientId=self._client)
