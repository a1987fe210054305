"""Spaces of actions, and the action of picking here and placing there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

from multiravens.actions import LOWER, PICK_PLACE, UPPER, ActionField, ActionSpec
from multiravens.geometry import Array, Pose, quaternion_yaw, rotate, wrap_angle, yaw_quaternion


class PositionSpace(spaces.Box):
    """Positions (3,) [m], world frame. It holds everything within a metre of the origin, as gymnasium likes spaces to
    be symmetric; samples are drawn in the workspace, and actions outside of it are moved to its edge.
    """

    def __init__(self) -> None:
        super().__init__(-1.0, 1.0, (3,), np.float32)

    def sample(self, mask: None = None, probability: None = None) -> NDArray[np.float32]:
        """A position drawn evenly from the workspace."""
        return self.np_random.uniform(LOWER, UPPER).astype(np.float32)


def action_space(spec: ActionSpec) -> spaces.Dict:
    """Make a space of its own for one environment: a space has a random state, and seeding it must reseed no other."""
    return spaces.Dict({field.name: _space(field) for field in spec.fields})


def _space(field: ActionField) -> spaces.Box:
    if field.kind == "position":
        return PositionSpace()
    low, high = (field.low, field.high) if field.kind == "scalar" else (-1.0, 1.0)
    return spaces.Box(low, high, (field.width,), np.float32)


def fields_of(action: Any) -> Mapping[str, Any]:
    """Fields of an action as somebody chose it: a mapping of them, or what makes one by `to_dict`, as `Action` does."""
    fields: Mapping[str, Any] = action.to_dict() if hasattr(action, "to_dict") else action
    return fields


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
        """Fields of the action, as `PICK_PLACE` lists them."""
        values = (*self.pick, *self.place)
        return {name: np.asarray(value, np.float32) for name, value in zip(PICK_PLACE.widths, values, strict=True)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, ArrayLike]) -> "Action":
        """Check an action's fields; positions outside the workspace are moved to its edge.

        Raises:
            ValueError: a field is missing, has another shape, holds NaN or infinity, or a quaternion is zero or has
                w first.
        """
        return cls.of(PICK_PLACE.check(fields))

    @classmethod
    def of(cls, checked: Mapping[str, Array]) -> "Action":
        """Take an action's fields as `PICK_PLACE.check` gives them."""
        pick, pick_turned, place, place_turned = (checked[name] for name in PICK_PLACE.widths)
        return cls(Pose(pick, pick_turned), Pose(place, place_turned))


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
