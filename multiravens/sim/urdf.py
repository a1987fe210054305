"""A user's URDF file as one body that a suction tip can move."""

from pathlib import Path

import numpy as np
import pybullet

from multiravens.errors import UserError
from multiravens.geometry import Pose

HEAVIEST = 1.5
"""Most mass [kg] of a part: the floating tip holds 50 N, and 2 kg swung too far when it stopped."""

LIGHTEST = 0.02
"""Least mass [kg] that a smaller scale leaves: files in millimetres have masses in kilograms all the same."""


def load(client: int, path: Path, scale: float, pose: Pose) -> tuple[int, Pose]:
    """Put a URDF's body into a client.

    Args:
        client: Bullet's.
        path: of the file.
        scale: of all lengths; below 1, the mass shrinks with the volume, down to `LIGHTEST`.
        pose: world pose of the file's own frame.

    Returns:
        Bullet's identifier, and the pose in the file's frame of the centre of mass, of which Bullet tells poses.

    Raises:
        UserError: the file is missing, Bullet cannot load it, or the body cannot be moved as a whole.
    """
    if not path.is_file():
        raise UserError(f"no URDF file {str(path)!r}; give a path that exists, relative ones start here")
    try:
        body = pybullet.loadURDF(
            str(path),
            list(pose.position),
            list(pose.quaternion),
            globalScaling=scale,
            flags=pybullet.URDF_ENABLE_CACHED_GRAPHICS_SHAPES,
            physicsClientId=client,
        )
    except pybullet.error as error:
        raise UserError(f"{str(path)!r} cannot be loaded as a URDF ({error}); try it in Bullet's viewer") from error
    mass, *_, position, quaternion = pybullet.getDynamicsInfo(body, -1, physicsClientId=client)[:5]
    if scale < 1 and mass > LIGHTEST:
        # Bullet shrinks lengths alone; of the same density, a half-size mug weighs an eighth.
        mass = max(mass * scale**3, LIGHTEST)
        pybullet.changeDynamics(body, -1, mass=mass, physicsClientId=client)
    joints = pybullet.getNumJoints(body, physicsClientId=client)
    solid = pybullet.getCollisionShapeData(body, -1, physicsClientId=client)
    reason = _fault(float(mass), int(joints), bool(solid))
    if reason:
        raise UserError(f"urdf: {str(path)!r} {reason}")
    return int(body), Pose(np.array(position), np.array(quaternion))


def _fault(mass: float, joints: int, solid: bool) -> str:
    """Reason why a body can't be a part; empty if it can."""
    if joints:
        return f"has {joints} joints, and a part is one rigid body: give a file with one link"
    if not solid:
        return "has no collision shape, so nothing can hold it: give its link a <collision>"
    if mass <= 0:
        return f"has mass {mass:g} kg, which Bullet takes as fixed to the world: give its link a <mass> above 0"
    if mass > HEAVIEST:
        return f"has mass {mass:g} kg, more than the tip carries: give its link a <mass> of at most {HEAVIEST:g}"
    return ""
