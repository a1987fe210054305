"""The Transporter of a run's configuration."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from multiravens.agents.networks.network import NetworkSpec
from multiravens.agents.networks.transporter import SplitStreams, Transporter
from multiravens.data.training.demonstrations import FACTORS
from multiravens.errors import UserError
from multiravens.geometry import PIXEL
from multiravens.options.annotations import check_declared
from multiravens.options.instantiate import instantiate
from multiravens.options.types import flatten

_DECLARED: dict[str, Any] = {
    "agent.features": int,
    "agent.cell": float,
    "agent.reach": float,
    "agent.crop": float,
    "agent.rotations": int,
    "backbone.network": Callable[..., Any],
    "backbone.streams": Callable[..., Any] | None,
    "fusion": Callable[..., Any],
}
"""Types of what a Transporter is built of."""
_MOST_PARTS = 1024
"""Channels, blocks or steps of a network; a thousand blocks take seconds to build, and no network here has fifty."""
_MOST_TURNS, _LARGEST_SQUARE = 360, 0.5
"""Turns told apart, and side [m] of a square that is turned, half the table: what memory they take, no weight tells."""


def transporter(spec: NetworkSpec) -> Transporter:
    """Make a Transporter of the options `agent`, `backbone` and `fusion`.

    Raises:
        UserError: a value is missing or refused.
    """
    config = spec.config
    check_declared(config, _DECLARED)
    agent, backbone = config["agent"], config["backbone"]
    _check_parts(config)
    fusion = backbone["streams"] or config["fusion"]
    if backbone["streams"] and instantiate(config["fusion"]).func is SplitStreams:
        raise UserError("this backbone brings its own streams, with stacked goals: use fusion=stack, or backbone=small")
    network, made = instantiate(backbone["network"]), list[nn.Module]()

    def noted(*arguments: Any, **options: Any) -> nn.Module:
        made.append(network(*arguments, **options))
        return made[-1]

    streams = instantiate(fusion)(backbone=noted, goals=spec.goals, features=agent["features"], problems=spec.problems)
    factor = FACTORS[config["resolution"]]
    for stride in sorted({_stride(each) for each in made} or {1}):
        _check_sizes(agent, stride, factor, spec.shape)
    pixel = PIXEL * factor
    cell, crop = max(round(agent["cell"] / pixel), 1), max(round(agent["crop"] / pixel), 1)
    reach = max(round(agent["reach"] / pixel / cell), 1)
    return Transporter(streams, spec.channels, crop, agent["rotations"], cell, reach)


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


def _check_sizes(agent: Mapping[str, Any], stride: int, factor: int, sides: tuple[int, int]) -> None:
    for name in ("features", "rotations"):
        if not agent[name] >= 1:
            raise UserError(f"agent.{name}={agent[name]}: give 1 or more")
    if agent["rotations"] > _MOST_TURNS:
        raise UserError(f"agent.rotations={agent['rotations']}: give at most {_MOST_TURNS}")
    for name in ("cell", "reach", "crop"):
        if not 0 < agent[name] <= _LARGEST_SQUARE:
            raise UserError(f"agent.{name}={agent[name]}: give more than 0 and at most {_LARGEST_SQUARE} [m]")
    cell = max(round(agent["cell"] / (PIXEL * factor)), 1)
    if stride < 1 or any(side % stride for side in sides):
        raise UserError(f"backbone.network.stride={stride}: give a divisor of {sides[0]} and {sides[1]}")
    if cell % stride or any(side % cell for side in sides):
        raise UserError(
            f"agent.cell={agent['cell']} is {cell} pixels: give a multiple of the stride, {stride}, that divides "
            f"{sides[0]} and {sides[1]}"
        )
