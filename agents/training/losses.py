"""Losses beside the one of an agent itself, such as of an auxiliary head."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from multiravens.agents.networks.network import Terms
from multiravens.data.storage.episode import Episode
from multiravens.data.training.demonstrations import Batch
from multiravens.errors import UserError

OF_A_LINE = ("step", "learning_rate", "drawn", "programs", "started")
"""Names in a line of metrics that are no figures'."""


class Loss(nn.Module, ABC):
    """One more loss; its parameters are trained with the network and saved with the run, and no agent has them.

    It is made as `Class(network, **options)`, with the network that it is of.

    Attributes:
        weight: in the sum that is minimised.
    """

    weight: float = 1.0

    def labels(self, episode: Episode) -> np.ndarray | None:
        """Labels (T, ..) of a demonstration's T steps, where the loss needs some that `Batch` lacks."""
        return None

    @abstractmethod
    def forward(self, output: Any, batch: Batch, labels: Tensor | None) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Compute the loss of N samples, and figures that are told beside it.

        Args:
            output: of the network; of a Transporter `NetworkOutput`.
            batch: the samples, as the network has seen them.
            labels: (N, ..) of these samples; None where there are none.

        Returns:
            (N,) of each sample, before its weight; and figures (N,) by name.
        """


class Losses(nn.Module):
    """Several losses, each by its name.

    Args:
        losses: by name.
    """

    def __init__(self, losses: Mapping[str, Loss]) -> None:
        super().__init__()
        self.names = list(losses)
        # The dictionary's own attributes are no names that it takes.
        self.losses = nn.ModuleDict({f"loss_{name}": loss for name, loss in losses.items()})

    def each(self) -> dict[str, Loss]:
        """The losses by name."""
        return dict(zip(self.names, self.losses.values(), strict=True))  # type: ignore[arg-type]

    def labels(self) -> dict[str, Callable[[Episode], Any]]:
        """Functions that label a demonstration, of the losses that have some."""
        return {name: loss.labels for name, loss in self.each().items() if type(loss).labels is not Loss.labels}

    def forward(self, output: Any, batch: Batch) -> Terms:
        """Losses before their weights, and figures as `NAME_FIGURE`."""
        losses, figures = dict[str, Tensor](), dict[str, Tensor]()
        for name, loss in self.each().items():
            losses[name], own = loss(output, batch, batch.labels.get(name))
            figures |= {f"{name}_{key}": value.detach() for key, value in own.items()}
        return Terms(losses, figures)


def joined(own: Terms, more: Terms, samples: int) -> Terms:
    """An agent's own terms and those of further losses, and no output of the network, which takes memory.

    Raises:
        UserError: two are called alike in a line of metrics, one is not a number for each sample, or there is none.
    """
    named = [*_named(own), *_named(more)]
    known = Counter([*(name for name, _ in named), *OF_A_LINE])
    for name, value in named:
        if known[name] > 1:
            raise UserError(f"two figures of a step are called {name}: call the one of your own by another name")
        if value.shape != (samples,):
            raise UserError(f"{name} has shape {list(value.shape)}: give one number for each sample, [{samples}]")
    if not named:
        raise UserError("the agent gives neither losses nor figures of its samples: give one at least")
    return Terms({**own.losses, **more.losses}, {**own.figures, **more.figures}, own.penalty)


def _named(terms: Terms) -> list[tuple[str, Tensor]]:
    """Losses and figures by their names in a line of metrics."""
    return [*((f"loss_{name}", value) for name, value in terms.losses.items()), *terms.figures.items()]
