"""A bank of residual blocks of one shape, and programs that choose the block of each step.

Reference: Zhmoginov et al. 2107.10963 (blocks reused in any order); Mudrakarta et al. 1810.10703 (the model patch).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.errors import UserError

STARTS = ("distinct", "same", "uniform")
GROUPS = 8
STEEPNESS = 5.0
"""Factor on every logit: it makes orders learn this many times faster than weights, or they would stay as drawn."""
PREFERENCE = 1.0 / STEEPNESS
"""Logit of the block that a step starts with: of six it has 0.35 of the share."""


class Part(NamedTuple):
    """Parameters of one block, or a mixture of several blocks'. C channels.

    Attributes:
        weight: (2, C, C, 3, 3) of its convolutions.
        offset: (2, C) of its convolutions.
        gain: (2, C) of its group normalisations.
        shift: (2, C) of its group normalisations.
    """

    weight: Tensor
    offset: Tensor
    gain: Tensor
    shift: Tensor


class Adapter(NamedTuple):
    """A narrow way round a block's convolutions.

    Attributes:
        down: (r, C).
        up: (C, r).
    """

    down: Tensor
    up: Tensor


class Step(NamedTuple):
    """A step's own parameters in a program, beside those of the shared block.

    Attributes:
        scale: (C,) of the first normalisation's gain.
        bias: (C,) added to its shift.
        mask: (C,) of the block's change; None for 1.
        width: channels inside the block that are used, a multiple of C / 8; None for all.
        adapter: beside the block; None for none.
    """

    scale: Tensor
    bias: Tensor
    mask: Tensor | None = None
    width: int | None = None
    adapter: Adapter | None = None


def block_residual(x: Tensor, part: Part, own: Step) -> Tensor:
    """Compute the residual that a block adds to features (N, C, H, W)."""
    channels = part.weight.shape[1]
    inside = channels if own.width is None else own.width
    # As many channels to a group as at full width, so that the statistics of those that stay are the same.
    groups = GROUPS * inside // channels
    if not 0 < inside <= channels or groups * channels != GROUPS * inside:
        raise ValueError(f"width={inside}: give a multiple of {channels // GROUPS}, up to {channels}")
    gain, shift = part.gain[0] * own.scale, part.shift[0] + own.bias
    y = functional.relu(functional.group_norm(x, GROUPS, gain, shift))
    y = functional.conv2d(y, part.weight[0, :inside], part.offset[0, :inside], padding=1)
    y = functional.relu(functional.group_norm(y, groups, part.gain[1, :inside], part.shift[1, :inside]))
    y = functional.conv2d(y, part.weight[1, :, :inside], part.offset[1], padding=1)
    if own.adapter is not None:
        down, up = (matrix[..., None, None] for matrix in own.adapter)
        y = y + functional.conv2d(functional.relu(functional.conv2d(x, down)), up)
    return y if own.mask is None else y * own.mask[:, None, None]


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

    def tensors(self) -> Part:
        """Parameters of all blocks, (K, ...) each."""
        return Part(self.weight, self.offset, self.gain, self.shift)

    def part(self, block: int) -> Part:
        """One block's parameters."""
        return Part(*(tensor[block] for tensor in self.tensors()))

    def mixed(self, shares: Tensor) -> list[Part]:
        """Blocks' parameters mixed in shares (L, K), for each of L steps."""
        mixtures = [torch.tensordot(shares, tensor, 1).unbind() for tensor in self.tensors()]
        return [Part(*step) for step in zip(*mixtures, strict=True)]


class Program(nn.Module):
    """Choice of the block that runs at each step, and each step's own parameters.

    Args:
        depth: L, steps.
        blocks: K, of the bank.
        width: C.
        start: `distinct`: each step prefers a block, in an order drawn for this program; `same`: the blocks in turn;
            `uniform`: no block is preferred.
        rank: r, channels inside each step's adapter; 0 for no adapter.

    Attributes:
        logits: (L, K) of the shares in which blocks are mixed.
        scale: (L, C), of the model patch.
        bias: (L, C), of the model patch.
        mask: (L, C) or None.
        width: channels inside every block, or None.
        down: (L, r, C) of adapters, or None.
        up: (L, C, r) of adapters, or None.
        order: the blocks in turn once the shares are one-hot and `freeze_if_one_hot` has seen it; only they run then.
    """

    def __init__(self, depth: int, blocks: int, width: int, start: str = "distinct", rank: int = 0) -> None:
        super().__init__()
        logits = torch.zeros(depth, blocks)
        if start != "uniform":
            order = torch.randperm(blocks) if start == "distinct" else torch.arange(blocks)
            logits[torch.arange(depth), order[torch.arange(depth) % blocks]] = PREFERENCE
        self.logits = nn.Parameter(logits)
        self.scale = nn.Parameter(torch.ones(depth, width))
        self.bias = nn.Parameter(torch.zeros(depth, width))
        self.mask: nn.Parameter | None = None
        self.down = nn.Parameter(torch.randn(depth, rank, width) * width**-0.5) if rank else None
        self.up = nn.Parameter(torch.zeros(depth, width, rank)) if rank else None
        self.width: int | None = None
        self.order: list[int] | None = None

    def mixing_weights(self, temperature: float | Tensor = 1.0) -> Tensor:
        """(L, K), each step's add up to 1."""
        return mixing_weights_of(self.logits, temperature)

    @property
    def is_plain(self) -> bool:
        """True if a step has no parameters of its own but scale and bias."""
        return self.mask is None and self.width is None and self.down is None

    def steps(self) -> list[Step]:
        """List each step's own parameters."""
        none = [None] * len(self.scale)
        masks = none if self.mask is None else self.mask.unbind()
        adapters: Sequence[Adapter | None] = none
        if self.down is not None and self.up is not None:
            adapters = [Adapter(*each) for each in zip(self.down.unbind(), self.up.unbind(), strict=True)]
        own = zip(self.scale.unbind(), self.bias.unbind(), masks, adapters, strict=True)
        return [Step(scale, bias, mask, self.width, adapter) for scale, bias, mask, adapter in own]

    def discretise(self) -> None:
        """Leave each step the block of its largest share alone."""
        self.set_order(self.logits.argmax(1).tolist())

    @torch.no_grad()
    def set_order(self, order: Sequence[int]) -> None:
        """Run one block at each step.

        Raises:
            UserError: the bank lacks a block, or there is not one for each step.
        """
        depth, blocks = self.logits.shape
        if len(order) != depth:
            raise UserError(f"order={list(order)} has {len(order)} blocks: give one for each of the {depth} steps")
        for block in order:
            if not isinstance(block, int) or not 0 <= block < blocks:
                raise UserError(f"order={list(order)} names block {block}: the bank has {blocks}, 0 to {blocks - 1}")
        chosen = torch.tensor(order, device=self.logits.device)[:, None]
        self.logits.fill_(-torch.inf).scatter_(1, chosen, 0.0)
        self.freeze_if_one_hot()

    def freeze_if_one_hot(self) -> None:
        """Have one-hot shares run only the blocks that they name."""
        shares = self.mixing_weights().detach()
        self.order = shares.argmax(1).tolist() if bool((shares.amax(1) == 1).all()) else None


def mixing_weights_of(logits: Tensor, temperature: float | Tensor) -> Tensor:
    """Shares of the blocks that logits (.., K) stand for; they add up to 1."""
    return (STEEPNESS * logits / temperature).softmax(-1)


def entropy(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Mean entropy of the shares that logits (.., K) stand for, as a share of the highest there is."""
    shares = mixing_weights_of(logits, temperature)
    return -(shares * shares.clamp(min=1e-12).log()).sum(-1).mean() / math.log(max(shares.shape[-1], 2))


def run(x: Tensor, bank: Bank, program: Program, temperature: float | Tensor = 1.0, mix: str = "weights") -> Tensor:
    """Features (N, C, H, W) through all steps of a program.

    Args:
        x: features.
        bank: of blocks.
        program: says how they are used.
        temperature: of the shares; the lower, the nearer to one-hot.
        mix: `weights`: blocks' parameters are mixed, and one block runs a step; `outputs`: all blocks run and what they
            make is mixed, for reference.
    """
    if torch.is_grad_enabled() and not x.requires_grad:
        # With channels last, torch 2.13's group_norm crashes on the way back where its gain alone has a gradient.
        x = x.detach().requires_grad_()
    steps = program.steps()
    if program.order is None and mix == "outputs":
        blocks = [bank.part(block) for block in range(len(bank.weight))]
        for shares, own in zip(program.mixing_weights(temperature), steps, strict=True):
            x = x + sum(share * block_residual(x, part, own) for share, part in zip(shares, blocks, strict=True))
        return x
    if program.order is None:
        parts = bank.mixed(program.mixing_weights(temperature))
    else:
        parts = [bank.part(block) for block in program.order]
    for part, own in zip(parts, steps, strict=True):
        x = x + block_residual(x, part, own)
    return x
