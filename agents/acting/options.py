"""Options of how a trained agent acts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from multiravens.errors import UserError, unknown

POINTERS = ("reward", "visual")


@dataclass(frozen=True)
class Acting:
    """Options of a trained agent's acting, no part of its training. The defaults are those of `acting=plain`.

    Attributes:
        pointer: where the goal pointer comes from, `reward` or `visual`.
        inhibition: by how much each try in vain lowers a pick's logit; 0 for not at all.
        patience: tries in vain after which later sub-goals come first; 0 for never.

    Raises:
        UserError: a value is none of these.
    """

    pointer: str = "reward"
    inhibition: float = 0.0
    patience: int = 0

    def __post_init__(self) -> None:
        if self.pointer not in POINTERS:
            raise unknown("pointer", str(self.pointer), POINTERS)
        if not isinstance(self.inhibition, int | float) or not 0 <= self.inhibition < math.inf:
            raise UserError(f"inhibition={self.inhibition}: give 0 or more")
        if not isinstance(self.patience, int) or self.patience < 0:
            raise UserError(f"patience={self.patience}: give 0 or more tries")

    @classmethod
    def of(cls, config: Mapping[str, Any], given: Mapping[str, Any] | None = None) -> "Acting":
        """Take the options of a run's configuration, but for those that are given and not None.

        Raises:
            UserError: a value that is refused, or an option that there is not.
        """
        names = [each.name for each in fields(cls)]
        chosen = {name: value for name, value in (given or {}).items() if value is not None}
        for name in chosen:
            if name not in names:
                raise unknown("option of acting", name, names)
        return cls(**{name: chosen.get(name, config[name]) for name in names})


PLAIN = Acting()
