"""Environments: the fifteen named problems and any other composition of task modules."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from multiravens.configuration import compose
from multiravens.construction import instantiate
from multiravens.envs.action import Action, transport
from multiravens.envs.environment import PickPlaceEnv
from multiravens.envs.module import SubGoal, TaskModule
from multiravens.envs.oracle import Demonstration, GoalSequence, demonstrate, goal_sequence
from multiravens.envs.problem import Problem
from multiravens.envs.region import PlacementError, Region
from multiravens.registration import PROBLEMS

__all__ = [
    "PROBLEMS",
    "Action",
    "Demonstration",
    "GoalSequence",
    "PickPlaceEnv",
    "PlacementError",
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


def from_config(config: DictConfig) -> PickPlaceEnv:
    """Build the environment that a configuration describes by `problem`, `camera`, `motion`, `resolution` and `gui`.

    Raises:
        UserError: a value that the constructors refuse.
    """
    return PickPlaceEnv(
        instantiate(config.problem),
        instantiate(config.camera),
        instantiate(config.motion),
        resolution=config.resolution,
        gui=config.gui,
    )


def make(
    problem: str = "chaining-placing",
    overrides: Sequence[str] = (),
    config_dirs: Sequence[str | Path] = (),
    **choices: Any,
) -> PickPlaceEnv:
    """Build an environment by name, as the commands do.

    Args:
        problem: one of `PROBLEMS`, or any modules' names joined by hyphens.
        overrides: as on the command line, such as `problem.modules.placing.parts=5`.
        config_dirs: folders with YAML of one's own, such as DIR/module/sorting.yaml.
        **choices: shorthand for overrides, such as `camera="realsense"` or `resolution="half"`.

    Raises:
        UserError: an unknown name or a value that is refused.
    """
    words = [f"problem={problem}", *(f"{key}={value}" for key, value in choices.items()), *overrides]
    config = compose("environment", words, config_dirs)
    OmegaConf.resolve(config)
    return from_config(config)
