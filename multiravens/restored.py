"""The environment that a problem is measured in: the one its demonstrations were made in, and what is changed of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from multiravens.configuration import changed, compose
from multiravens.errors import UserError
from multiravens.runs import TRUSTED, foreign_targets, refuse_interpolation

_PARTS = ("problem", "camera", "motion")


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
        return changed(_composed(problem), overrides)
    if "camera" not in own:
        raise UserError(
            f"the demonstrations of {problem} come from elsewhere, so there is no simulation of it to measure in: give "
            "problems=[...] of ours, or add a task module"
        )
    refuse_foreign(own, problem)
    return changed(own, overrides)


def refuse_foreign(environment: Mapping[str, Any], problem: str) -> None:
    """A run's folder may come from anywhere, so what it names is not built unless it is ours or the user's.

    Raises:
        UserError: it names something else.
    """
    refuse_interpolation(environment, f"the run's {problem}")
    foreign = {str(target) for target in foreign_targets(environment)}
    if not foreign:
        return
    try:
        trusted = {str(target) for target in foreign_targets(_composed(problem))}
    except UserError:
        trusted = set()  # the user has no such problem
    for target in sorted(foreign - trusted):
        raise UserError(
            f"the run's {problem} is built by {target}, which is not a class of {TRUSTED}*: if it is of a module of "
            "yours, give --config-dir with the folder of its YAML"
        )


def _composed(problem: str) -> dict[str, Any]:
    composed = OmegaConf.to_container(compose("environment", [f"problem={problem}"]), resolve=True)
    assert isinstance(composed, dict)
    return {name: composed[name] for name in _PARTS}
