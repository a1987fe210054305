"""What training minimises, and how often the best choice is right."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from multiravens.agents.transporter import Places


class Labels(NamedTuple):
    """What the expert did, of N samples.

    Attributes:
        pick: (N, 2) row and column, between pixels.
        place: (N, 2) row and column, between pixels.
        turns: (N, 2, R) bool, the turns that come to the same as the one below the expert's, and as the one above.
        share: (N, 2) how near the expert's turn is to the two; they add up to 1.
    """

    pick: Tensor
    place: Tensor
    turns: Tensor
    share: Tensor


class Outcome(NamedTuple):
    """Losses and accuracies of N samples, (N,) each.

    Attributes:
        pick: cross-entropy over pixels.
        place: cross-entropy over pixels and turns, equivalent turns taken together.
        picked: 1 where the best pick is within a centimetre of the expert's.
        placed: likewise for the place, given the expert's pick.
        turned: 1 where the best place has one of the two right turns.
    """

    pick: Tensor
    place: Tensor
    picked: Tensor
    placed: Tensor
    turned: Tensor


def equivalent_turns(turns: Tensor, periods: Tensor, rotations: int) -> tuple[Tensor, Tensor]:
    """Which of the turns that are told apart come to the same as the ones taken.

    Args:
        turns: (N,) [rad].
        periods: (N,) what is held looks the same after this further turn [rad]; 0 after any.
        rotations: R.

    Returns:
        (N, 2, R) bool and (N, 2) as in `Labels`.
    """
    step = 2 * math.pi / rotations
    position = turns / step
    below = position.floor()
    share = torch.stack([1 - (position - below), position - below], dim=1)
    bins = torch.arange(rotations, device=turns.device, dtype=turns.dtype)
    difference = (bins - torch.stack([below, below + 1], dim=1)[..., None]) * step
    period = torch.where(periods > 0, periods, 2 * math.pi)[:, None, None]
    away = ((difference + period / 2).remainder(period) - period / 2).abs()
    right = (away <= step / 2 - 1e-3) | (away <= away.amin(2, keepdim=True) + 1e-3)
    return right | (periods <= 0)[:, None, None], share


def score(pick_logits: Tensor, places: Places, labels: Labels, pixels_a_centimetre: float) -> Outcome:
    """Compare logits with what the expert did.

    Args:
        pick_logits: (N, H, W).
        places: given the expert's picks.
        labels: the expert's choices.
        pixels_a_centimetre: how near counts as right.

    Departs from 2010.14406: labels between pixels and turns are shared among the nearest ones, and of a symmetric
    part's turns, which are many-valued labels, the probabilities are summed.
    """
    pick_logits, places = pick_logits.float(), Places(*(part.float() for part in places))
    samples = torch.arange(len(pick_logits), device=pick_logits.device)[:, None]
    rows, columns, near = _corners(labels.pick, pick_logits.shape[-2:])
    pick = pick_logits.flatten(1).logsumexp(1) - (near * pick_logits[samples, rows, columns]).sum(1)
    rows, columns, near = _corners(labels.place, pick_logits.shape[-2:])
    at = places.at(rows, columns)[:, :, None].masked_fill(~labels.turns[:, None], -math.inf).logsumexp(3)
    place = places.total() - (near[..., None] * labels.share[:, None] * at).sum((1, 2))
    with torch.no_grad():
        row, column, turn = best_place(places)
        right = labels.turns.any(1)[samples[:, 0], turn]
        return Outcome(
            pick,
            place,
            _near(best_pixels(pick_logits), labels.pick, pixels_a_centimetre),
            _near(torch.stack([row, column], dim=1), labels.place, pixels_a_centimetre),
            right.float(),
        )


def best_pixels(logits: Tensor) -> Tensor:
    """Row and column (N, 2) of the largest of (N, H, W)."""
    width = logits.shape[-1]
    best = logits.flatten(1).argmax(1)
    return torch.stack([best // width, best % width], dim=1)


def best_place(places: Places) -> tuple[Tensor, Tensor, Tensor]:
    """Row, column and turn, (N,) each, of the largest logit."""
    cell, (height, width) = places.cell, places.pixels.shape[-2:]
    within = places.pixels.reshape(-1, height // cell, cell, width // cell, cell).transpose(2, 3).flatten(3)
    turn_of_cell = places.cells.max(1)
    best = (turn_of_cell.values + within.amax(3)).flatten(1).argmax(1)
    samples = torch.arange(len(best), device=best.device)
    cell_row, cell_column = best // (width // cell), best % (width // cell)
    pixel = within[samples, cell_row, cell_column].argmax(1)
    turn = turn_of_cell.indices[samples, cell_row, cell_column]
    return cell_row * cell + pixel // cell, cell_column * cell + pixel % cell, turn


def _corners(at: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels round a point (N, 2): rows, columns and shares, (N, 4) each; the shares add up to 1."""
    last = torch.tensor(shape, device=at.device) - 1
    at = torch.minimum(at.clamp(min=0), last)
    low = torch.minimum(at.floor().long(), last - 1)
    part = at - low
    rows, columns = (
        low[:, :1] + torch.tensor([0, 0, 1, 1], device=at.device),
        low[:, 1:] + torch.tensor([0, 1, 0, 1], device=at.device),
    )
    down, right = torch.stack([1 - part[:, 0], part[:, 0]], 1), torch.stack([1 - part[:, 1], part[:, 1]], 1)
    return rows, columns, (down[:, :, None] * right[:, None]).flatten(1)


def _near(one: Tensor, other: Tensor, limit: float) -> Tensor:
    return ((one - other).float().norm(dim=1) <= limit).float()
