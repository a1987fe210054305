"""Batched programs of several problems: each step is one grouped convolution, whatever the number of programs.

A batch that holds samples of ten problems would start thirty programs, three streams each, one after the other: seven
thousand small operators, which a GPU computes faster than the host can start them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from multiravens.agents.networks.modular.bank import Blocks
from multiravens.agents.networks.modular.program import Acting, run_blocks

SLOTS = {"cuda": 2}
"""Samples that one group of a convolution takes, by kind of device; elsewhere one, so that none is padding.

A batch of 256 samples of ten problems then has 1.04 slots for each; with eight, 1.25.
"""
CHANNELS_LAST = {"cuda"}
"""Kinds of devices whose convolutions want channels last. Weights decide: what is normalised comes channels first."""


class Layout(NamedTuple):
    """Samples sorted into groups that each hold samples of one problem; what is left of a group is padding.

    Attributes:
        problem: (S,) the problem of each group.
        source: (S * G,) the sample in each slot, any for padding; None if slot n holds sample n.
        slot: (N,) where each sample is; None likewise.
        size: G, slots of a group.
    """

    problem: Tensor
    source: Tensor | None
    slot: Tensor | None
    size: int


def lay_out(problem: Tensor, problems: int, size: int) -> Layout:
    """Sort samples into groups, on their device and without asking it for a number.

    Args:
        problem: (N,) of each sample.
        problems: P, how many there are.
        size: G, slots of a group.
    """
    count, device = len(problem), problem.device
    if size == 1:
        return Layout(problem, None, None, 1)
    # As many groups as may be needed: each problem leaves one group partly empty.
    groups = (count + min(problems, count) * (size - 1)) // size
    counts = (problem[:, None] == torch.arange(problems, device=device)).sum(0)
    ends = ((counts + size - 1) // size).cumsum(0)
    first_group, first_sample = ends - (counts + size - 1) // size, counts.cumsum(0) - counts
    order = problem.argsort(stable=True)
    of = problem[order]
    slots = first_group[of] * size + torch.arange(count, device=device) - first_sample[of]
    slot = torch.empty_like(slots).scatter_(0, order, slots)
    source = slots.new_zeros(groups * size).scatter_(0, slots, order)
    of_group = torch.searchsorted(ends, torch.arange(groups, device=device), right=True).clamp(max=problems - 1)
    return Layout(of_group, source, slot, size)


def pick_rows(rows: Tensor, problem: Tensor, streams: int) -> Tensor:
    """Parameters (L, T, ...) of every stream and group, of those (L, streams * P, ...) of every stream and problem.

    Args:
        rows: the latter.
        problem: (S,) of each group.
        streams: how many.
    """
    # Programs come first, as they lie in memory: their gradients then need no copy.
    return rows.transpose(0, 1).unflatten(0, (streams, -1))[:, problem].movedim(2, 0).flatten(1, 2)


def run_together(x: Tensor, blocks: Blocks, acting: Acting, layout: Layout, streams: int) -> tuple[Tensor, ...]:
    """Features (N, C, H, W) through the programs of every stream and group.

    Args:
        x: features.
        blocks: of every stream and group.
        acting: parts that change what blocks are and do.
        layout: of the samples.
        streams: how many.

    Returns:
        (N, C, H, W) of each stream.
    """
    groups, size, (width, *sides) = len(layout.problem), layout.size, x.shape[1:]
    if layout.source is not None:
        # Slots of all groups beside one another, so that they are channels of G samples.
        x = x.index_select(0, layout.source.view(groups, size).t().flatten())
    x = x.reshape(size, 1, groups * width, *sides).expand(-1, streams, -1, -1, -1).flatten(1, 2)
    memory_format = torch.channels_last if x.device.type in CHANNELS_LAST else torch.contiguous_format
    x = run_blocks(x.contiguous(memory_format=memory_format), blocks, acting, streams * groups, memory_format)
    made = x.unflatten(1, (streams, groups, width)).permute(1, 2, 0, 3, 4, 5).flatten(1, 2)
    return tuple(each if layout.slot is None else each.index_select(0, layout.slot) for each in made.unbind())
