"""A trained network as an agent."""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from multiravens.agents.agent import Action, Agent, View, to_action
from multiravens.agents.conditioning import Conditioning
from multiravens.agents.pointer import visual_pointer
from multiravens.agents.transporter import Transporter
from multiravens.data.demonstrations import FACTORS, normalise
from multiravens.geometry import pixel_to_xy, wrap_angle

POINTERS = ("reward", "visual")
BATCH = 8
"""Views that go through the network together; fewer are filled up, so that no answer depends on how many were asked."""


class Scores(NamedTuple):
    """What a network makes of one view.

    Attributes:
        pick: (H, W) probability of picking at each pixel.
        place: (R, H, W) probability of placing at each turn and pixel, given the best pick.
        goals: (K,) indices of the goal images that it was shown.
        pick_pixel: (2,) row and column of the best pick, between pixels.
        place_pixel: (2,) of the best place.
        turn: the best turn [rad], in [-pi, pi), between those that are told apart.
    """

    pick: NDArray[np.float32]
    place: NDArray[np.float32]
    goals: NDArray[np.int64]
    pick_pixel: NDArray[np.float64]
    place_pixel: NDArray[np.float64]
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
        filled = filled.to(self.device)
        maps = self.network.streams(filled)
        pick_odds = [_odds(logits) for logits in maps.pick]
        picks = np.array([refine(odds[None])[1:] for odds in pick_odds])
        place_logits = self.network.places(filled, maps, torch.from_numpy(picks).to(self.device)).logits()
        for index, chosen in enumerate(goals):
            yield _scores(pick_odds[index], picks[index], _odds(place_logits[index]), chosen)

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


def _scores(
    pick: NDArray[np.float32], pick_pixel: NDArray[np.float64], place: NDArray[np.float32], goals: NDArray[np.int64]
) -> Scores:
    turn, *place_pixel = refine(place)
    return Scores(pick, place, goals, pick_pixel, np.array(place_pixel), wrap_angle(turn * 2 * math.pi / len(place)))


def _odds(logits: Tensor) -> NDArray[np.float32]:
    return np.asarray(logits.float().flatten().softmax(0).reshape(logits.shape).cpu().numpy())


def refine(odds: NDArray[np.float32]) -> tuple[float, float, float]:
    """The middle of the neighbourhood that most probability lies in: finer than the pixels and turns it is given on.

    Args:
        odds: (R, H, W) probabilities; turns are periodic.

    Returns:
        Turn in bins, which may be just below 0, row and column.
    """
    near = uniform_filter(odds, size=(min(3, len(odds)), 3, 3), mode=("wrap", "constant", "constant"))
    turn, row, column = (int(index) for index in np.unravel_index(int(near.argmax()), odds.shape))
    turns = np.arange(turn - 1, turn + 2) if len(odds) > 2 else np.array([turn])
    rows, columns = (
        np.arange(max(at - 1, 0), min(at + 2, side)) for at, side in zip((row, column), odds.shape[1:], strict=True)
    )
    around = odds[np.ix_(turns % len(odds), rows, columns)].astype(np.float64)
    around /= around.sum()
    means = [
        float((around.sum(others) * at).sum()) for at, others in ((turns, (1, 2)), (rows, (0, 2)), (columns, (0, 1)))
    ]
    return means[0], means[1], means[2]
