"""Measure the credit of skill without goals: the expert follows another episode's goals; its own goals are counted.

Run: python benchmarks/chance.py [--episodes 100] [--problems placing chaining]

An agent that sees no goal and yet does much better than this knows the goals from the scene: a leak. Scenes are those
of the test split; everything but the goals is the scene's own. Results: docs/results/chance.json, which
`benchmarks/learning.py` sets beside the agents.
"""

import argparse
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from rich.progress import track

from multiravens.envs import PickPlaceEnv, make
from multiravens.support.statistics import bootstrap_mean, spelled

FIRST = 100_000
RESULTS = Path(__file__).parents[1] / "docs" / "results" / "chance.json"
GOALS = {
    "placing": ("_goals", "_yaws"),
    "stacking": ("_below", "_tower"),
    "chaining": ("_goals",),
    "routing": ("_sides",),
}
"""Attributes in which each module keeps what only the goal images tell."""


def blind(env: PickPlaceEnv, seed: int, other: int) -> float:
    """Credit at the end of the episode of a seed, played for the goals of another."""
    env.reset(seed=other)
    wrong = _goals(env)
    env.reset(seed=seed)
    right = _goals(env)
    ended = False
    while not ended:
        _set(wrong)
        action = env.expert()
        _set(right)
        if action is None:
            break  # it takes itself to be done
        _, _, terminated, truncated, _ = env.step(action.to_dict())
        ended = terminated or truncated
    return env.credit


def _goals(env: PickPlaceEnv) -> list[tuple[Any, str, Any]]:
    """List the owner, the field and the value of every attribute that holds goals."""
    owners: list[tuple[Any, str]] = [
        (module, field) for name, module in env.problem.modules.items() for field in GOALS[name]
    ]
    owners.append((env.problem, "steps"))  # in the order that the goals ask for
    return [(owner, field, deepcopy(getattr(owner, field))) for owner, field in owners]


def _set(goals: Sequence[tuple[Any, str, Any]]) -> None:
    for owner, field, value in goals:
        setattr(owner, field, value)


def main() -> None:
    """Play, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--problems", nargs="*", default=list(GOALS), metavar="PROBLEM")
    options = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for problem in options.problems:
        env = make(problem)
        seeds = range(FIRST, FIRST + options.episodes)
        returns = [blind(env, seed, seed + options.episodes) for seed in track(seeds, problem)]
        env.close()
        mean, interval = sum(returns) / len(returns), bootstrap_mean(returns)
        found[problem] = {"mean_return": mean, "interval": list(interval), "episodes": len(returns)}
        print(f"{problem}: {spelled(mean, interval)}")
    RESULTS.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
