"""Comparison of runs with today's configurations: the options that differ, and the names of what was chosen."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from multiravens.options.compose import compose
from multiravens.options.search import search_path
from multiravens.options.types import flatten

NAMED = ("backbone", "task_sampling", "step_sampling")
"""Groups of `train.yaml` whose choice a table names; an agent brings its name with it."""


def defaults_of(command: str) -> dict[str, Any]:
    """Compose what a command does when it is given no options, as plain values."""
    defaults = OmegaConf.to_container(compose(command))
    assert isinstance(defaults, dict)
    return {str(name): value for name, value in defaults.items()}


def differing_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Compare two runs' configurations, of which the first may be from before some options existed.

    Args:
        before: a run's; an option that it lacks is taken to have its default.
        now: what is asked for.

    Returns:
        Dotted names of the options that differ, sorted.
    """
    old, new = dict(flatten(before)), dict(flatten(now))
    lacking = {name for name in new if not _has(old, name)}
    differing = {name for name in {*old, *new} - lacking if old.get(name) != new.get(name)}
    if lacking:
        composed = dict(flatten({**defaults_of("train"), "transfer": defaults_of("transfer")}))
        differing |= {name for name in lacking if new[name] not in _defaults(before, name, composed)}
    return sorted(differing)


def _has(options: Mapping[str, Any], name: str) -> bool:
    """Tell whether options hold a value for a name, for a part of it (`streams: null`), or for more than it."""
    parts = name.split(".")
    parents = (".".join(parts[:length]) for length in range(1, len(parts) + 1))
    return any(parent in options for parent in parents) or any(each.startswith(f"{name}.") for each in options)


def _defaults(before: Mapping[str, Any], name: str, composed: Mapping[str, Any]) -> list[Any]:
    """An option's default in every choice of its group; where the run is older than the group, in the one composed."""
    group = name.partition(".")[0]
    files = choices(group) if isinstance(before.get(group), Mapping) else {}
    sources: list[Mapping[str, Any]] = [dict(flatten(content, group)) for content in files.values()] or [composed]
    return [source[name] for source in sources if name in source]


def chosen_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Name what a run's configuration has for each group of `NAMED`.

    Args:
        config: of a run; the names that it was trained with are taken from it, where it has them.

    Returns:
        For each group the choice that has these values today (options that the run lacks have their defaults), or
        the name of the class for values of one's own; for the backbone that of a network which has none.
    """
    known = config.get("chosen", {})
    names = {group: known.get(group) or _name(group, config[group]) for group in NAMED}
    own = own_network(config)
    return names if own is None else names | {"backbone": _class(own)}


def own_network(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The part of a configuration that makes a network without a backbone; None where it is one of ours, with one."""
    node = config["agent"].get("network")
    return node if isinstance(node, Mapping) and not str(node.get("_target_")).startswith("multiravens.") else None


def _name(group: str, node: Mapping[str, Any]) -> str:
    for name, content in choices(group).items():
        if _filled(node, content) == content:
            return name
    built = (node.get("streams") or node["network"]) if group == "backbone" else node
    return _class(built).removesuffix("streams").removesuffix("tasks").removesuffix("steps")


def _class(node: Mapping[str, Any]) -> str:
    """Name of the class that a part of a configuration names."""
    return str(node.get("_target_", "")).rpartition(".")[2].lower()


def choices(group: str, roots: Sequence[Path] | None = None) -> dict[str, dict[str, Any]]:
    """Read the files of a group by name.

    Args:
        group: its name.
        roots: folders to look in, the first that has a name first; None for ours and the user's.

    Returns:
        Their contents; what is no YAML is left out, and told where it is composed.
    """
    found: dict[str, dict[str, Any]] = {}
    for path in (path for root in roots or search_path(None) for path in sorted((root / group).glob("*.yaml"))):
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError):
            continue
        if isinstance(content, dict):
            found.setdefault(path.stem, content)
    return found


def _filled(node: Any, default: Any) -> Any:
    """Values with those that they lack taken from a default; a value that is there, null too, stays."""
    if not (isinstance(node, Mapping) and isinstance(default, Mapping)):
        return node
    return {
        **default,
        **{key: _filled(value, default[key]) if key in default else value for key, value in node.items()},
    }
