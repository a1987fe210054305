"""The order of blocks: shares in which they are mixed at each step, drawn towards one block as training goes on.

Reference: Zhmoginov et al. 2107.10963.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from multiravens.agents.networks.modular.bank import Bank, Blocks
from multiravens.agents.networks.modular.program import Own, ProgramPart, Size
from multiravens.errors import UserError, unknown

STARTS = ("distinct", "same", "uniform")
STEEPNESS = 5.0
"""Factor on every logit: it makes orders learn this many times faster than weights, or they would stay as drawn."""
PREFERENCE = 1.0 / STEEPNESS
"""Logit of the block that a step starts with: of six it has 0.35 of the share."""
SOFTENED = 4.0 / STEEPNESS
"""Gap of the other blocks' logits below the preferred one's as training of a known order starts, at most, over the
temperature: of six blocks the preferred one has 0.9 of the share."""


class BlockChoice(nn.Module):
    """One program's choice of the block that runs at each step.

    Args:
        logits: (L, K) of the shares in which blocks are mixed.

    Attributes:
        order: the blocks in turn once the shares are one-hot and `freeze_if_one_hot` has seen it; only they run then.
    """

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.order: list[int] | None = None

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
        shares = mixing_weights(self.logits).detach()
        self.order = shares.argmax(1).tolist() if bool((shares.amax(1) == 1).all()) else None


class Order(ProgramPart):
    """Chooses the blocks that run.

    Args:
        start: `distinct`: each step prefers a block, in an order drawn for each program; `same`: the blocks in turn;
            `uniform`: no block is preferred.
        temperature: of the shares at the end of training; it falls from 1.
        entropy: weight of the shares' entropy in the loss, at the end of training; it rises from 0.

    Raises:
        ValueError: a value out of its range.
    """

    temperature: Tensor
    entropy_weight: Tensor

    def __init__(self, start: str = "distinct", temperature: float = 0.1, entropy: float = 0.01) -> None:
        super().__init__()
        if start not in STARTS:
            raise unknown("start", start, STARTS)
        if not 0 < temperature <= 1 or entropy < 0:
            raise ValueError(f"temperature={temperature}, entropy={entropy}: give above 0 to 1, and 0 or more")
        self.start, self.last_temperature, self.weight = start, temperature, entropy
        # On the device, and no part of a checkpoint: a compiled network would be made anew for each of their values.
        self.register_buffer("temperature", torch.ones(()), persistent=False)
        self.register_buffer("entropy_weight", torch.zeros(()), persistent=False)

    def make(self, size: Size) -> BlockChoice:
        """Make `logits`, (L, K)."""
        depth, blocks = size.steps, size.blocks
        logits = torch.zeros(depth, blocks)
        if self.start != "uniform":
            order = torch.randperm(blocks) if self.start == "distinct" else torch.arange(blocks)
            logits[torch.arange(depth), order[torch.arange(depth) % blocks]] = PREFERENCE
        return BlockChoice(logits)

    def mixing_weights(self, logits: Tensor) -> Tensor:
        """Shares (.., K) of the blocks at the temperature that there is."""
        return mixing_weights(logits, self.temperature)

    def blocks(self, bank: Bank, choice: BlockChoice) -> Blocks:
        """Take the blocks of one program by itself."""
        if choice.order is not None:
            return bank.in_order(choice.order)
        return bank.mixed(self.mixing_weights(choice.logits))

    def blocks_together(self, banks: Sequence[Bank], own: Own, streams: int) -> Blocks:
        """Take the blocks of T programs.

        Args:
            banks: one for all streams, or one for each.
            own: `logits` (L, T, K), stream by stream.
            streams: how many.
        """
        logits = own["logits"].unflatten(1, (streams, -1))
        depth, _, count, _ = logits.shape
        width = banks[0].offset.shape[2]
        tables = [torch.cat([tensor.flatten(1) for tensor in bank.tensors()], dim=1) for bank in banks]
        with torch.autocast(logits.device.type, enabled=False):  # few products, so 16 bits would save nothing
            shares = self.mixing_weights(logits.transpose(0, 1).flatten(1, 2))
            made = torch.matmul(shares, torch.stack(tables)).unflatten(1, (depth, count))
        sizes = [18 * width**2, 2 * width, 2 * width, 2 * width]
        weight, *rest = (
            # (streams, L, S, 2, ...) to (L, 2, T * C, ...).
            part.unflatten(3, (2, width, -1)).permute(1, 3, 0, 2, 4, 5).flatten(2, 4)
            for part in made.split(sizes, dim=3)
        )
        return Blocks.of(weight.unflatten(3, (width, 3, 3)), *(each.squeeze(3) for each in rest))

    def penalty(self, own: Own) -> Tensor:
        """Tax the shares' entropy: programs that mix many blocks are costly."""
        # Programs come first, as they lie in memory: sums are rounded by their order.
        return self.entropy_weight * entropy(own["logits"].transpose(0, 1), self.temperature)

    def anneal(self, share: float) -> None:
        """Set the shares' temperature, and the weight of their entropy."""
        self.temperature.fill_(self.last_temperature**share)
        self.entropy_weight.fill_(self.weight * share)

    @torch.no_grad()
    def ready(self, held: nn.Module) -> None:
        """Make a program less sure of the same blocks: sure ones have no gradient."""
        assert isinstance(held, BlockChoice)
        held.order = None
        furthest = held.logits.amax(1, keepdim=True) - SOFTENED * self.last_temperature
        held.logits.copy_(held.logits.maximum(furthest))


def mixing_weights(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Shares of the blocks that logits (.., K) stand for; they add up to 1."""
    return (STEEPNESS * logits / temperature).softmax(-1)


def entropy(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Mean entropy of the shares that logits (.., K) stand for, as a share of the highest there is."""
    shares = mixing_weights(logits, temperature)
    return -(shares * shares.clamp(min=1e-12).log()).sum(-1).mean() / math.log(max(shares.shape[-1], 2))
