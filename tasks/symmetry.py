"""Poses in which a body looks the same: turns about the vertical, and upside down."""

from dataclasses import dataclass

import numpy as np

from multiravens.geometry import Pose, multiply, rotation_matrix


@dataclass(frozen=True)
class Symmetry:
    """Turns after which a body on a table looks the same.

    Attributes:
        period: such a turn about the vertical [rad]; 0 for any.
        flip: direction in the body's own xy plane [rad] of an axis, at half its height, about which half a turn looks
            the same; None where it looks different upside down. For a plate it is the axis that its outline is mirrored
            about.
    """

    period: float = 2 * np.pi
    flip: float | None = None

    def upright(self, pose: Pose, height: float) -> Pose:
        """Turn a body that is upside down the right way up.

        Args:
            pose: of the body, whose origin is under its middle.
            height: of the body [m].

        Returns:
            The upright pose that looks the same as `pose`; `pose` itself where it is upright, or where upside down
            looks different.
        """
        if self.flip is None or rotation_matrix(pose.quaternion)[2, 2] >= 0:
            return pose
        half_turn = np.array([np.cos(self.flip), np.sin(self.flip), 0.0, 0.0])
        return multiply(pose, Pose(np.array([0.0, 0.0, height]), half_turn))
