"""What training minimises, and how often the best choice is right."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from multiravens.agents.transporter import best_pixels


class Labels(NamedTuple):
    """What the expert did, of N samples.

    Attributes:
        pick: (N, 2) row and column.
        place: (N, 2) row and column.
        turns: (N, R) bool, the turns that come to the same as the expert's.
    """

    pick: Tensor
    place: Tensor
    turns: Tensor


class Outcome(NamedTuple):
    """Losses and accuracies of N samples, (N,) each.

    Attributes:
        pick: cross-entropy over pixels.
        place: cross-entropy over pixels and turns, equivalent turns taken together.
        picked: 1 where the best pick is within a centimetre of the expert's.
        placed: likewise for the place, given the expert's pick.
        turned: 1 where the best place has one of the right turns.
    """

    pick: Tensor
    place: Tensor
    picked: Tensor
    placed: Tensor
    turned: Tensor


def equivalent_turns(turns: Tensor, periods: Tensor, rotations: int) -> Tensor:
    """Which of the turns that are told apart come to the same as the ones taken.

    Args:
        turns: (N,) [rad].
        periods: (N,) what is held looks the same after this further turn [rad]; 0 after any.
        rotations: R.

    Returns:
        (N, R) bool.
    """
    step = 2 * math.pi / rotations
    bins = torch.arange(rotations, device=turns.device, dtype=turns.dtype) * step
    difference = bins[None] - turns[:, None]
    period = torch.where(periods > 0, periods, 2 * math.pi)[:, None]
    nearest = (difference + period / 2).remainder(period) - period / 2
    right = nearest.abs() <= step / 2 + 1e-4
    # Half-way between two bins, floating point must not leave none.
    right |= torch.nn.functional.one_hot(nearest.abs().argmin(1), rotations).bool()
    return right | (periods <= 0)[:, None]


def score(pick_logits: Tensor, place_logits: Tensor, labels: Labels, pixels_a_centimetre: float) -> Outcome:
    """Compare logits with what the expert did.

    Args:
        pick_logits: (N, H, W).
        place_logits: (N, R, H, W), given the expert's picks.
        labels: the expert's choices.
        pixels_a_centimetre: how near counts as right.

    Departs from 2010.14406: a symmetric part's turns are many-valued labels; their probabilities are summed.
    """
    samples = torch.arange(len(pick_logits), device=pick_logits.device)
    pick_logits, place_logits = pick_logits.float(), place_logits.float()
    pick = torch.logsumexp(pick_logits.flatten(1), 1) - pick_logits[samples, labels.pick[:, 0], labels.pick[:, 1]]
    at = place_logits[samples, :, labels.place[:, 0], labels.place[:, 1]]
    place = torch.logsumexp(place_logits.flatten(1), 1) - torch.logsumexp(at.masked_fill(~labels.turns, -math.inf), 1)
    with torch.no_grad():
        best_turn = place_logits.amax((2, 3)).argmax(1)
        return Outcome(
            pick,
            place,
            _near(best_pixels(pick_logits), labels.pick, pixels_a_centimetre),
            _near(best_pixels(place_logits[samples, best_turn]), labels.place, pixels_a_centimetre),
            labels.turns[samples, best_turn].float(),
        )


def _near(one: Tensor, other: Tensor, limit: float) -> Tensor:
    return ((one - other).float().norm(dim=1) <= limit).float()
