"""Scales and biases of a step's own, for the shared block that it runs: the model patch.

Reference: Mudrakarta et al. 1810.10703.
"""

import torch
from torch import nn

from multiravens.agents.networks.modular.bank import Blocks
from multiravens.agents.networks.modular.program import Own, ProgramPart, Size


class Affine(ProgramPart):
    """A scale and a bias for each channel of each block's first normalisation; they do nothing at first."""

    def make(self, size: Size) -> nn.Module:
        """Make `scale` and `bias`, (L, C) each."""
        shape = size.steps, size.width
        # Of pairs, which are not sorted: the gradient's norm is rounded by the order of its terms.
        return nn.ParameterDict([("scale", torch.ones(shape)), ("bias", torch.zeros(shape))])

    def adjust(self, blocks: Blocks, own: Own) -> Blocks:
        """Scale and shift what the normalisation gives."""
        first = blocks.first
        gain, shift = first.gain * own["scale"].flatten(1), first.shift + own["bias"].flatten(1)
        return blocks._replace(first=first._replace(gain=gain, shift=shift))
