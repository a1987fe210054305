"""Splits: named, disjoint ranges of seeds, so that nothing tested on was ever trained on."""

import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

import yaml

from multiravens.errors import UserError, quote
from multiravens.options.search import CONFIGS

_LAST_SEED = 2**31  # seeds fit a 32-bit integer wherever they end up


def known_splits() -> dict[str, range]:
    """Read the seeds of each split, `train`, `test` and `validation`: `configs/demos.yaml` alone says which."""
    return parse_splits(yaml.safe_load((CONFIGS / "demos.yaml").read_text(encoding="utf-8"))["splits"])


def parse_splits(splits: Any) -> dict[str, range]:
    """Checks the configured splits.

    Args:
        splits: Each split's name and its first seed and the one after the last: `{train: [0, 100000], ...}`.

    Returns:
        Each split's seeds.

    Raises:
        UserError: If it isn't such a mapping, a range is empty or negative, or two ranges overlap.
    """
    if not isinstance(splits, Mapping) or not splits:
        raise UserError(f"splits must give each split its seeds, such as {{train: [0, 100000]}}, not {quote(splits)}")
    ranges = {_name(name): _seeds(name, bounds) for name, bounds in splits.items()}
    for (one, first), (other, second) in combinations(ranges.items(), 2):
        refuse_overlap(one, first, other, second)
    return ranges


def refuse_overlap(one: str, first: range, other: str, second: range) -> None:
    """Refuses two splits that share a seed.

    Args:
        one: The first split's name.
        first: Its seeds.
        other: The second split's name.
        second: Its seeds.

    Raises:
        UserError: If they share one.
    """
    low, high = max(first.start, second.start), min(first.stop, second.stop)
    if low < high:
        raise UserError(
            f"splits {one} [{first.start}, {first.stop}] and {other} [{second.start}, {second.stop}] share the seeds "
            f"from {low} to {high - 1}: give them ranges that do not overlap"
        )


def _name(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w-]{0,63}", name, re.ASCII):
        raise UserError(f"a split's name must be letters, digits, _ or -, not {quote(name)}")
    return name


def _seeds(name: str, bounds: Any) -> range:
    integers = isinstance(bounds, list | tuple) and all(type(bound) is int for bound in bounds)
    if not integers or len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= _LAST_SEED:
        raise UserError(
            f"split {name} must be [first seed, seed after the last] with 0 <= first < last <= {_LAST_SEED}, "
            f"not {quote(bounds)}"
        )
    return range(bounds[0], bounds[1])
