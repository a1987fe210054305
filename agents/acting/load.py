"""Building agents from configurations and from run folders."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from multiravens.actions import ActionSpec
from multiravens.agents.acting.agent import Action, View
from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.acting.options import Acting
from multiravens.agents.acting.policy import NetworkAgent
from multiravens.agents.networks.checkpoint import fill, read_tensors
from multiravens.agents.networks.network import Network, NetworkSpec
from multiravens.data.training.demonstrations import FACTORS
from multiravens.errors import UserError, quote, unknown
from multiravens.geometry import SHAPE
from multiravens.heightmap import at_resolution
from multiravens.options.annotations import check_declared
from multiravens.options.instantiate import instantiate
from multiravens.picture_checks import check_color, check_height, check_table
from multiravens.support.runs import CONFIG, WEIGHTS, find_run, read_config
from multiravens.support.shards import find_shards

_DECLARED: dict[str, Any] = {
    "agent.name": str,
    "agent.conditioning": Conditioning,
    "agent.network": Callable[..., Any],
    "agent.policy": Callable[..., Any] | None,
    "problems": list[str] | None,
    "resolution": str,
    "pointer": str,
}
"""Types of what every agent is built of."""
_BYTES = 8
"""Of a number in a file of weights at most."""


def build(config: Mapping[str, Any]) -> tuple[Network, Conditioning]:
    """Make a network and its conditioning.

    Args:
        config: of a run: `agent`, `problems`, `resolution`, what its network is made of, and `action`, the fields that
            it learns, where they are not those of picking and placing.

    Raises:
        UserError: a value that is refused.
    """
    if config["resolution"] not in FACTORS:
        raise unknown("resolution", str(config["resolution"]), FACTORS)
    rows, columns = (side // FACTORS[config["resolution"]] for side in SHAPE)
    conditioning: Conditioning = instantiate(config["agent"]["conditioning"])
    problems = list(config["problems"] or ["placing"])
    make = instantiate(config["agent"]["network"])
    if not isinstance(make, partial):
        raise UserError("agent.network is made by its run: give _partial_: true beside its _target_")
    try:
        action = ActionSpec.parse(config.get("action"))
        network = make(NetworkSpec(conditioning.images, (rows, columns), problems, config, action))
    except ValueError as error:
        raise UserError(str(error)) from error
    if not isinstance(network, Network):
        raise UserError(f"agent.network makes a {type(network).__name__}: give a class of {Network.__module__}.Network")
    refuse_other_primitive(network, action)
    network.action = action
    return network, conditioning


def refuse_other_primitive(network: Network, action: ActionSpec) -> None:
    """Refuse actions that a network can't learn.

    Raises:
        UserError: they are of another primitive.
    """
    if network.primitive not in (None, action.name):
        raise UserError(
            f"{type(network).__name__} learns actions of {network.primitive}, and these are of {action}: "
            f"give an agent whose network is a Learner with primitive = {action.name!r}"
        )


def load_agent(
    run: str | Path,
    device: str = "cpu",
    **acting: Any,
) -> NetworkAgent:
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
    network.settle()
    policy = instantiate(config["agent"]["policy"]) if config["agent"]["policy"] else NetworkAgent
    name = str(config["agent"]["name"])
    agent: NetworkAgent = policy(network, conditioning, name, config["resolution"], chosen, device)
    return agent


def read_agent(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a run's configuration and weights, which may come from anywhere; nothing large is built before they fit.

    Raises:
        UserError: the folder is not a run's, or a value or a weight is missing, damaged, too large or not finite.
    """
    config = read_config(folder)
    check_declared(config, _DECLARED, folder / CONFIG)
    with torch.device("meta"):  # takes no memory
        network, _ = build(config)
    _check_file_sizes(network, folder)
    tensors, _ = read_tensors(folder / WEIGHTS)
    _check_finite(network, tensors, folder / WEIGHTS)
    return config, tensors


def _check_file_sizes(network: Network, folder: Path) -> None:
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


def _check_finite(network: Network, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse weights that are no finite numbers; of hardened programs, steps rule out all blocks but one by -inf."""
    orders = {id(parameter) for parameter in network.mixing_logits()}
    logits = {name for name, parameter in network.named_parameters() if id(parameter) in orders}
    whole = {name for name, tensor in network.state_dict().items() if not tensor.is_floating_point()}
    for name, tensor in tensors.items():
        checked = tensor.amax(-1) if name in logits and tensor.numel() else tensor
        if tensor.is_floating_point() == (name in whole) or tensor.isnan().any() or not checked.isfinite().all():
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

    def __init__(self, agent: NetworkAgent, problem: str = "") -> None:
        agent.network.index(problem)
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
            spec=self.agent.network.action,
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
