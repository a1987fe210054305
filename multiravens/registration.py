"""Suites, which name several problems, and gymnasium ids of the problems in ours, registered without a simulator."""

from collections.abc import Iterable, Iterator
from itertools import chain, combinations, islice
from pathlib import Path

import yaml

from multiravens.errors import UserError, quote, unknown

_CONFIGS = Path(__file__).parent / "configs"
_KEYS = {"modules": str, "together": int, "problems": str}
_MOST_PROBLEMS = 1000


def read_suites(roots: Iterable[Path]) -> dict[str, tuple[str, ...]]:
    """Read the suites of folders laid out like `configs/`.

    A suite's file lists `problems`, or `modules` and how many of them are put `together`, or both.

    Args:
        roots: folders; of files of one name the first counts.

    Returns:
        The problems of each suite, by its name; `all` are the problems of ours.

    Raises:
        UserError: a file is no suite.
    """
    paths = (path for root in roots for path in sorted((root / "suite").glob("*.yaml")))
    first: dict[str, Path] = {}
    for path in paths:
        first.setdefault(path.stem, path)
    return {name: _problems(path) for name, path in first.items()} | {"all": PROBLEMS}


def _problems(path: Path) -> tuple[str, ...]:
    """Combinations of a suite's modules by their number, in alphabetical order, then the problems that it lists."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is no suite: give problems: [...], or modules: [...] and together: [...]")
    for key, items in content.items():
        if key not in _KEYS:
            raise unknown(f"key in {path}", str(key), _KEYS)
        if not isinstance(items, list) or not all(type(item) is _KEYS[key] for item in items):
            what = "numbers" if _KEYS[key] is int else "names"
            raise UserError(f"{path} has {quote(items)} for {key}: give a list of {what}")
    modules = sorted(set(content.get("modules", ())))
    counts = content.get("together", [1])
    if modules and not all(1 <= count <= len(modules) for count in counts):
        raise UserError(f"{path} has {counts} for together: give numbers from 1 to {len(modules)}, its modules")
    together: Iterator[str] = ("-".join(names) for count in counts for names in combinations(modules, count))
    found = dict.fromkeys(islice(chain(together, content.get("problems", ())), _MOST_PROBLEMS + 1))
    if not 1 <= len(found) <= _MOST_PROBLEMS:
        count = f"more than {_MOST_PROBLEMS}" if found else "no"
        raise UserError(f"{path} has {count} problems: give 1 to {_MOST_PROBLEMS}")
    return tuple(found)


_OURS = {name for path in (_CONFIGS / "suite").glob("*.yaml") for name in _problems(path)}
PROBLEMS = tuple(sorted(_OURS, key=lambda name: (name.count("-"), name)))
"""The fifteen named problems: singles, pairs, triples and the quadruple."""


def environment_id(problem: str) -> str:
    """Gymnasium's id of a named problem: `chaining-placing` is `multiravens/ChainingPlacing-v0`."""
    return f"multiravens/{''.join(name.capitalize() for name in problem.split('-'))}-v0"


def register() -> None:
    """Register the problems of our suites; importing `multiravens` does it."""
    import gymnasium  # which training does without

    for problem in PROBLEMS:
        # Episodes end by the problem's own count of actions, so no TimeLimit wrapper is wanted.
        gymnasium.register(environment_id(problem), entry_point="multiravens.envs:make", kwargs={"problem": problem})
