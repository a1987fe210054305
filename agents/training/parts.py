"""The parts of a training that its configuration names: the objective, further losses and augmentations."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from multiravens.agents.training.losses import Loss, Losses
from multiravens.agents.training.objectives import Objective, OwnTerms
from multiravens.data.training.augmentation import Augmentation
from multiravens.errors import UserError, quote
from multiravens.options.instantiate import check, instantiate


def make_objective(config: Mapping[str, Any]) -> Objective:
    """Objective of an agent; its network's own terms where it names none."""
    node = config["agent"].get("objective")
    objective: Objective = OwnTerms() if node is None else _made(node, "agent.objective", Objective)
    return objective


def make_losses(config: Mapping[str, Any], network: nn.Module) -> Losses:
    """The losses of `loss`, made for a network."""
    return Losses({name: _made(node, path, Loss, network) for name, path, node in _each(config, "loss")})


def make_augmentations(config: Mapping[str, Any]) -> dict[str, Augmentation]:
    """The augmentations of `augmentation`, in their order."""
    return {name: _made(node, path, Augmentation) for name, path, node in _each(config, "augmentation")}


def _each(config: Mapping[str, Any], group: str) -> Iterator[tuple[str, str, Any]]:
    """Name, path and node of a group's parts; null leaves one out."""
    for name, node in (config[group] or {}).items():
        if not name.isidentifier():
            raise UserError(f"{group} has a part {quote(name)}: names are letters, digits and _")
        if node is not None:
            yield name, f"{group}.{name}", node


def _made(node: Any, path: str, kind: type, *arguments: Any) -> Any:
    """Make a part, and see that it is one.

    Raises:
        UserError: it is none, or its class refuses a value.
    """
    if not isinstance(node, Mapping) or "_target_" not in node:
        raise UserError(f"{path}={quote(node)}: give a class by _target_, and its options")
    check(node, None, path)
    made = instantiate(node)
    if arguments:
        if not callable(made) or isinstance(made, nn.Module):
            raise UserError(f"{path} is made by its run: give _partial_: true beside its _target_")
        try:
            made = made(*arguments)
        except ValueError as error:
            raise UserError(f"{path}: {error}") from error
    if not isinstance(made, kind):
        raise UserError(f"{path} makes a {type(made).__name__}: give a class of {kind.__module__}.{kind.__name__}")
    return made
