"""Training of the whole network for the new problem alone: the costly way that others are compared with."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from multiravens.agents.adaptation.method import Teaching
from multiravens.agents.networks.transporter import Transporter
from multiravens.errors import UserError


class TrainEverything(Teaching):
    """Trains all weights, from the known ones; the new run knows the new problem alone."""

    keeps_known = False

    def trained(self, network: Transporter, problem: str) -> Iterator[nn.Parameter]:
        """All there are."""
        return network.parameters()


class TrainFromScratch(TrainEverything):
    """Trains all weights, drawn anew."""

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse an order too: it is of known blocks."""
        super().check(config)
        if config["order"] is not None:
            raise UserError(
                f"order={config['order']} is of known blocks, and train={self.name} forgets them: give one of the two"
            )

    def find_start(
        self, config: Mapping[str, Any], trained: Mapping[str, Any], before: Transporter, problem: str
    ) -> str | None:
        """None is needed."""
        return None

    def begin(self, network: Transporter, before: Transporter, problem: str, started: str | None) -> None:
        """Leave everything as it was drawn."""
