"""Building agents from configurations and from run folders."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from multiravens.agents.acting.agent import Action, View
from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.acting.options import Acting
from multiravens.agents.acting.policy import TransporterAgent
from multiravens.agents.networks.checkpoint import fill, read_tensors
from multiravens.agents.networks.transporter import CHANNELS, SplitStreams, Transporter
from multiravens.data.training.demonstrations import FACTORS
from multiravens.errors import UserError, quote, unknown
from multiravens.geometry import PIXEL, SHAPE
from multiravens.heightmap import at_resolution
from multiravens.options.annotations import wanted
from multiravens.options.instantiate import instantiate
from multiravens.options.types import flatten
from multiravens.picture_checks import check_color, check_height, check_table
from multiravens.support.runs import CONFIG, WEIGHTS, find_run, read_config
from multiravens.support.shards import find_shards

_DECLARED: dict[str, Any] = {
    "agent.name": str,
    "agent.conditioning": Conditioning,
    "agent.features": int,
    "agent.cell": float,
    "agent.reach": float,
    "agent.crop": float,
    "agent.rotations": int,
    "backbone.network": Callable[..., Any],
    "backbone.streams": Callable[..., Any] | None,
    "fusion": Callable[..., Any],
    "problems": list[str] | None,
    "resolution": str,
    "pointer": str,
}
"""Types of what an agent is built of."""
_MOST_PARTS = 1024
"""Channels, blocks or steps of a network; a thousand blocks take seconds to build, and no network here has fifty."""
_MOST_TURNS, _LARGEST_SQUARE = 360, 0.5
"""Turns told apart, and side [m] of a square that is turned, half the table: what memory they take, no weight tells."""
_BYTES = 8
"""Of a number in a file of weights at most."""


def build(config: Mapping[str, Any]) -> tuple[Transporter, Conditioning]:
    """Make a network and its conditioning.

    Args:
        config: of a run: `agent`, `fusion`, `backbone`, `problems` and `resolution`.

    Raises:
        UserError: a value that is refused.
    """
    agent, backbone = config["agent"], config["backbone"]
    _check_parts(config)
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


def _check_parts(config: Mapping[str, Any]) -> None:
    """Refuse numbers that would make a network larger than any is."""
    sizes = flatten({name: config[name] for name in ("agent", "backbone", "fusion")})
    for path, value in sizes:
        if type(value) is int and value > _MOST_PARTS:
            raise UserError(f"{path}={value}: give at most {_MOST_PARTS}")


def _check_sizes(agent: Mapping[str, Any], stride: int, factor: int) -> None:
    for name in ("features", "rotations"):
        if not agent[name] >= 1:
            raise UserError(f"agent.{name}={agent[name]}: give 1 or more")
    if agent["rotations"] > _MOST_TURNS:
        raise UserError(f"agent.rotations={agent['rotations']}: give at most {_MOST_TURNS}")
    for name in ("cell", "reach", "crop"):
        if not 0 < agent[name] <= _LARGEST_SQUARE:
            raise UserError(f"agent.{name}={agent[name]}: give more than 0 and at most {_LARGEST_SQUARE} [m]")
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
    device: str = "cpu",
    **acting: Any,
) -> TransporterAgent:
    """The agent that a run trained.

    Args:
        run: the run's folder.
        device: where its network computes.
        **acting: options of `Acting` instead of what the run was configured with; None for what it was.

    Raises:
        UserError: the folder is not a run's, its checkpoint does not fit, or an option of acting can't be met.
    """
    folder = find_run(run)
    config, tensors = read_agent(folder)
    chosen = Acting.of(config, acting)
    network, conditioning = build(config)
    fill(network, tensors, folder / WEIGHTS)
    network.streams.settle()
    return TransporterAgent(network, conditioning, str(config["agent"]["name"]), config["resolution"], chosen, device)


def read_agent(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a run's configuration and weights, which may come from anywhere; nothing large is built before they fit.

    Raises:
        UserError: the folder is not a run's, or a value or a weight is missing, damaged, too large or not finite.
    """
    config = read_config(folder)
    _check_types(config, folder / CONFIG)
    with torch.device("meta"):  # takes no memory
        network, _ = build(config)
    _check_file_sizes(network, folder)
    tensors, _ = read_tensors(folder / WEIGHTS)
    _check_finite(network, tensors, folder / WEIGHTS)
    return config, tensors


def _check_types(config: Mapping[str, Any], path: Path) -> None:
    """Refuse a run's configuration that lacks what an agent is built of, or has something else there."""
    for name, annotation in _DECLARED.items():
        found: Any = config
        for step in name.split("."):
            if not isinstance(found, Mapping) or step not in found:
                raise UserError(f"{path} lacks a value or has a wrong one: there is no {name}")
            found = found[step]
        if text := wanted(found, annotation):
            raise UserError(f"{path} lacks a value or has a wrong one: {name} is {quote(found)}, not {text}")


def _check_file_sizes(network: Transporter, folder: Path) -> None:
    """Refuse weights of another size than the configured network's, before memory is taken for either."""
    tensors = network.state_dict()
    count = sum(tensor.numel() for tensor in tensors.values())
    held = sum(path.stat().st_size for path in find_shards(folder / WEIGHTS))
    named = sum(len(name) + 200 for name in tensors) + 2**16  # of the header
    if held and not count <= held <= _BYTES * count + named:
        raise UserError(
            f"{folder / WEIGHTS} has {held} bytes, and the configured network has {count} parameters: the checkpoint "
            f"is cut short, or of another network; check {CONFIG} beside it"
        )


def _check_finite(network: Transporter, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are no finite numbers; of hardened programs, steps rule out all blocks but one by -inf."""
    orders = {id(parameter) for parameter in network.streams.mixing_logits()}
    logits = {name for name, parameter in network.named_parameters() if id(parameter) in orders}
    for name, tensor in tensors.items():
        checked = tensor.amax(-1) if name in logits and tensor.numel() else tensor
        if not tensor.is_floating_point() or tensor.isnan().any() or not checked.isfinite().all():
            raise UserError(
                f"{path} holds numbers in {quote(name)} that are not finite: an agent would act at random; train "
                "again, or take an earlier checkpoint"
            )


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
        color: ArrayLike,
        height: ArrayLike,
        goals: Sequence[tuple[ArrayLike, ArrayLike]] = (),
    ) -> Action:
        """The next action.

        Args:
            color: (320, 160, 3) uint8 heightmap of the table now.
            height: (320, 160) float32 height above the table, 0 to 0.65535 [m].
            goals: such a pair for every sub-goal, in order; none for an agent that is shown no goal.

        Raises:
            ValueError: a picture has another shape, type or range, or there is no goal. The episode stands as it did.
        """
        needed = self.agent.conditioning.images > 0
        if needed and not len(goals):
            raise ValueError("goals is empty: give one (color, height) pair a sub-goal, in order")
        now = self._picture("", color, height)
        targets = [self._goal(index, pair) for index, pair in enumerate(goals)] if needed else []
        start = self._start or now
        view = View(
            *now,
            *start,
            np.array([target[0] for target in targets], np.uint8).reshape(-1, *now[0].shape),
            np.array([target[1] for target in targets], np.float32).reshape(-1, *now[1].shape),
            step=self._steps,
            pointer=None,
            seed=0,
            problem=self.problem,
            memory=self._memory,
        )
        action = self.agent.act([view], batch=1)[0]
        self._start, self._steps = start, self._steps + 1
        return action

    def _goal(self, index: int, pair: object) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ValueError(f"goals[{index}] must be a pair of color and height: give one pair a sub-goal, in order")
        return self._picture(f"goals[{index}] ", *pair)

    def _picture(self, name: str, color: ArrayLike, height: ArrayLike) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        colors, heights = check_color(f"{name}color", color), check_height(f"{name}height", height)
        check_table(f"{name}height", heights)
        return at_resolution(colors, heights, self.agent.resolution)


def load(run: str | Path, problem: str = "", device: str = "cpu") -> Deployed:
    """A trained agent, ready for a robot: `load(run).act(color, height, goals)`, without goals where it is shown none.

    Args:
        run: the run's folder.
        problem: that it is set to; only an agent with programs for several needs it.
        device: where its network computes.

    Raises:
        UserError: the folder is not a run's, its checkpoint does not fit, or it does not know the problem.
    """
    return Deployed(load_agent(run, device, pointer="visual"), problem)
