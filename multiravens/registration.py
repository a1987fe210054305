"""Gymnasium ids of the fifteen named problems, registered without loading a simulator."""

from itertools import combinations

import gymnasium

MODULES = ("chaining", "placing", "routing", "stacking")
PROBLEMS = tuple("-".join(names) for count in range(1, 5) for names in combinations(MODULES, count))
"""The fifteen named problems: singles, pairs, triples and the quadruple."""


def environment_id(problem: str) -> str:
    """Gymnasium's id of a named problem: `chaining-placing` is `multiravens/ChainingPlacing-v0`."""
    return f"multiravens/{''.join(name.capitalize() for name in problem.split('-'))}-v0"


def register() -> None:
    """Register the fifteen problems; importing `multiravens` does it."""
    for problem in PROBLEMS:
        # Episodes end by the problem's own count of actions, so no TimeLimit wrapper is wanted.
        gymnasium.register(environment_id(problem), entry_point="multiravens.envs:make", kwargs={"problem": problem})
