"""The fields of an action: from this one list spaces, files, drawings, disturbances and agents' outputs are made."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multiravens.errors import UserError
from multiravens.geometry import BOUNDS, Array, quaternion_yaw, yaw_quaternion

Fields = Mapping[str, NDArray[np.float32]]
"""Of one action each field (W,), or of T actions (T, W)."""

KINDS = {"position": 3, "quaternion": 4, "scalar": 1}
"""Numbers in a field of each kind: positions [m] and quaternions xyzw are in the world frame."""
LOWER, UPPER = BOUNDS.T.astype(np.float32)
"""(3,) the workspace's lower and upper corner [m], as actions are rounded."""
_RESERVED = ("problem", "seed", "poses")  # which stand beside the fields in an environment's state
_MOST, _LONGEST = 32, 64  # fields of an action, characters of a name


@dataclass(frozen=True)
class ActionField:
    """One field of an action.

    Attributes:
        name: an identifier.
        kind: `position`, `quaternion` (of what stands at the position listed before it) or `scalar`.
        low: least value of a scalar; lower ones are moved there, as positions are to the workspace's edge.
        high: greatest value of a scalar.
        unit: of a scalar, for people, such as `N`.
        free: False for a quaternion that is neither drawn nor disturbed: of two whose difference alone counts, the
            first.

    Raises:
        ValueError: one of these is not so.
    """

    name: str
    kind: str
    low: float = 0.0
    high: float = 1.0
    unit: str = ""
    free: bool = True

    def __post_init__(self) -> None:
        _check_name("field", self.name)
        if self.name in _RESERVED:
            raise ValueError(f"a field of an action is not called {self.name}, which a state holds beside the fields")
        if self.kind not in KINDS:
            raise ValueError(f"{self.name} is of kind {self.kind!r}: choose from {', '.join(KINDS)}")
        if not all(type(each) in (int, float) and math.isfinite(each) for each in (self.low, self.high)):
            raise ValueError(f"{self.name} has the limits {self.low!r} and {self.high!r}: give finite numbers")
        if not self.low < self.high:
            raise ValueError(f"{self.name} has the limits {self.low} and {self.high}: give a lower and a higher one")
        if not isinstance(self.unit, str) or len(self.unit) > _LONGEST or type(self.free) is not bool:
            raise ValueError(
                f"{self.name} has unit={self.unit!r:.80}, free={self.free!r:.80}: give a text, true or false"
            )

    @property
    def width(self) -> int:
        """Numbers in it."""
        return KINDS[self.kind]

    def check(self, given: ArrayLike) -> Array:
        """Check a value (W,), and move a position into the workspace, a scalar to its limits, a quaternion to length 1.

        Raises:
            ValueError: it has another shape, holds NaN or infinity, or is a quaternion of zeros or with w first.
        """
        # Rounded as the action space rounds it, so that a stored demonstration replays to the same bytes.
        value = np.asarray(given, dtype=np.float32).astype(float)
        if value.shape != (self.width,):
            raise ValueError(f"{self.name} has shape {value.shape}; it must be ({self.width},)")
        if not np.isfinite(value).all():
            raise ValueError(f"{self.name} is {value.tolist()}; every number must be finite")
        if self.kind == "position":
            return np.clip(value, LOWER, UPPER).astype(float)
        return np.clip(value, self.low, self.high) if self.kind == "scalar" else self._turn(value)

    def _turn(self, value: Array) -> Array:
        length = float(np.linalg.norm(value))
        if length < 1e-3:
            raise ValueError(f"{self.name} is zero; give xyzw of length 1, [0, 0, 0, 1] for no turn")
        if abs(value[0]) > 1e-3 and not value[1:3].any():
            raise ValueError(
                f"{self.name} is {value.tolist()}, a turn about x alone, as if w came first; "
                "quaternions are xyzw: [0, 0, sin(yaw / 2), cos(yaw / 2)]"
            )
        return value / length


class Mark(NamedTuple):
    """A place of an action, to be drawn: a position (3,) [m], and the yaw [rad] there if the action says one."""

    position: Array
    yaw: float | None


@dataclass(frozen=True)
class ActionSpec:
    """The action of a primitive, field by field.

    Attributes:
        name: of the primitive.
        fields: in order.

    Raises:
        ValueError: a name is no identifier or stands twice, or there are no fields or more than 32.
    """

    name: str
    fields: tuple[ActionField, ...]

    def __post_init__(self) -> None:
        _check_name("primitive", self.name)
        if not 1 <= len(self.fields) <= _MOST:
            raise ValueError(f"the action of {self.name} has {len(self.fields)} fields: give 1 to {_MOST}")
        if len(self.widths) < len(self.fields):
            raise ValueError(f"the action of {self.name} has two fields of one name: {', '.join(self.widths)}")

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.widths)})"

    @property
    def widths(self) -> dict[str, int]:
        """Numbers in each field, by its name."""
        return {field.name: field.width for field in self.fields}

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each field, by its name."""
        return {field.name: field.kind for field in self.fields}

    def names(self, kind: str) -> list[str]:
        """Names of the fields of a kind that may be drawn and disturbed."""
        return [field.name for field in self.fields if field.kind == kind and field.free]

    def check(self, given: Mapping[str, ArrayLike]) -> dict[str, Array]:
        """Check the fields of an action, each as `ActionField.check` does.

        Raises:
            ValueError: one is missing or not as it must be.
        """
        for name in self.widths:
            if name not in given:
                raise ValueError(f"the action lacks {name!r}; it needs {', '.join(self.widths)}")
        return {field.name: field.check(given[field.name]) for field in self.fields}

    def columns(self, actions: Sequence[Mapping[str, ArrayLike]]) -> dict[str, NDArray[np.float32]]:
        """T actions as one array (T, W) for each field."""
        return {
            name: np.array([action[name] for action in actions], np.float32).reshape(len(actions), width)
            for name, width in self.widths.items()
        }

    def draw(self, rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
        """An action drawn evenly: positions from the workspace, turns about z, scalars between their limits."""
        drawn: dict[str, ArrayLike] = {}
        positions, turns = self.names("position"), self.names("quaternion")
        drawn |= zip(positions, rng.uniform(BOUNDS[:, 0], BOUNDS[:, 1], (len(positions), 3)), strict=True)
        drawn |= {name: yaw_quaternion(rng.uniform(-np.pi, np.pi)) for name in turns}
        drawn |= {each.name: [rng.uniform(each.low, each.high)] for each in self.fields if each.kind == "scalar"}
        return {name: np.asarray(drawn.get(name, yaw_quaternion(0.0)), np.float32) for name in self.widths}

    def marks(self, action: Mapping[str, ArrayLike]) -> list[Mark]:
        """The places of an action (one value (W,) a field) in the order in which it comes there."""
        marks: list[Mark] = []
        for field in self.fields:
            if field.kind == "position":
                marks.append(Mark(np.asarray(action[field.name], float), None))
            elif field.kind == "quaternion" and marks:
                marks[-1] = marks[-1]._replace(yaw=quaternion_yaw(action[field.name]))
        return marks

    def plain(self) -> dict[str, object]:
        """As text and numbers, for files; `parse` reads it."""
        return {"name": self.name, "fields": [asdict(field) for field in self.fields]}

    @classmethod
    def parse(cls, content: object) -> "ActionSpec":
        """Read what `plain` wrote, which may come from a stranger; None is `PICK_PLACE`.

        Raises:
            ValueError: it is none.
        """
        if content is None:
            return PICK_PLACE
        listed = content.get("fields") if isinstance(content, dict) and set(content) == {"name", "fields"} else None
        known = set(ActionField.__dataclass_fields__)
        if not isinstance(listed, list) or not all(isinstance(each, dict) and set(each) == known for each in listed):
            raise ValueError("it has no valid list of an action's fields")
        spec = cls(content["name"], tuple(ActionField(**each) for each in listed[: _MOST + 1]))  # type: ignore[index]
        if spec.name == PICK_PLACE.name and spec != PICK_PLACE:
            raise ValueError(f"{spec.name} has other fields: {', '.join(PICK_PLACE.widths)}")
        return spec


def spec_of_primitive(primitive: object) -> ActionSpec:
    """The fields that a primitive declares.

    Raises:
        UserError: it is none.
    """
    spec = getattr(primitive, "spec", None)
    if not isinstance(spec, ActionSpec):
        raise UserError(f"{type(primitive).__name__} is no primitive: its `spec` must be an ActionSpec")
    return spec


def _check_name(what: str, name: object) -> None:
    if not isinstance(name, str) or not name.isidentifier() or len(name) > _LONGEST:
        raise ValueError(f"a {what} is called {name!r:.80}: give letters, digits and _, at most {_LONGEST}")


PICK_PLACE = ActionSpec(
    "pick_place",
    (
        ActionField("pick_position", "position"),
        ActionField("pick_quaternion", "quaternion", free=False),
        ActionField("place_position", "position"),
        ActionField("place_quaternion", "quaternion"),
    ),
)
"""Pick at one pose and place at another; of the quaternions only the yaw between them counts."""


def pick_place_fields(pick: ArrayLike, place: ArrayLike, turn: ArrayLike) -> dict[str, NDArray[np.float32]]:
    """Fields of actions that pick at points (.., 3) [m], turn what they hold by (..) [rad] and place at (.., 3)."""
    turned = np.array([yaw_quaternion(angle) for angle in np.ravel(turn)]).reshape(*np.shape(turn), 4)
    values = pick, np.broadcast_to(yaw_quaternion(0.0), turned.shape), place, turned
    return {name: np.array(value, np.float32) for name, value in zip(PICK_PLACE.widths, values, strict=True)}
