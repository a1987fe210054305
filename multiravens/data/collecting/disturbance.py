"""Disturbance of the expert's actions while it demonstrates, so that demonstrations hold recoveries.

An expert that acts unhindered never shows what to do after a mistake. Here some of its actions are carried out in other
places than it chose; the episode goes on from what happened, and the label of each step stays what the expert chose
there. Reference: Laskey et al. 1703.09327 (DART). Departs: the size is an option, not fitted to an agent's errors.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from multiravens.actions import PICK_PLACE, ActionSpec, Fields
from multiravens.errors import UserError
from multiravens.geometry import BOUNDS, quaternion_yaw, yaw_quaternion

_LIMITS = {"share": 1.0, "offset": 0.2, "turn": 180.0}
"""Greatest values: all actions, more than a module's way across, half a turn."""


@dataclass(frozen=True)
class Disturbance:
    """Moves the positions of a share of the actions, such as picks and places, and turns their quaternions.

    Attributes:
        share: of the actions, 0 to 1; each is drawn by itself.
        offset: radius of the disc round each position that the disturbed one is drawn from evenly [m].
        turn: quaternions, such as that of what is held, are turned further by an angle drawn evenly from minus this to
            this [degrees].
        spec: the fields of the actions.

    Raises:
        UserError: a value is out of range, or actions would be disturbed by nothing.
    """

    share: float
    offset: float
    turn: float
    spec: ActionSpec = PICK_PLACE

    def __post_init__(self) -> None:
        for name, limit in _LIMITS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= limit:
                raise UserError(f"disturb.{name}={value}: give 0 to {limit:g}")
        if self.share and not self.offset and not self.turn:
            raise UserError(f"disturb.share={self.share} with an offset and a turn of 0: give one of them, or share 0")
        moved = self.spec.names("position") if self.offset else []
        if self.share and not moved and not (self.turn and self.spec.names("quaternion")):
            raise UserError(
                f"disturb.share={self.share}: offset={self.offset} and turn={self.turn} move none of the fields of "
                f"{self.spec}: give disturb.share=0"
            )

    @classmethod
    def of(cls, options: Any, spec: ActionSpec = PICK_PLACE) -> "Disturbance | None":
        """Take the options `disturb` of a configuration, for actions of a spec; None where no action is disturbed.

        Raises:
            UserError: an option is missing or out of range.
        """
        if not isinstance(options, Mapping) or set(options) != set(_LIMITS):
            raise UserError(f"disturb={options}: give disturb.share, disturb.offset and disturb.turn")
        made = cls(**options, spec=spec)
        return made if made.share else None

    def options(self) -> dict[str, float]:
        """Return the options that make another one like it."""
        return {name: float(getattr(self, name)) for name in _LIMITS}

    def __call__(self, action: Fields, rng: np.random.Generator) -> Fields:
        """Disturb an action, or leave it as it is.

        Args:
            action: what the expert chose.
            rng: of the episode. Each call draws as many numbers, so that the same steps are disturbed by any size.

        Returns:
            The action to carry out.
        """
        positions, quaternions = self.spec.names("position"), self.spec.names("quaternion")
        chance, turns = rng.random(), rng.uniform(-1, 1, len(quaternions))
        ways = rng.uniform(-np.pi, np.pi, len(positions))
        radii = self.offset * np.sqrt(rng.random(len(positions)))
        if chance >= self.share:
            return action
        changed = dict(action)
        for name, way, radius in zip(positions, ways, radii, strict=True):
            moved = action[name] + radius * np.array([np.cos(way), np.sin(way), 0.0])
            changed[name] = np.clip(moved, *BOUNDS.T).astype(np.float32)
        for name, turn in zip(quaternions, turns, strict=True):
            yaw = quaternion_yaw(action[name]) + turn * np.radians(self.turn)
            changed[name] = yaw_quaternion(yaw).astype(np.float32)
        return changed
