"""Names of problems, and gymnasium ids of the fifteen named ones, registered without loading a simulator."""

from collections.abc import Sequence
from itertools import combinations

from multiravens.errors import UserError, quote

MODULES = ("chaining", "placing", "routing", "stacking")
PROBLEMS = tuple("-".join(names) for count in range(1, 5) for names in combinations(MODULES, count))
"""The fifteen named problems: singles, pairs, triples and the quadruple."""
GROUPS = {"all": PROBLEMS, "ten": tuple(name for name in PROBLEMS if name.count("-") in (1, 2))}
"""Names for several problems; `ten` are the pairs and triples."""


def parse_problems(value: str | Sequence[str]) -> list[str]:
    """The problems that an option names.

    Args:
        value: a name, a list of names, `all` or `ten`; modules of a named problem may come in any order.

    Returns:
        Each name once, in the order given.

    Raises:
        UserError: it is neither, or empty.
    """
    if isinstance(value, str):
        value = GROUPS.get(value, [value])
    if not value or not isinstance(value, Sequence) or not all(isinstance(name, str) and name for name in value):
        raise UserError(f"problems={quote(value)}: give names as in [placing,chaining], all or ten")
    ordered = ("-".join(sorted(name.split("-"))) for name in value)
    return list(dict.fromkeys(found if found in PROBLEMS else name for found, name in zip(ordered, value, strict=True)))


def environment_id(problem: str) -> str:
    """Gymnasium's id of a named problem: `chaining-placing` is `multiravens/ChainingPlacing-v0`."""
    return f"multiravens/{''.join(name.capitalize() for name in problem.split('-'))}-v0"


def register() -> None:
    """Register the fifteen problems; importing `multiravens` does it."""
    import gymnasium  # which training does without

    for problem in PROBLEMS:
        # Episodes end by the problem's own count of actions, so no TimeLimit wrapper is wanted.
        gymnasium.register(environment_id(problem), entry_point="multiravens.envs:make", kwargs={"problem": problem})
