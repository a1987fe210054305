"""The record of an episode: what metrics are computed from."""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True)
class ActionRecord:
    """One action and what stood after it.

    Attributes:
        fields: each field (W,) of the action, such as `pick_position` [m], world frame.
        motion: how the motion ended, `ok` or why it ended early, such as `missed`.
        reward: credit gained or lost by it, -1 to 1.
        credit: that stands then, 0 to 1.
        credit_by_module: of each module, which add up to it.
        pointer: the first sub-goal that does not hold then.
    """

    fields: dict[str, tuple[float, ...]]
    motion: str
    reward: float
    credit: float
    credit_by_module: dict[str, float]
    pointer: int


@dataclass(frozen=True)
class Record:
    """One episode.

    Attributes:
        seed: of the episode.
        returned: credit that stood at the end, 0 to 1.
        success: every sub-goal held at the end.
        steps: actions taken.
        expert_steps: that the expert took.
        ended: why the episode ended, `success` or `steps`.
        credit_by_module: of each module at the end, 0 to 1.
        motions: how each motion ended.
        actions: each action in turn; they are not written to the file.
        metrics: what each metric gave, by name; empty while they are computed.
    """

    seed: int
    returned: float
    success: bool
    steps: int
    expert_steps: int
    ended: str
    credit_by_module: dict[str, float]
    motions: list[str]
    actions: tuple[ActionRecord, ...]
    metrics: dict[str, Any] = field(default_factory=dict)

    def row(self) -> dict[str, Any]:
        """The episode as plain values, as it is written to the file."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "actions"}
