"""Training on episodes without actions: the loss is the entropy or the inconsistency of the network's own choices.

Reference: Wang et al. 2006.10726 (entropy); Sohn et al. 2001.07685 (consistency under augmentation).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import NetworkOutput, Transporter
from multiravens.agents.training.objectives import Outcome, best_pixels, judge
from multiravens.agents.training.trainer import Inputs, Trainer
from multiravens.data.training.augmentation import SE2, first_inside, move
from multiravens.data.training.demonstrations import Batch

OBJECTIVES = ("entropy", "consistency")


class UnlabelledTrainer(Trainer):
    """Trains without the expert's actions, which it never looks at; accuracies are agreement with its own choices.

    Args:
        objective: `entropy`: what is chosen shall be chosen surely; `consistency`: what is chosen in a sample shall be
            chosen again after the sample was moved, the more so the surer it was.
        *rest: as of `Trainer`.
        **options: as of `Trainer`.
    """

    def __init__(self, objective: str, *rest: Any, **options: Any) -> None:
        super().__init__(*rest, **options)
        self.objective = objective

    def motion(self, samples: np.ndarray) -> np.ndarray | None:
        """Motions (N, T, 10) to choose from, where what the network chose comes to lie."""
        if self.objective != "consistency":
            return None
        shape = tuple(self.data.color.shape[1:3])
        rng = np.random.default_rng([self.seed, self.step])
        return (self.augmentation or SE2()).candidates(len(samples), shape, rng).motion(shape)

    def score(self, inputs: Inputs) -> tuple[Outcome, Tensor]:
        """Losses and agreement with its own choices, and what is added to the loss."""
        chosen, sure = choose(self.network, self.batch(inputs), inputs.tasks)
        if inputs.motion is not None:
            first = first_inside(chosen.pick, chosen.place, inputs.motion, tuple(chosen.images.shape[-2:]))
            chosen = move(chosen, inputs.motion[torch.arange(len(first), device=first.device), first])
        images = chosen.images.contiguous(memory_format=self.memory_format)
        scored: NetworkOutput = self.model(images, chosen.pick, chosen.place, inputs.tasks)
        outcome = judge(scored, chosen, self.data.resolution)
        if self.objective == "consistency":
            return outcome._replace(pick=sure * outcome.pick, place=sure * outcome.place), scored.penalty
        pick, place = entropies(scored)
        return outcome._replace(pick=pick, place=place), scored.penalty


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
