"""A trained network as an agent."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from multiravens.agents.agent import Action, Agent, View, to_action
from multiravens.agents.conditioning import Conditioning
from multiravens.agents.pointer import visual_pointer
from multiravens.agents.transporter import Transporter
from multiravens.data.demonstrations import FACTORS, normalise
from multiravens.geometry import pixel_to_xy

POINTERS = ("reward", "visual")
BATCH = 8
"""Views that go through the network together; fewer are filled up, so that no answer depends on how many were asked."""


class Scores(NamedTuple):
    """What a network makes of one view.

    Attributes:
        pick: (H, W) probability of picking at each pixel.
        place: (R, H, W) probability of placing at each turn and pixel, given the best pick.
        goals: (K,) indices of the goal images that it was shown.
        pick_pixel: (2,) the best pick's row and column.
        place_pixel: (2,) the best place's.
        turn: the best turn [rad], in [-pi, pi).
    """

    pick: NDArray[np.float32]
    place: NDArray[np.float32]
    goals: NDArray[np.int64]
    pick_pixel: NDArray[np.int64]
    place_pixel: NDArray[np.int64]
    turn: float


class TransporterAgent(Agent):
    """Picks and places where a network's scores are highest.

    Args:
        network: scores picks and places.
        conditioning: which goal images it is shown.
        name: for tables.
        resolution: of views, `full` or `half`.
        pointer: where the goal pointer comes from, `reward` or `visual`.
        device: where the network computes.
    """

    def __init__(
        self,
        network: Transporter,
        conditioning: Conditioning,
        name: str,
        resolution: str,
        pointer: str = "reward",
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network.to(device).eval()
        self.conditioning, self.name, self.resolution, self.device = conditioning, name, resolution, device
        self.pointer = pointer if conditioning.uses_pointer else "none"

    def act(self, views: Sequence[View]) -> list[Action]:
        """One action a view.

        Raises:
            ValueError: a view lacks the pointer that the agent follows.
        """
        factor = FACTORS[self.resolution]
        actions = []
        for scores in self.score(views):
            pick, place = (np.append(pixel_to_xy(at, factor), 0.0) for at in (scores.pick_pixel, scores.place_pixel))
            actions.append(to_action(pick, place, scores.turn))
        return actions

    def score(self, views: Sequence[View]) -> list[Scores]:
        """What the network makes of each view."""
        return [scores for start in range(0, len(views), BATCH) for scores in self._score(views[start : start + BATCH])]

    @torch.inference_mode()
    def _score(self, views: Sequence[View]) -> Iterator[Scores]:
        goals = self.conditioning.choose(
            [self._pointer(view) for view in views],
            [view.step for view in views],
            [len(view.goal_color) for view in views],
        )
        images = torch.cat([self._images(view, chosen) for view, chosen in zip(views, goals, strict=True)])
        filled = torch.cat([images, images[:1].expand(BATCH - len(views), -1, -1, -1)])
        pick_logits, place_logits, picks = self.network(filled.to(self.device))
        for index, chosen in enumerate(goals):
            yield _scores(pick_logits[index], place_logits[index], picks[index], chosen)

    def _pointer(self, view: View) -> int:
        if self.pointer == "none":
            return 0
        if self.pointer == "visual":
            return visual_pointer(view)
        if view.pointer is None:
            raise ValueError(f"{self.name} follows the reward's pointer and the view has none: use pointer=visual")
        return view.pointer

    def _images(self, view: View, goals: NDArray[np.int64]) -> Tensor:
        color = np.concatenate([view.color[None], view.goal_color[goals]])
        height = np.concatenate([view.height[None], view.goal_height[goals]])
        return normalise(torch.from_numpy(color)[None], torch.from_numpy(height.astype(np.float32))[None])


def _scores(pick_logits: Tensor, place_logits: Tensor, pick: Tensor, goals: NDArray[np.int64]) -> Scores:
    pick_odds = pick_logits.float().flatten().softmax(0).reshape(pick_logits.shape)
    place_odds = place_logits.float().flatten().softmax(0).reshape(place_logits.shape)
    turn, row, column = np.unravel_index(int(place_logits.argmax()), place_logits.shape)
    angle = float(turn) * 2 * math.pi / len(place_logits)
    return Scores(
        pick_odds.cpu().numpy(),
        place_odds.cpu().numpy(),
        goals,
        pick.cpu().numpy(),
        np.array([row, column]),
        angle - 2 * math.pi * (angle >= math.pi),
    )
