"""Objectives of training: a network's output compared with the expert's actions."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from multiravens.agents.networks.network import Terms
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import NetworkOutput, PlaceLogits
from multiravens.data.training.demonstrations import Batch
from multiravens.geometry import PIXEL, SHAPE


class Labels(NamedTuple):
    """The expert's actions in N samples.

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
    """Find which of the R turns that are told apart come to the same as the ones taken.

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


class Objective(ABC):
    """Makes losses of a network and samples.

    Attributes:
        augments: samples are augmented.
    """

    augments = True

    def prepare(self, network: Any, batch: Batch, tasks: Tasks, augment: Callable[[Batch], Batch]) -> Batch:
        """The samples as the network shall see them.

        Args:
            network: that is trained.
            batch: samples as they were recorded.
            tasks: their problems.
            augment: changes them as the run's augmentations have drawn.
        """
        return augment(batch)

    @abstractmethod
    def __call__(self, model: Callable[..., Any], batch: Batch, tasks: Tasks) -> Terms:
        """Call the network and say what is to be minimised.

        Args:
            model: the network, to be called.
            batch: samples as `prepare` gave them.
            tasks: their problems.
        """


class OwnTerms(Objective):
    """The objective of a network that says itself what is to be minimised, a `Learner`."""

    def __call__(self, model: Callable[..., Any], batch: Batch, tasks: Tasks) -> Terms:
        """The network's terms."""
        terms: Terms = model(batch, tasks)
        return terms


class Imitation(Objective):
    """A Transporter's objective: the expert's picks, places and turns shall be likely."""

    def __call__(self, model: Callable[..., Any], batch: Batch, tasks: Tasks) -> Terms:
        """Cross-entropies, and the shares of samples in which the best choice is right."""
        output: NetworkOutput = model(batch.images, batch.pick, batch.place, tasks)
        return terms_of(judge(output, batch), output)


def terms_of(outcome: Outcome, output: NetworkOutput) -> Terms:
    """Losses and accuracies by the names that they have in curves and tables."""
    losses = {"pick": outcome.pick, "place": outcome.place}
    right = {"pick": outcome.picked, "place": outcome.placed, "rotation": outcome.turned}
    return Terms(losses, {f"accuracy_{name}": value for name, value in right.items()}, output.penalty, output)


def judge(scored: NetworkOutput, batch: Batch) -> Outcome:
    """Compare a network's output for a batch with the expert's actions."""
    turns = equivalent_turns(batch.turn, batch.period, scored.turns.shape[1])
    near = 0.01 / (PIXEL * (SHAPE[0] // scored.pick.shape[1]))
    return score(scored.pick, scored.places, scored.turns, Labels(batch.pick, batch.place, *turns), near)


def score(
    pick_logits: Tensor, places: PlaceLogits, turn_logits: Tensor, labels: Labels, pixels_a_centimetre: float
) -> Outcome:
    """Compare logits with what the expert did.

    Args:
        pick_logits: (N, H, W).
        places: given the expert's picks.
        turn_logits: (N, R) given the expert's picks and places.
        labels: the expert's choices.
        pixels_a_centimetre: how near counts as right.

    Departs from 2010.14406: labels between pixels and turns are shared among the nearest ones, and of a symmetric
    part's turns, which are many-valued labels, the probabilities are summed.
    """
    place_logits = places.pixel_logits().float()
    turns = turn_logits.float().log_softmax(1)[:, None].masked_fill(~labels.turns, -math.inf).logsumexp(2)
    with torch.no_grad():
        samples = torch.arange(len(turns), device=turns.device)
        right = labels.turns.any(1)[samples, turn_logits.argmax(1)].float()
    return Outcome(
        _cross_entropy(pick_logits.float(), labels.pick),
        _cross_entropy(place_logits, labels.place) - (labels.share * turns).sum(1),
        _near(best_pixels(pick_logits), labels.pick, pixels_a_centimetre),
        _near(best_pixels(place_logits), labels.place, pixels_a_centimetre),
        right,
    )


def _cross_entropy(logits: Tensor, at: Tensor) -> Tensor:
    """(N,) of logits (N, H, W) and points (N, 2), each shared among the four pixels round it."""
    rows, columns, near = _corners(at, logits.shape[-2:])
    samples = torch.arange(len(at), device=at.device)[:, None]
    return logits.flatten(1).logsumexp(1) - (near * logits[samples, rows, columns]).sum(1)


def best_pixels(logits: Tensor) -> Tensor:
    """Row and column (N, 2) of the largest of (N, H, W)."""
    width = logits.shape[-1]
    best = logits.flatten(1).argmax(1)
    return torch.stack([best // width, best % width], dim=1)


def _corners(at: Tensor, shape: torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """The four pixels round a point (N, 2): rows, columns and shares, (N, 4) each; the shares add up to 1."""
    # Made of what is on the device already: a tensor of Python's numbers would have the host wait for the copy.
    at = torch.stack([at[:, axis].clamp(0, shape[axis] - 1) for axis in range(2)], dim=1)
    low = torch.stack([at[:, axis].floor().long().clamp(max=shape[axis] - 2) for axis in range(2)], dim=1)
    part = at - low
    row, column = low.unbind(1)
    rows, columns = torch.stack([row, row, row + 1, row + 1], 1), torch.stack([column, column + 1] * 2, 1)
    down, right = torch.stack([1 - part[:, 0], part[:, 0]], 1), torch.stack([1 - part[:, 1], part[:, 1]], 1)
    return rows, columns, (down[:, :, None] * right[:, None]).flatten(1)


def _near(one: Tensor, other: Tensor, limit: float) -> Tensor:
    return ((one - other).float().norm(dim=1) <= limit).float()
