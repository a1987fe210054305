"""The environment that a problem is measured in: the one of its demonstrations, with the changes made to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from multiravens.errors import UserError, quote
from multiravens.options.compose import changed, compose
from multiravens.options.trust import check_parts

_PARTS = ("problem", "camera", "motion")
_PRIMITIVE = "primitive"
_UNSAID = {"_target_": "multiravens.envs.primitive.PickPlace"}
"""Primitive of environments that name none, as none did before there were others: their data stay the same bytes."""


def environment_of(problem: str, overrides: Sequence[str], trained: Mapping[str, Any]) -> dict[str, Any]:
    """The environment that a problem is measured in.

    Args:
        problem: its name.
        overrides: of the environment's configuration, on top of the one that the demonstrations were made in.
        trained: the run's configuration.

    Raises:
        UserError: there is none, or it is built by something that is neither ours nor the user's.
    """
    own = trained.get("environment", {}).get(problem)
    if own is None:
        return parts_of(changed(_composed(problem), overrides))
    if "camera" not in own:
        raise UserError(
            f"the demonstrations of {problem} come from elsewhere, so there is no simulation of it to measure in: give "
            "problems=[...] of ours, or add a task module"
        )
    return parts_of(changed(refuse_foreign(own, problem), overrides))


def parts_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Take from a configuration, plain values, what decides an episode's bytes together with its seed.

    Returns:
        `problem`, `camera` and `motion`, and a `primitive` other than picking and placing.
    """
    named = (*_PARTS, *[_PRIMITIVE] * (config.get(_PRIMITIVE, _UNSAID) != _UNSAID))
    return {name: config[name] for name in named if name in config}


def refuse_foreign(environment: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """Refuse what a run's folder, which may come from anywhere, would build that is not for its place.

    Returns:
        A copy of what an environment is built of.

    Raises:
        UserError: it names a class that is neither ours for that place nor one that the user allows, has a value that
            is not plain, or lacks a part.
    """
    where = f"the run's environment of {problem}"
    parts = dict.fromkeys(_PARTS) | parts_of(environment)
    copy = check_parts(parts, where)
    for name in parts:
        if not isinstance(copy.get(name), dict) or "_target_" not in copy[name]:
            raise UserError(f"{where} is damaged: its {name} is {quote(copy.get(name))}, which builds nothing")
    if not isinstance(copy["problem"].get("modules"), dict):
        raise UserError(f"{where} is damaged: it has no modules")
    return copy


def _composed(problem: str) -> dict[str, Any]:
    composed = OmegaConf.to_container(compose("environment", [f"problem={problem}"]), resolve=True)
    assert isinstance(composed, dict)
    return {name: composed[name] for name in (*_PARTS, _PRIMITIVE)}
