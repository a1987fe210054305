"""A narrow way round each block's convolutions.

Reference: Puigcerver et al. 2009.13239 (adapters of experts).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.networks.modular.program import Own, ProgramPart, Size


class Adapter(ProgramPart):
    """Two 1 x 1 convolutions beside each block, a ReLU between them; they add nothing at first.

    Args:
        rank: r, channels between them.

    Raises:
        ValueError: rank is below 1.
    """

    def __init__(self, rank: int = 4) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank={rank}: give 1 or more")
        self.rank = rank

    def make(self, size: Size) -> nn.Module:
        """Make `down`, (L, r, C), and `up`, (L, C, r)."""
        steps, width = size.steps, size.width
        down = torch.randn(steps, self.rank, width) * width**-0.5
        return nn.ParameterDict({"down": down, "up": torch.zeros(steps, width, self.rank)})

    def residual(self, x: Tensor, y: Tensor, own: Own) -> Tensor:
        """Add what comes through the two convolutions."""
        narrow, made = (own[name].flatten(0, 1)[..., None, None] for name in ("down", "up"))
        inside = functional.relu(functional.conv2d(x.flatten(1, 2), narrow, groups=x.shape[1]))
        return y + functional.conv2d(inside, made, groups=x.shape[1]).view_as(y)
