"""Batched programs of several problems: each step is one grouped convolution, whatever the number of programs.

A batch that holds samples of ten problems would start thirty programs, three streams each, one after the other: seven
thousand small operators, which a GPU computes faster than the host can start them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from multiravens.agents.networks.modular.bank import GROUPS, Bank, Program, mixing_weights_of

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


class Steps(NamedTuple):
    """Parameters of one step of every stream and group, T of them in all. C channels.

    Attributes:
        weight: (2, T * C, C, 3, 3) of its convolutions.
        offset: (2, T * C) of its convolutions.
        gain: (2, T * C) of its group normalisations.
        shift: (2, T * C) of its group normalisations.
    """

    weight: Tensor
    offset: Tensor
    gain: Tensor
    shift: Tensor


def mixed_steps(
    banks: Sequence[Bank], programs: Sequence[Sequence[Program]], problem: Tensor, temperature: Tensor
) -> list[Steps]:
    """Mix the blocks' parameters for each of L steps, as `Bank.mixed` does for one program.

    Args:
        banks: one for all streams, or one for each.
        programs: of each stream, of each problem.
        problem: (S,) of each group.
        temperature: of the shares.
    """
    each = [program for stream in programs for program in stream]
    shape = (len(programs), len(programs[0]))
    logits, scale, bias = (
        torch.stack([getattr(program, name) for program in each]).unflatten(0, shape)[:, problem]
        for name in ("logits", "scale", "bias")
    )
    streams, groups, depth, width = scale.shape
    tables = [torch.cat([tensor.flatten(1) for tensor in bank.tensors()], dim=1) for bank in banks]
    with torch.autocast(logits.device.type, enabled=False):  # few products, so 16 bits would save nothing
        shares = mixing_weights_of(logits, temperature).transpose(1, 2).flatten(1, 2)
        made = torch.matmul(shares, torch.stack(tables)).unflatten(1, (depth, groups))
    sizes = [18 * width**2, 2 * width, 2 * width, 2 * width]
    weight, offset, gain, shift = (
        # (streams, L, S, 2, ...) to (L, 2, T * C, ...).
        part.unflatten(3, (2, width, -1)).permute(1, 3, 0, 2, 4, 5).flatten(2, 4)
        for part in made.split(sizes, dim=3)
    )
    own_scale, own_bias = (own.transpose(1, 2).transpose(0, 1).flatten(1)[..., None] for own in (scale, bias))
    firsts = gain[:, 0] * own_scale, shift[:, 0] + own_bias
    gain, shift = (torch.stack([first, both[:, 1]], dim=1) for first, both in zip(firsts, (gain, shift), strict=True))
    parts = (weight.unflatten(3, (width, 3, 3)), offset.squeeze(3), gain.squeeze(3), shift.squeeze(3))
    return [Steps(*step) for step in zip(*(part.unbind() for part in parts), strict=True)]


def run_together(x: Tensor, steps: Sequence[Steps], layout: Layout, streams: int) -> tuple[Tensor, ...]:
    """Features (N, C, H, W) through all steps of every stream.

    Args:
        x: features.
        steps: of every stream and group.
        layout: of the samples.
        streams: how many.

    Returns:
        (N, C, H, W) of each stream.
    """
    if torch.is_grad_enabled() and not x.requires_grad:
        x = x.detach().requires_grad_()  # see `bank.run`
    groups, size, (width, *sides) = len(layout.problem), layout.size, x.shape[1:]
    if layout.source is not None:
        # Slots of all groups beside one another, so that they are channels of G samples.
        x = x.index_select(0, layout.source.view(groups, size).t().flatten())
    x = x.reshape(size, 1, groups * width, *sides).expand(-1, streams, -1, -1, -1).flatten(1, 2)
    layout_of = torch.channels_last if x.device.type in CHANNELS_LAST else torch.contiguous_format
    x = x.contiguous(memory_format=layout_of)
    together = streams * groups
    for step in steps:
        y = x
        for weight, offset, gain, shift in zip(*step, strict=True):
            weight = weight.contiguous(memory_format=layout_of)
            y = functional.relu(functional.group_norm(y, GROUPS * together, gain, shift))
            y = functional.conv2d(y, weight, offset, padding=1, groups=together)
        x = x + y
    made = x.unflatten(1, (streams, groups, width)).permute(1, 2, 0, 3, 4, 5).flatten(1, 2)
    return tuple(each if layout.slot is None else each.index_select(0, layout.slot) for each in made.unbind())
