"""Training on episodes whose actions are not known: on what the network itself makes of what it sees.

Reference: Wang et al. 2006.10726 (entropy); Sohn et al. 2001.07685 (consistency under augmentation).
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiravens.agents.loss import Labels, Outcome, best_pixels, score
from multiravens.agents.training import Trainer
from multiravens.agents.transporter import Scored
from multiravens.data.augmentation import SE2, Warp, moved
from multiravens.data.demonstrations import Batch

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

    def warp(self, samples: np.ndarray) -> Warp | None:
        """Drawn later, round what the network chose."""
        return None

    def score(self, samples: np.ndarray, warp: Warp | None = None) -> tuple[Outcome, Tensor]:
        """What the network makes of samples, and what is added to the loss."""
        batch = self.batch(samples)
        chosen, sure = self._choose(batch, samples)
        if self.objective == "consistency":
            chosen = moved(chosen, self._draw(chosen))
        scored = self._scored(chosen, samples)
        rotations = self.network.rotations
        bins = (chosen.turn / (2 * np.pi / rotations)).round().long() % rotations
        turns = torch.nn.functional.one_hot(bins, rotations).bool()[:, None].expand(-1, 2, -1)
        labels = Labels(chosen.pick, chosen.place, turns, torch.full((len(bins), 2), 0.5, device=bins.device))
        outcome = score(scored.pick, scored.places, scored.turns, labels, 1.0)
        if self.objective == "consistency":
            return outcome._replace(pick=sure * outcome.pick, place=sure * outcome.place), scored.penalty
        unsure = _entropy(scored.places.anywhere().flatten(1)) + _entropy(scored.turns)
        return outcome._replace(pick=_entropy(scored.pick.flatten(1)), place=unsure), scored.penalty

    @torch.no_grad()
    def _choose(self, batch: Batch, samples: np.ndarray) -> tuple[Batch, Tensor]:
        """The batch with the network's own choices as its labels, and how sure of them it is (N,)."""
        maps = self.network.streams(batch.images, self.tasks_of(samples))
        pick = best_pixels(maps.pick).float()
        places = self.network.places(batch.images, maps, pick)
        place = best_pixels(places.anywhere()).float()
        turns = self.network.turns(batch.images, pick, place, places)
        sure = maps.pick.flatten(1).softmax(1).amax(1) * turns.softmax(1).amax(1)
        turn = turns.argmax(1) * (2 * np.pi / self.network.rotations)
        return batch._replace(pick=pick, place=place, turn=turn), sure / sure.mean().clamp(min=1e-9)

    def _scored(self, batch: Batch, samples: np.ndarray) -> Scored:
        images = batch.images.contiguous(memory_format=torch.channels_last)
        scored: Scored = self.model(images, batch.pick, batch.place, self.tasks_of(samples))
        return scored

    def _draw(self, chosen: Batch) -> Warp:
        rng = np.random.default_rng([self.seed, self.step])
        points = (points.cpu().numpy() for points in (chosen.pick, chosen.place))
        pick, place = points
        return (self.augmentation or SE2()).draw(pick, place, tuple(self.data.color.shape[1:3]), rng)


def _entropy(logits: Tensor) -> Tensor:
    """(N,) of the distributions that logits (N, M) stand for."""
    logs = logits.float().log_softmax(1)
    return -(logs.exp() * logs).sum(1)
