"""Training on episodes without actions: the loss is the entropy or the inconsistency of the network's own choices.

Reference: Wang et al. 2006.10726 (entropy); Sohn et al. 2001.07685 (consistency under augmentation).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiravens.agents.networks.network import Terms
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import NetworkOutput, Transporter
from multiravens.agents.training.objectives import Objective, best_pixels, judge, terms_of
from multiravens.data.training.demonstrations import Batch


class Entropy(Objective):
    """Entropy of the network's choices, to be lowered; accuracies are agreement with its own choices.

    The expert's actions are never looked at.
    """

    augments = False

    def prepare(self, network: Transporter, batch: Batch, tasks: Tasks, augment: Callable[[Batch], Batch]) -> Batch:
        """The samples with the network's choices as their labels."""
        return choose(network, batch, tasks)[0]

    def __call__(self, model: Callable[..., Any], batch: Batch, tasks: Tasks) -> Terms:
        """Entropies of picks and of places."""
        output: NetworkOutput = model(batch.images, batch.pick, batch.place, tasks)
        pick, place = entropies(output)
        return terms_of(judge(output, batch)._replace(pick=pick, place=place), output)


class Consistency(Objective):
    """Agreement of the network's choice in an augmented sample with that before, weighed by how sure it was.

    The expert's actions are never looked at; accuracies are agreement with its own choices.
    """

    def prepare(self, network: Transporter, batch: Batch, tasks: Tasks, augment: Callable[[Batch], Batch]) -> Batch:
        """The samples, augmented with the network's choices as their labels."""
        chosen, sure = choose(network, batch, tasks)
        return augment(chosen._replace(labels={**batch.labels, "sure": sure}))

    def __call__(self, model: Callable[..., Any], batch: Batch, tasks: Tasks) -> Terms:
        """Cross-entropies with the network's choices."""
        output: NetworkOutput = model(batch.images, batch.pick, batch.place, tasks)
        outcome, sure = judge(output, batch), batch.labels["sure"]
        return terms_of(outcome._replace(pick=sure * outcome.pick, place=sure * outcome.place), output)


OBJECTIVES: dict[str, type[Objective]] = {"entropy": Entropy, "consistency": Consistency}


@torch.no_grad()
def choose(network: Transporter, batch: Batch, tasks: Tasks) -> tuple[Batch, Tensor]:
    """The batch with the network's own choices as its labels, and how sure of them it is (N,), 1 on average.

    Args:
        network: that chooses.
        batch: N samples.
        tasks: their problems.
    """
    maps = network.streams(batch.images, tasks)
    pick = best_pixels(maps.pick).float()
    places = network.places(batch.images, maps, pick)
    place = best_pixels(places.pixel_logits()).float()
    turns = network.turns(batch.images, pick, place, places, tasks)
    sure = maps.pick.flatten(1).softmax(1).amax(1) * turns.softmax(1).amax(1)
    turn = turns.argmax(1) * (2 * np.pi / network.rotations)
    chosen = batch._replace(pick=pick, place=place, turn=turn, period=torch.full_like(turn, 2 * np.pi))
    return chosen, sure / sure.mean().clamp(min=1e-9)


def entropies(scored: NetworkOutput) -> tuple[Tensor, Tensor]:
    """Of the picks, and of the places with their turns: (N,) each."""
    return _entropy(scored.pick.flatten(1)), _entropy(scored.places.pixel_logits().flatten(1)) + _entropy(scored.turns)


def _entropy(logits: Tensor) -> Tensor:
    """(N,) of the distributions that logits (N, M) stand for."""
    logs = logits.float().log_softmax(1)
    return -(logs.exp() * logs).sum(1)
