"""Blocks that use some of their inner channels.

Reference: Aich et al. 2308.11744 (slimmable networks).
"""

from torch import Tensor, nn

from multiravens.agents.networks.modular.bank import GROUPS, Blocks, Layer
from multiravens.agents.networks.modular.program import Own, ProgramPart, Size


class Width(ProgramPart):
    """Every block uses the first of its inner channels, and is as much cheaper.

    Args:
        inside: channels that are used, a multiple of an eighth of the block's.
    """

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.inside = inside

    def make(self, size: Size) -> nn.Module:
        """Hold nothing.

        Raises:
            ValueError: the block has fewer channels, or a group of its normalisation would be parted.
        """
        if not 0 < self.inside <= size.width or self.inside * GROUPS % size.width:
            raise ValueError(f"inside={self.inside}: give a multiple of {size.width // GROUPS}, up to {size.width}")
        return nn.ParameterDict()

    def adjust(self, blocks: Blocks, own: Own) -> Blocks:
        """Leave the channels out that come after the first ones."""
        first, (gain, shift, weight, offset) = blocks
        inner = Layer(first.gain, first.shift, *(self._narrow(each, weight.shape[2]) for each in first[2:]))
        gain, shift = (self._narrow(each, weight.shape[2]) for each in (gain, shift))
        return Blocks(inner, Layer(gain, shift, weight[:, :, : self.inside], offset))

    def _narrow(self, tensor: Tensor, width: int) -> Tensor:
        """(L, T * C, ...) to (L, T * inside, ...)."""
        return tensor.unflatten(1, (-1, width))[:, :, : self.inside].flatten(1, 2)
