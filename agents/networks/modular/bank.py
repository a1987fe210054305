"""A bank of residual blocks of one shape, whose parameters programs choose, mix and adjust.

Reference: Zhmoginov et al. 2107.10963 (blocks reused in any order).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

GROUPS = 8
"""Of the normalisations, at full width."""


class Layer(NamedTuple):
    """A group normalisation, a ReLU and a 3 x 3 convolution of T programs at each of L steps.

    Attributes:
        gain: (L, T * I) of the normalisation, I channels in.
        shift: (L, T * I) of the normalisation.
        weight: (L, T * O, I, 3, 3) of the convolution, O channels out.
        offset: (L, T * O) of the convolution.
    """

    gain: Tensor
    shift: Tensor
    weight: Tensor
    offset: Tensor


class Blocks(NamedTuple):
    """The blocks that T programs run, one at each of L steps: what their two layers compute is added to what comes in.

    Attributes:
        first: from C channels to those inside the block.
        second: back to C channels.
    """

    first: Layer
    second: Layer

    @classmethod
    def of(cls, weight: Tensor, offset: Tensor, gain: Tensor, shift: Tensor) -> "Blocks":
        """Take both layers from tensors (L, 2, ...)."""
        both = zip(gain.unbind(1), shift.unbind(1), weight.unbind(1), offset.unbind(1), strict=True)
        return cls(*(Layer(*each) for each in both))


class Bank(nn.Module):
    """K blocks that take their parameters as arguments: the identity at first, as `isometric.ResidualBlock`.

    Args:
        blocks: K.
        width: C, channels in and out, a multiple of 8.
    """

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        bound = (9 * width) ** -0.5
        first = torch.empty(blocks, width, width, 3, 3).uniform_(-bound, bound)
        self.weight = nn.Parameter(torch.stack([first, torch.zeros_like(first)], dim=1))
        self.offset = nn.Parameter(torch.zeros(blocks, 2, width))
        self.gain = nn.Parameter(torch.ones(blocks, 2, width))
        self.shift = nn.Parameter(torch.zeros(blocks, 2, width))

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Parameters of all blocks, (K, 2, ...) each: weight, offset, gain, shift."""
        return self.weight, self.offset, self.gain, self.shift

    def in_order(self, order: Sequence[int]) -> Blocks:
        """Take the blocks that one program runs, by number."""
        return Blocks.of(*(torch.stack([tensor[block] for block in order]) for tensor in self.tensors()))

    def mixed(self, shares: Tensor) -> Blocks:
        """Mix the blocks' parameters in shares (L, K), for each of L steps of one program."""
        return Blocks.of(*(torch.tensordot(shares, tensor, 1) for tensor in self.tensors()))
