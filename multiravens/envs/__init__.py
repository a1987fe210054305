"""Environments: the fifteen named problems and any other composition of task modules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from multiravens.actions import ActionField, ActionSpec
from multiravens.envs.action import Action, transport
from multiravens.envs.environment import PickPlaceEnv
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.oracle import Demonstration, GoalSequence, demonstrate, goal_sequence
from multiravens.envs.primitive import PickPlace, Primitive
from multiravens.envs.problem import Problem
from multiravens.envs.region import PlacementError, Region
from multiravens.errors import UserError
from multiravens.options.compose import compose
from multiravens.options.instantiate import instantiate
from multiravens.registration import PROBLEMS

__all__ = [
    "PROBLEMS",
    "Action",
    "ActionField",
    "ActionSpec",
    "Demonstration",
    "GoalSequence",
    "PickPlace",
    "PickPlaceEnv",
    "PlacementError",
    "Primitive",
    "Problem",
    "Region",
    "SubGoal",
    "TaskModule",
    "demonstrate",
    "from_config",
    "goal_sequence",
    "make",
    "transport",
]


def from_config(config: DictConfig, render_mode: str | None = None) -> PickPlaceEnv:
    """Build the environment of a configuration: `problem`, `camera`, `motion`, `primitive`, `resolution` and `gui`.

    Args:
        config: composed; `gui` opens Bullet's viewer, as the render mode `human` does. Without a `primitive` it picks
            and places, as the environments of data sets that name none do.
        render_mode: as of `PickPlaceEnv`.

    Raises:
        UserError: a value that the constructors refuse, or two render modes.
    """
    if config.gui and render_mode not in (None, "human"):
        raise UserError(f"gui=true is the render mode 'human', and render_mode={render_mode!r}: give one of them")
    return PickPlaceEnv(
        instantiate(config.problem),
        instantiate(config.camera),
        instantiate(config.motion),
        resolution=config.resolution,
        render_mode=render_mode or ("human" if config.gui else None),
        primitive=instantiate(config.primitive) if "primitive" in config else None,
    )


def make(
    problem: str = "chaining-placing",
    overrides: str | Sequence[str] = (),
    config_dirs: str | Path | Sequence[str | Path] = (),
    render_mode: str | None = None,
    **choices: Any,
) -> PickPlaceEnv:
    """Build an environment by name, as the commands do; several threads may.

    Args:
        problem: one of `PROBLEMS`, or any modules' names joined by hyphens.
        overrides: as on the command line, such as `problem.modules.placing.parts=5`.
        config_dirs: folders with YAML of one's own, such as DIR/module/sorting.yaml.
        render_mode: `rgb_array` for pictures of the scene by `render`, `human` for Bullet's viewer, or None.
        **choices: the same options as Python values, such as `camera="realsense"`, `resolution="half"` or
            `**{"problem.modules.placing.shapes": [{"mesh": Path("bracket.stl"), "scale": 0.001}]}`.

    Raises:
        UserError: an unknown name or a value that is refused.
    """
    words = [overrides] if isinstance(overrides, str) else overrides
    config = compose("environment", words, config_dirs, {"problem": problem, **choices})
    return from_config(config, render_mode)


make.metadata = PickPlaceEnv.metadata  # type: ignore[attr-defined]  # where gymnasium looks for render modes
