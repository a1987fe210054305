"""Training of what a problem has of its own: parts of its programs, and its scales and biases of shared layers.

Reference: Zhmoginov et al. 2107.10963 (order alone); Mudrakarta et al. 1810.10703 (the model patch alone).
"""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

from multiravens.agents.adaptation.method import Teaching
from multiravens.agents.networks.modular.program import Program
from multiravens.agents.networks.patched import TaskAffine
from multiravens.agents.networks.transporter import Transporter
from multiravens.errors import unknown

AFFINE = "affine"


class TrainParts(Teaching):
    """Trains some parts of the new problem's programs; all else stays as it is.

    Args:
        trains: names of parts; `affine` takes the problem's scales and biases of shared layers, too.
        **options: as of `Teaching`.
    """

    def __init__(self, trains: Sequence[str], **options: Any) -> None:
        super().__init__(**options)
        self.trains = trains

    def trained(self, network: Transporter, problem: str) -> Iterator[nn.Parameter]:
        """Those of the parts.

        Raises:
            UserError: the programs lack one.
        """
        for module in (module for own in network.own(problem) for module in own.modules()):
            if isinstance(module, TaskAffine) and AFFINE in self.trains:
                yield from module.parameters()
            elif isinstance(module, Program):
                for part in self.trains:
                    if part not in module:
                        raise unknown(f"part of {problem}'s programs", part, module)
                    yield from module[part].parameters()
