"""Metrics: named functions of an episode's record, and their figures over episodes.

A metric gives true or false (its figure is a rate), a number (a mean), or a dictionary of such by name (one figure for
each name, where a name that an episode lacks counts as false or 0). Tables have a column for every metric that gives a
single value; dictionaries are told in the file alone.
"""

import inspect
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from multiravens.errors import UserError, quote
from multiravens.evaluation.record import Record
from multiravens.options.instantiate import instantiate, locate
from multiravens.support.statistics import METRIC_NAME, summarise

Metric = Callable[[Record], Any]


def mean_return(record: Record) -> float:
    """Credit that stood at the end, 0 to 1."""
    return record.returned


def full_success(record: Record) -> bool:
    """Every sub-goal held at the end."""
    return record.success


def steps(record: Record) -> dict[str, int]:
    """Actions that the agent took, and that the expert took."""
    return {"agent": record.steps, "expert": record.expert_steps}


def credit_by_module(record: Record) -> dict[str, float]:
    """Credit of each module that stood at the end; it adds up to the return."""
    return record.credit_by_module


def ended(record: Record) -> dict[str, bool]:
    """Reason why the episode ended, `success` or `steps`."""
    return {record.ended: True}


def motions(record: Record) -> dict[str, int]:
    """Count of the motions that ended in each way."""
    return dict(Counter(record.motions))


def build_metrics(nodes: Mapping[str, Any]) -> dict[str, Metric]:
    """Build metrics from their configurations: a function is called with the record, a class is built first.

    Args:
        nodes: of each name, a plain dictionary with a `_target_` and parameters.

    Raises:
        UserError: there is none, a name can't be one, or a metric can't be built or called.
    """
    if not nodes:
        raise UserError("metrics={}: give one at least, or metrics=standard")
    built: dict[str, Metric] = {}
    for name, node in nodes.items():
        if not METRIC_NAME.fullmatch(name):
            raise UserError(
                f"metric {quote(name)}: a name is of small letters, digits and _, not episodes or ..._interval"
            )
        if not isinstance(node, Mapping) or "_target_" not in node:
            raise UserError(f"metric {name} is {quote(node)}: give it as {{_target_: package.module.function}}")
        partial = not inspect.isclass(locate(node["_target_"], f"metrics.{name}"))
        built[name] = instantiate({**node, "_partial_": partial})
        if not callable(built[name]):
            raise UserError(f"metric {name}: {node['_target_']} can't be called with a record; give it a __call__")
    return built


def values_of(metrics: Mapping[str, Metric], record: Record, first: Mapping[str, Any]) -> dict[str, Any]:
    """Compute every metric of an episode.

    Args:
        metrics: by name.
        record: of the episode.
        first: what they gave for the first episode; empty for that one.

    Returns:
        By name: a bool, an int, a float, or a dictionary of those.

    Raises:
        UserError: a metric raised an error, or gave something else, or a dictionary for some episodes alone; it names
            the metric and the seed.
    """
    values: dict[str, Any] = {}
    for name, metric in metrics.items():
        try:
            given = metric(record)
        except Exception as error:  # of a user's own code, which may raise anything
            reason = " ".join(str(error).split())
            raise UserError(f"metric {name} raised {type(error).__name__} for seed {record.seed}: {reason}") from error
        place = f"metric {name} gave {quote(given)} for seed {record.seed}"
        values[name] = _plain(given, place)
        if isinstance(values[name], Mapping) != isinstance(first.get(name, values[name]), Mapping):
            raise UserError(
                f"{place} and {quote(first[name])} before: give a dictionary for every episode, or for none"
            )
    return values


def _plain(value: object, place: str) -> Any:
    if isinstance(value, Mapping):
        if any(isinstance(item, Mapping) for item in value.values()):
            raise UserError(f"{place}: give one level of names")
        return {str(name): _plain(item, place) for name, item in value.items()}
    plain = value.item() if isinstance(value, np.generic) else value
    if not isinstance(plain, bool | int | float) or not math.isfinite(plain):
        raise UserError(f"{place}: give a finite number, true or false, or a dictionary of such by name")
    return plain


def summary(records: Sequence[Record]) -> dict[str, Any]:
    """Figures of one or more episodes: how many, and of each metric its mean and 95 % interval.

    Returns:
        `episodes`, and for each metric NAME its figure as NAME and its interval as NAME_interval, or dictionaries of
        them by name.
    """
    figures: dict[str, Any] = {"episodes": len(records)}
    for name in records[0].metrics:
        values = [record.metrics[name] for record in records]
        if not isinstance(values[0], Mapping):
            figures[name], figures[f"{name}_interval"] = summarise(values)
            continue
        parts = {key: summarise([value.get(key, False) for value in values]) for key in sorted(set().union(*values))}
        figures[name] = {key: mean for key, (mean, _) in parts.items()}
        figures[f"{name}_interval"] = {key: interval for key, (_, interval) in parts.items()}
    return figures
