"""A trained network as an agent."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter
from torch import Tensor

from multiravens.actions import PICK_PLACE, pick_place_fields
from multiravens.agents.acting.agent import Action, Agent, View
from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.acting.options import PLAIN, Acting
from multiravens.agents.acting.pointer import visual_pointer
from multiravens.agents.acting.retry import aim, count_tries, note
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import Transporter
from multiravens.data.training.demonstrations import FACTORS, normalise
from multiravens.errors import UserError
from multiravens.geometry import PIXEL, pixel_to_xy, wrap_angle

BATCH = 8
"""Views that go through the network together; fewer are filled up, so that no answer depends on how many were asked."""


class ActionDistribution(NamedTuple):
    """A network's probabilities and best action for one view.

    Attributes:
        pick: (H, W) probability of picking at each pixel.
        place: (H, W) probability of placing at each pixel, given the best pick.
        turns: (R,) probability of each turn, given the best pick and place.
        pick_pixel: (2,) row and column of the best pick, between pixels.
        place_pixel: (2,) of the best place.
        turn: the best turn [rad], in [-pi, pi), between those that are told apart.
        aim: the first sub-goal that it was shown; None for none.
    """

    pick: NDArray[np.float32]
    place: NDArray[np.float32]
    turns: NDArray[np.float32]
    pick_pixel: NDArray[np.float64]
    place_pixel: NDArray[np.float64]
    turn: float
    aim: int | None

    @property
    def maps(self) -> Sequence[NDArray[np.float32]]:
        """Probabilities of pick and place, to be drawn."""
        return self.pick, self.place


class FieldChoice(NamedTuple):
    """The best action of a `Learner` of another primitive, for one view.

    Attributes:
        action: its fields.
        aim: as of an `ActionDistribution`.
        maps: none.
    """

    action: Action
    aim: int | None
    maps: Sequence[NDArray[np.float32]] = ()


class NetworkAgent(Agent):
    """Acts as a network chooses, such as a `Learner`.

    Args:
        network: chooses actions in images.
        conditioning: which goal images it is shown.
        name: for tables.
        resolution: of views, `full` or `half`.
        acting: how it acts; without a pointer there is nothing to choose.
        device: where the network computes.

    Attributes:
        remembers: what it makes of failed attempts has an effect; without it `acting` is plain.
    """

    remembers = False

    def __init__(
        self,
        network: Any,
        conditioning: Conditioning,
        name: str,
        resolution: str,
        acting: Acting = PLAIN,
        device: str | torch.device = "cpu",
    ) -> None:
        self.network = network.to(device).eval()
        self.conditioning, self.name, self.resolution, self.device = conditioning, name, resolution, device
        self.pointer = acting.pointer if conditioning.uses_pointer else "none"
        self.acting = acting if conditioning.uses_pointer and self.remembers else PLAIN
        self._pixel = PIXEL * FACTORS[resolution]

    def act(self, views: Sequence[View], batch: int = BATCH) -> list[Action]:
        """One action a view.

        Args:
            views: what is seen.
            batch: views that go through the network together.

        Raises:
            ValueError: a view lacks the pointer that the agent follows.
            UserError: weights are so large that scores are not finite.
        """
        return [self.best(scores) for scores in self.score(views, batch)]

    def best(self, scores: Any) -> Action:
        """The action that scores, `ActionDistribution` or `FieldChoice`, stand for."""
        if isinstance(scores, FieldChoice):
            return scores.action
        factor = FACTORS[self.resolution]
        pick, place = (np.append(pixel_to_xy(at, factor), 0.0) for at in (scores.pick_pixel, scores.place_pixel))
        return pick_place_fields(pick, place, scores.turn)

    def score(self, views: Sequence[View], batch: int = BATCH) -> list[Any]:
        """Score each view; the result is the same to the bit for any number of cores.

        Returns:
            For each an `ActionDistribution`, or a `FieldChoice`.

        Raises:
            UserError: a view asks for actions of another primitive.
        """
        for view in views:
            if view.spec != self.network.action:
                raise UserError(f"{self.name} chooses actions of {self.network.action}, not of {view.spec}")
        starts = range(0, len(views), batch)
        with _one_thread():
            return [scores for start in starts for scores in self._score(views[start : start + batch], batch)]

    @torch.inference_mode()
    def _score(self, views: Sequence[View], batch: int) -> Iterator[Any]:
        """All probability on what the network chooses."""
        aims = [self._pointer(view) for view in views]
        goals, images, tasks = self._shown(views, aims, batch)
        answer = self.network.act(images, tasks)
        named = isinstance(answer, Mapping)
        if not named and self.network.action != PICK_PLACE:
            raise UserError(f"{self.name} chooses by no names of fields, as {self.network.action} needs")
        chosen = (each.double().cpu().numpy() for each in (answer.values() if named else answer))
        for index, values in enumerate(zip(*chosen, strict=True)):
            if index == len(views):
                return
            if not all(np.isfinite(value).all() for value in values):
                raise UserError(f"what {self.name} chooses is not finite: its weights are damaged, so train it again")
            aimed = int(goals[index, 0]) if self.conditioning.images else None
            if named:
                yield FieldChoice(self._fields(dict(zip(answer, values, strict=True))), aimed)
                continue
            pick, place, turn = values
            at_pick, at_place = (_certain(at, images.shape[-2:]) for at in (pick, place))
            only = np.ones(1, np.float32)
            yield ActionDistribution(at_pick, at_place, only, pick, place, wrap_angle(float(turn)), aimed)

    def _fields(self, action: Mapping[str, NDArray[np.float64]]) -> Action:
        try:
            checked = self.network.action.check(action)
        except ValueError as error:
            raise UserError(f"what {self.name} chooses is no action of {self.network.action.name}: {error}") from error
        return {name: value.astype(np.float32) for name, value in checked.items()}

    def _shown(self, views: Sequence[View], aims: Sequence[int], batch: int) -> tuple[NDArray[np.int64], Tensor, Tasks]:
        """Inputs of the network: sub-goals (N, K), and images and problems, filled up to a batch."""
        goals = self.conditioning.choose(
            aims,
            [view.step for view in views],
            [len(view.goal_color) for view in views],
        )
        images = torch.cat([self._images(view, chosen) for view, chosen in zip(views, goals, strict=True)])
        filled = torch.cat([images, images[:1].expand(batch - len(views), -1, -1, -1)])
        known = [self.network.index(view.problem) for view in views]
        tasks = Tasks.of(known + known[:1] * (batch - len(views)), self.device)
        return goals, filled.to(self.device), tasks

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


class TransporterAgent(NetworkAgent):
    """Picks and places where a Transporter's scores are highest.

    An agent that follows a pointer knows that what it tried since the pointer last moved was in vain. Where the picture
    is as it was, the same pick would be its answer for ever: each try lowers the scores there, and after some it goes
    for later sub-goals first, see `retry`.
    """

    remembers = True
    network: Transporter

    @torch.inference_mode()
    def _score(self, views: Sequence[View], batch: int) -> Iterator[ActionDistribution]:
        pointers = [self._pointer(view) for view in views]
        aims = [aim(view, pointer, self.acting.patience) for view, pointer in zip(views, pointers, strict=True)]
        goals, filled, tasks = self._shown(views, aims, batch)
        maps = self.network.streams(filled, tasks)
        pick_odds, picks = _choose(self._inhibited(maps.pick, views, pointers))
        if self.acting.inhibition or self.acting.patience:
            for view, pointer, aimed, pick in zip(views, pointers, aims, picks[: len(views)], strict=True):
                note(view, pointer, aimed, pick, self._pixel)
        at = torch.from_numpy(picks).to(self.device)
        scored = self.network.places(filled, maps, at)
        place_odds, places = _choose(scored.pixel_logits())
        turn_logits = self.network.turns(filled, at, torch.from_numpy(places).to(self.device), scored, tasks)
        turn_odds = turn_logits.float().softmax(1).cpu().numpy()
        if not all(np.isfinite(odds).all() for odds in (pick_odds, place_odds, turn_odds)):
            raise UserError(f"the scores of {self.name} are not finite: its weights are damaged, so train it again")
        for index in range(len(views)):
            turn = wrap_angle(refine_turn(turn_odds[index]) * 2 * math.pi / self.network.rotations)
            odds = pick_odds[index], place_odds[index], turn_odds[index]
            first = int(goals[index, 0]) if self.conditioning.images else None
            yield ActionDistribution(*odds, picks[index], places[index], turn, first)

    def _inhibited(self, logits: Tensor, views: Sequence[View], pointers: Sequence[int]) -> Tensor:
        """Logits of picks (N, H, W), lowered where the first of them were tried in vain."""
        if not self.acting.inhibition:
            return logits
        lowered = np.zeros(logits.shape, np.float32)
        for index, (view, pointer) in enumerate(zip(views, pointers, strict=True)):
            lowered[index] = self.acting.inhibition * count_tries(view, pointer, logits.shape[1:], self._pixel)
        return logits - torch.from_numpy(lowered).to(self.device)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums that threads share out are rounded otherwise with each number of them, and contact tells the difference."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _certain(at: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float32]:
    """Probabilities (H, W) that lie on the pixel nearest to a row and a column."""
    odds = np.zeros(tuple(shape), np.float32)
    row, column = (int(np.clip(round(float(each)), 0, side - 1)) for each, side in zip(at, shape, strict=True))
    odds[row, column] = 1.0
    return odds


def _choose(logits: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Probabilities (N, H, W) of logits, and the best row and column (N, 2) of each."""
    odds = logits.float().flatten(1).softmax(1).reshape(logits.shape).cpu().numpy()
    return odds, np.array([refine(each) for each in odds])


def refine(odds: NDArray[np.float32]) -> tuple[float, float]:
    """Row and column of the middle of the 3 x 3 pixels that most probability (H, W) lies in: finer than a pixel."""
    near = uniform_filter(odds, size=3, mode="constant")
    best = np.unravel_index(int(near.argmax()), odds.shape)
    rows, columns = (
        np.arange(max(int(at) - 1, 0), min(int(at) + 2, side)) for at, side in zip(best, odds.shape, strict=True)
    )
    around = odds[np.ix_(rows, columns)].astype(np.float64)
    around /= around.sum()
    return float(around.sum(1) @ rows), float(around.sum(0) @ columns)


def refine_turn(odds: NDArray[np.float32]) -> float:
    """Middle of the 3 neighbouring turns that most probability (R,) lies in, in bins; it may be just below 0."""
    best = int(uniform_filter(odds, size=3, mode="wrap").argmax())
    turns = np.arange(best - 1, best + 2)
    around = odds[turns % len(odds)].astype(np.float64)
    return float(around @ turns / around.sum())
