"""Building agents from configurations and from run folders."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from multiravens.agents.agent import Action, View
from multiravens.agents.checkpoint import fill, read_tensors
from multiravens.agents.conditioning import Conditioning
from multiravens.agents.policy import POINTERS, TransporterAgent
from multiravens.agents.transporter import CHANNELS, SplitStreams, Transporter
from multiravens.construction import instantiate
from multiravens.data.demonstrations import FACTORS
from multiravens.errors import UserError, unknown
from multiravens.geometry import PIXEL, SHAPE
from multiravens.heightmap import at_resolution
from multiravens.runs import CONFIG, WEIGHTS, find_run, read_config


def build(config: Mapping[str, Any]) -> tuple[Transporter, Conditioning]:
    """Make a network and its conditioning.

    Args:
        config: of a run: `agent`, `fusion`, `backbone`, `problems` and `resolution`.

    Raises:
        UserError: a value that is refused.
    """
    agent, backbone = config["agent"], config["backbone"]
    if config["resolution"] not in FACTORS:
        raise unknown("resolution", str(config["resolution"]), FACTORS)
    conditioning: Conditioning = instantiate(agent["conditioning"])
    fusion = backbone["streams"] or config["fusion"]
    if backbone["streams"] and instantiate(config["fusion"]).func is SplitStreams:
        raise UserError("this backbone brings its own streams, with stacked goals: use fusion=stack, or backbone=small")
    network, made = instantiate(backbone["network"]), list[nn.Module]()

    def noted(*arguments: Any, **options: Any) -> nn.Module:
        made.append(network(*arguments, **options))
        return made[-1]

    try:
        streams = instantiate(fusion)(
            backbone=noted,
            goals=conditioning.images,
            features=agent["features"],
            problems=config["problems"] or ["placing"],
        )
    except ValueError as error:
        raise UserError(str(error)) from error
    for stride in sorted({_stride(each) for each in made} or {1}):
        _check_sizes(agent, stride, FACTORS[config["resolution"]])
    pixel = PIXEL * FACTORS[config["resolution"]]
    cell, crop = max(round(agent["cell"] / pixel), 1), max(round(agent["crop"] / pixel), 1)
    reach = max(round(agent["reach"] / pixel / cell), 1)
    channels = CHANNELS * (1 + conditioning.images)
    return Transporter(streams, channels, crop, agent["rotations"], cell, reach), conditioning


def _stride(network: nn.Module) -> int:
    """Side of a network's patches [pixels], by its attribute: its configuration may leave that to a default."""
    stride = getattr(network, "stride", 1)
    return stride if isinstance(stride, int) else 1  # a convolution has a pair


def _check_sizes(agent: Mapping[str, Any], stride: int, factor: int) -> None:
    for name in ("features", "rotations"):
        if not agent[name] >= 1:
            raise UserError(f"agent.{name}={agent[name]}: give 1 or more")
    for name in ("cell", "reach", "crop"):
        if not agent[name] > 0:
            raise UserError(f"agent.{name}={agent[name]}: give more than 0 [m]")
    sides = [side // factor for side in SHAPE]
    cell = max(round(agent["cell"] / (PIXEL * factor)), 1)
    if stride < 1 or any(side % stride for side in sides):
        raise UserError(f"backbone.network.stride={stride}: give a divisor of {sides[0]} and {sides[1]}")
    if cell % stride or any(side % cell for side in sides):
        raise UserError(
            f"agent.cell={agent['cell']} is {cell} pixels: give a multiple of the stride, {stride}, that divides "
            f"{sides[0]} and {sides[1]}"
        )


def load_agent(
    run: str | Path,
    pointer: str | None = None,
    device: str = "cpu",
    inhibition: float | None = None,
    patience: int | None = None,
) -> TransporterAgent:
    """The agent that a run trained.

    Args:
        run: the run's folder.
        pointer: `reward` or `visual` instead of what the run was configured with.
        device: where its network computes.
        inhibition: of `TransporterAgent`, instead of what the run was configured with; older runs have none.
        patience: likewise.

    Raises:
        UserError: the folder is not a run's, its checkpoint does not fit, the pointer is unknown, or inhibition or
            patience is below 0.
    """
    folder = find_run(run)
    config = read_config(folder)
    try:
        network, conditioning = build(config)
        chosen, name = pointer or config["pointer"], str(config["agent"]["name"])
        weight = config["inhibition"] if inhibition is None else inhibition
        tries = config["patience"] if patience is None else patience
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} lacks a value or has a wrong one: {error}") from error
    if chosen not in POINTERS:
        raise unknown("pointer", str(chosen), POINTERS)
    check_acting(weight, tries)
    tensors, _ = read_tensors(folder / WEIGHTS)
    fill(network, tensors, folder / WEIGHTS)
    network.streams.settle()
    return TransporterAgent(network, conditioning, name, config["resolution"], chosen, device, float(weight), tries)


def check_acting(inhibition: object, patience: object) -> None:
    """Refuse an inhibition that is no weight, or a patience that is no number of tries.

    Raises:
        UserError: one is none.
    """
    if not isinstance(inhibition, int | float) or not 0 <= inhibition < np.inf:
        raise UserError(f"inhibition={inhibition}: give 0 or more")
    if not isinstance(patience, int) or patience < 0:
        raise UserError(f"patience={patience}: give 0 or more tries")


class Deployed:
    """An agent on a real robot: pictures in, action out, no simulator and no reward.

    Args:
        agent: follows the visual pointer.
        problem: that it is set to.

    Raises:
        UserError: the agent does not know the problem.
    """

    def __init__(self, agent: TransporterAgent, problem: str = "") -> None:
        agent.network.streams.index(problem)
        self.agent, self.problem = agent, problem
        self.reset()

    def reset(self) -> None:
        """Begin a new episode: the next picture is its start."""
        self._start: tuple[NDArray[np.uint8], NDArray[np.float32]] | None = None
        self._steps = 0
        self._memory: dict[int, Any] = {}

    def act(
        self,
        color: NDArray[np.uint8],
        height: NDArray[np.float32],
        goals: Sequence[tuple[NDArray[np.uint8], NDArray[np.float32]]],
    ) -> Action:
        """The next action.

        Args:
            color: (320, 160, 3) uint8 heightmap of the table now.
            height: (320, 160) float32 [m].
            goals: such a pair for every sub-goal, in order.

        Raises:
            ValueError: a picture has another shape, or there is no goal.
        """
        if not goals:
            raise ValueError("goals is empty: give one (color, height) pair a sub-goal, in order")
        now = self._picture("color and height", color, height)
        targets = [self._picture(f"goals[{index}]", *goal) for index, goal in enumerate(goals)]
        start = self._start = self._start or now
        view = View(
            *now,
            *start,
            np.stack([target[0] for target in targets]),
            np.stack([target[1] for target in targets]),
            step=self._steps,
            pointer=None,
            seed=0,
            problem=self.problem,
            memory=self._memory,
        )
        self._steps += 1
        return self.agent.act([view], batch=1)[0]

    def _picture(
        self, name: str, color: NDArray[np.uint8], height: NDArray[np.float32]
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        color, height = np.asarray(color), np.asarray(height, np.float32)
        if color.shape != (320, 160, 3) or color.dtype != np.uint8 or height.shape != (320, 160):
            raise ValueError(
                f"{name} must be (320, 160, 3) uint8 and (320, 160) [m], not {color.shape} {color.dtype} and "
                f"{height.shape}"
            )
        return at_resolution(color, height, self.agent.resolution)


def load(run: str | Path, problem: str = "", device: str = "cpu") -> Deployed:
    """A trained agent, ready for a robot: `load(run).act(color, height, goals)`.

    Args:
        run: the run's folder.
        problem: that it is set to; only an agent with programs for several needs it.
        device: where its network computes.

    Raises:
        UserError: the folder is not a run's, its checkpoint does not fit, or it does not know the problem.
    """
    return Deployed(load_agent(run, "visual", device), problem)
