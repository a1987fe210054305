"""Programs: compositions of parts that say how a bank's blocks are used, and how such a program runs."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.networks.modular.bank import GROUPS, Bank, Blocks, Layer

Own = Mapping[str, Tensor]
"""Parameters and buffers that T programs hold for one part, by name: (L, T, ...), or (T, ...) of one step."""


class Size(NamedTuple):
    """Size of a program.

    Attributes:
        steps: L.
        blocks: K, of the bank.
        width: C, channels of every block.
    """

    steps: int
    blocks: int
    width: int


class ProgramPart(nn.Module, ABC):
    """One thing that a program holds: parameters of its own, what they do to the blocks, and what they cost.

    One object serves all programs, and is given their parameters. Those of a whole batch run together, so what a part
    does it does for T programs at once; a program by itself is T = 1.
    """

    @abstractmethod
    def make(self, size: Size) -> nn.Module:
        """Make what one program holds, such as an `nn.ParameterDict`: its tensors have a row for each step, (L, ...).

        Raises:
            ValueError: the part does not fit the size.
        """

    def adjust(self, blocks: Blocks, own: Own) -> Blocks:
        """Change the parameters of the blocks that run, given (L, T, ...)."""
        return blocks

    def residual(self, x: Tensor, y: Tensor, own: Own) -> Tensor:
        """Change what a block adds to the features.

        Args:
            x: (N, T, C, H, W) what the block sees.
            y: (N, T, C, H, W) what it adds.
            own: (T, ...) of the step.
        """
        return y

    def penalty(self, own: Own) -> Tensor:
        """Term of the loss for the parameters (L, T, ...) of all programs that hold the part."""
        return torch.zeros(())

    def anneal(self, share: float) -> None:
        """Be told which share of the training is done."""

    def ready(self, held: nn.Module) -> None:
        """Make what a program holds, which was taken from a trained one, fit to be trained."""

    def has(self, name: str) -> bool:
        """Tell whether the class does more than the least by a method: what does nothing is not called."""
        return getattr(type(self), name) is not getattr(ProgramPart, name)


class Program(nn.ModuleDict):
    """Parameters of one program, by the names of its parts.

    Args:
        parts: by name, in the order in which they act.
        size: of the program.
    """

    def __init__(self, parts: Mapping[str, ProgramPart], size: Size) -> None:
        super().__init__({name: part.make(size) for name, part in parts.items()})


Acting = Sequence[tuple[ProgramPart, Own]]
"""Parts and the parameters (L, T, ...) that programs hold for them."""


def own_of(held: nn.Module) -> Own:
    """Parameters and buffers that one program holds for a part, (L, 1, ...)."""
    return {name: tensor[:, None] for name, tensor in _tensors(held).items()}


def own_of_all(held: Sequence[nn.Module]) -> Own:
    """Parameters and buffers that T programs hold for a part, (L, T, ...)."""
    each = [_tensors(module) for module in held]
    return {name: torch.stack([tensors[name] for tensors in each]).transpose(0, 1) for name in each[0]}


def _tensors(held: nn.Module) -> dict[str, Tensor]:
    return {**dict(held.named_parameters()), **dict(held.named_buffers())}


def run_blocks(
    x: Tensor,
    blocks: Blocks,
    acting: Acting,
    programs: int = 1,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Features through the blocks of T programs, side by side.

    Args:
        x: (N, T * C, H, W) features.
        blocks: of every step.
        acting: parts that change what blocks are and do.
        programs: T.
        memory_format: of the convolutions' weights.
    """
    if torch.is_grad_enabled() and not x.requires_grad:
        # With channels last, torch 2.13's group_norm crashes on the way back where its gain alone has a gradient.
        x = x.detach().requires_grad_()
    for layers, changing in _steps(blocks, acting):
        x = x + block_residual(x, layers, changing, programs, memory_format)
    return x


def run_outputs(x: Tensor, bank: Bank, shares: Tensor, acting: Acting) -> Tensor:
    """Features (N, C, H, W) through one program of which all blocks run at each step and what they make is mixed.

    It is for reference, and costs K times as much.

    Args:
        x: features.
        bank: of K blocks.
        shares: (L, K).
        acting: as in `run_blocks`.
    """
    each = [bank.in_order([block]) for block in range(shares.shape[1])]
    for step, of_step in enumerate(shares):
        here = [(part, {name: tensor[step : step + 1] for name, tensor in own.items()}) for part, own in acting]
        made = (block_residual(x, *_steps(blocks, here)[0]) for blocks in each)
        x = x + sum(share * residual for share, residual in zip(of_step, made, strict=True))
    return x


def _steps(blocks: Blocks, acting: Acting) -> list[tuple[Sequence[Layer], Acting]]:
    """For each of L steps its two layers, and the parts that change what the block adds; all without the first axis."""
    for part, own in acting:
        blocks = part.adjust(blocks, own)
    first, second = ([Layer(*each) for each in zip(*map(torch.unbind, layer), strict=True)] for layer in blocks)
    changing = [
        (part, {name: tensor.unbind() for name, tensor in own.items()}) for part, own in acting if part.has("residual")
    ]
    return [
        (both, [(part, {name: rows[step] for name, rows in own.items()}) for part, own in changing])
        for step, both in enumerate(zip(first, second, strict=True))
    ]


def block_residual(
    x: Tensor,
    layers: Sequence[Layer],
    changing: Acting,
    programs: int = 1,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Compute what the blocks of one step add to features (N, T * C, H, W); arguments as of `run_blocks`."""
    # As many channels to a group as at full width, so that the statistics of those that stay are the same.
    of_group = x.shape[1] // (programs * GROUPS)
    y = x
    for gain, shift, weight, offset in layers:
        y = functional.relu(functional.group_norm(y, len(gain) // of_group, gain, shift))
        y = functional.conv2d(y, weight.contiguous(memory_format=memory_format), offset, padding=1, groups=programs)
    if not changing:
        return y
    parted, y = (each.unflatten(1, (programs, -1)) for each in (x, y))
    for part, own in changing:
        y = part.residual(parted, y, own)
    return y.flatten(1, 2)
