"""The action of every problem: pick here, place there."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from multiravens.geometry import BOUNDS, Array, Pose, quaternion_yaw, rotate, wrap_angle, yaw_quaternion

_LOWER, _UPPER = BOUNDS.T.astype(np.float32)


class PositionSpace(spaces.Box):
    """Positions (3,) [m], world frame. It holds everything within a metre of the origin, as gymnasium likes spaces to
    be symmetric; samples are drawn in the workspace, and actions outside of it are moved to its edge.
    """

    def __init__(self) -> None:
        super().__init__(-1.0, 1.0, (3,), np.float32)

    def sample(self, mask: None = None, probability: None = None) -> NDArray[np.float32]:
        """A position drawn evenly from the workspace."""
        return self.np_random.uniform(_LOWER, _UPPER).astype(np.float32)


_WIDTHS = (("position", 3), ("quaternion", 4))
WIDTHS = {f"{part}_{field}": width for part in ("pick", "place") for field, width in _WIDTHS}
"""Numbers in each field of an action: positions [m] and quaternions xyzw, in the world's frame."""


def action_space() -> spaces.Dict:
    """Make a space of its own for one environment: a space has a random state, and seeding it must reseed no other.

    Returns:
        `pick_position` (3,), `pick_quaternion` (4,), `place_position` (3,), `place_quaternion` (4,): metres, xyzw,
        world frame.
    """
    return spaces.Dict(
        {
            name: PositionSpace() if name.endswith("position") else spaces.Box(-1.0, 1.0, (width,), np.float32)
            for name, width in WIDTHS.items()
        }
    )


@dataclass(frozen=True)
class Action:
    """Pick at one pose and place at another.

    Attributes:
        pick: the tip's pose when it touches; only its xy and yaw matter, the descent ends at contact.
        place: the tip's pose at release, likewise.
        period: what is held looks the same after this further turn [rad]; 0 after any. The environment makes no use of
            it; learners do, since they cannot tell such turns apart.
    """

    pick: Pose
    place: Pose
    period: float = 2 * np.pi

    @property
    def turn(self) -> float:
        """Yaw [rad] by which what is held is turned, in [-pi, pi)."""
        return wrap_angle(quaternion_yaw(self.place.quaternion) - quaternion_yaw(self.pick.quaternion))

    def to_dict(self) -> dict[str, NDArray[np.float32]]:
        """The action as an element of `action_space()`."""
        poses = {"pick": self.pick, "place": self.place}
        return {
            f"{name}_{field}": np.asarray(getattr(pose, field), np.float32)
            for name, pose in poses.items()
            for field in ("position", "quaternion")
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, ArrayLike]) -> "Action":
        """Check an element of `action_space()`; positions outside the workspace are moved to its edge.

        Raises:
            ValueError: a field is missing, has another shape, holds NaN or infinity, or a quaternion is zero or has
                w first.
        """
        values = {key: _field(fields, key, width) for key, width in WIDTHS.items()}
        poses = []
        for part in ("pick", "place"):
            quaternion = values[f"{part}_quaternion"]
            length = float(np.linalg.norm(quaternion))
            if length < 1e-3:
                raise ValueError(f"{part}_quaternion is zero; give xyzw of length 1, [0, 0, 0, 1] for no turn")
            if abs(quaternion[0]) > 1e-3 and not quaternion[1:3].any():
                raise ValueError(
                    f"{part}_quaternion is {quaternion.tolist()}, a turn about x alone, as if w came first; "
                    "quaternions are xyzw: [0, 0, sin(yaw / 2), cos(yaw / 2)]"
                )
            position = np.clip(values[f"{part}_position"], _LOWER, _UPPER).astype(float)
            poses.append(Pose(position, quaternion / length))
        return cls(poses[0], poses[1])


def _field(fields: Mapping[str, ArrayLike], key: str, width: int) -> Array:
    if key not in fields:
        raise ValueError(f"the action lacks {key!r}; it needs {', '.join(WIDTHS)}")
    # Rounded as the action space rounds it, so that a stored demonstration replays to the same bytes.
    value = np.asarray(fields[key], dtype=np.float32).astype(float)
    if value.shape != (width,):
        raise ValueError(f"{key} has shape {value.shape}; it must be ({width},)")
    if not np.isfinite(value).all():
        raise ValueError(f"{key} is {value.tolist()}; every number must be finite")
    return value


def transport(pick: Array, current: Pose, goal_xy: ArrayLike, goal_yaw: float, period: float = 2 * np.pi) -> Action:
    """The action that brings a body from its pose to another by holding it at a point.

    Args:
        pick: (3,) world point on the body [m].
        current: the body's pose.
        goal_xy: (2,) where its origin shall be [m].
        goal_yaw: its yaw there [rad].
        period: the body looks the same after this turn [rad]; the smallest equivalent turn is made. 0 for any turn.
    """
    difference = goal_yaw - quaternion_yaw(current.quaternion)
    turn = wrap_angle(difference, period) if period else 0.0
    place = np.asarray(goal_xy, dtype=float) + rotate(turn, pick[:2] - current.position[:2])
    # Held off its middle, a symmetric body goes to another place for each of the equivalent turns.
    centred = np.linalg.norm(pick[:2] - current.position[:2]) < 1e-3
    return Action(
        Pose(np.asarray(pick, dtype=float), yaw_quaternion(0.0)),
        Pose(np.array([*place, pick[2]]), yaw_quaternion(turn)),
        period if centred else 2 * np.pi,
    )
