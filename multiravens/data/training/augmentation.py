"""Augmentation: changes to samples as training sees them, observation, goals and action alike."""

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from multiravens.data.training.demonstrations import Batch
from multiravens.errors import UserError

_TRIES = 24


class Augmentation(ABC):
    """Changes samples by what it draws for each of them.

    What is drawn is sent to the device together with all else of a step, so that nothing waits for it.
    """

    @abstractmethod
    def draw(self, count: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw for N samples, on the host.

        Args:
            count: N.
            shape: rows and columns of the pictures.
            rng: of this step and this augmentation.

        Returns:
            (N, ..) numbers of any kind.
        """

    @abstractmethod
    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Change the samples.

        Args:
            batch: N samples, where the network computes; of others' tensors make new ones.
            drawn: (N, ..) what was drawn for them, there too.
        """


class SE2(Augmentation):
    """Turns and shifts each sample as a whole, redrawn until pick and place stay inside.

    Args:
        turn_degrees: standard deviation of the turn.
        shift: standard deviation of the shift along each side, in widths of the picture.

    Reference: Zeng et al. 2010.14406 (60 degrees, a sixth of the width).
    Departs: bilinear, since nearest neighbours would blur a part's yaw by more than a turn that is told apart; of 24
    draws the first that stays inside is taken, and none at all where none does, so that a batch is made at once.
    """

    def __init__(self, turn_degrees: float = 60.0, shift: float = 1 / 6) -> None:
        if turn_degrees < 0 or shift < 0:
            raise ValueError(f"turn_degrees={turn_degrees}, shift={shift}: give 0 or more")
        self.turn, self.shift = math.radians(turn_degrees), shift

    def draw(self, count: int, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
        """Draw 24 motions a sample, whatever they would move; the 25th stays put: (N, 25, 10) as of `motions`."""
        turns = np.concatenate([rng.normal(0, self.turn, (count, _TRIES)), np.zeros((count, 1))], axis=1)
        shifts = rng.normal(0, self.shift * min(shape), (count, _TRIES, 2))
        return motions(turns, np.concatenate([shifts, np.zeros((count, 1, 2))], axis=1), shape)

    def apply(self, batch: Batch, drawn: Tensor) -> Batch:
        """Move each sample by the first of its motions that leaves pick and place inside.

        Raises:
            UserError: the actions are of another primitive.
        """
        if batch.action:
            raise UserError(f"SE2 moves picks and places, not {', '.join(batch.action)}: give augmentation=none")
        first = first_inside(batch.pick, batch.place, drawn, tuple(batch.images.shape[-2:]))
        return move(batch, drawn[torch.arange(len(first), device=first.device), first])


def motions(turn: np.ndarray, shift: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Rigid motions of pictures in their plane, as `move` takes them.

    Args:
        turn: (..) [rad], from +x (columns) to +y (rows), about the picture's middle.
        shift: (.., 2) rows and columns [pixels], after the turn.
        shape: rows and columns of the pictures.

    Returns:
        (.., 10): cosine and sine of the turn; the rows and columns that the picture's middle comes to; and, row by row,
        the 2 x 3 matrix that says of each pixel where it came from, in grid_sample's coordinates: x right, y down, both
        in [-1, 1].
    """
    cos, sin = np.cos(turn), np.sin(turn)
    down, right = shift[..., 0], shift[..., 1]
    rows, columns = ((side - 1) / 2 for side in shape)
    x_shift, y_shift = -(cos * right + sin * down), -(cos * down - sin * right)
    matrix = cos, sin * rows / columns, x_shift / columns, -sin * columns / rows, cos, y_shift / rows
    return np.stack([cos, sin, down + rows, right + columns, *matrix], axis=-1)


def first_inside(pick: Tensor, place: Tensor, candidates: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Choose the first of several motions that leaves pick and place inside; the last one where none does.

    Args:
        pick: (N, 2) row and column.
        place: (N, 2).
        candidates: (N, T, 10) of `motions`.
        shape: rows and columns of the pictures.

    Returns:
        (N,) int64.
    """
    inside = candidates.new_ones(candidates.shape[:2], dtype=torch.bool)
    for points in (pick, place):
        for side, at in zip(shape, _at(points[:, None], candidates, shape), strict=True):
            inside &= (at >= 0) & (at <= side - 1)
    inside[:, -1].fill_(True)
    return inside.to(torch.uint8).argmax(1)


def move(batch: Batch, motion: Tensor) -> Batch:
    """The batch with every sample moved by one of `motions`, (N, 10) where the batch is; zeros come in from outside."""
    shape = tuple(batch.images.shape[-2:])
    pick, place = (torch.stack(_at(points, motion, shape), dim=1).float() for points in (batch.pick, batch.place))
    theta = motion[:, 4:].float().unflatten(1, (2, 3))
    grid = functional.affine_grid(theta, list(batch.images.shape), align_corners=True)
    images = functional.grid_sample(batch.images, grid, mode="bilinear", align_corners=True)
    return batch._replace(images=images, pick=pick, place=place)


def _at(points: Tensor, motion: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Rows and columns that points (.., 2) come to by motions (.., 10), double precision."""
    rows, columns = (points[..., axis].double() - (side - 1) / 2 for axis, side in enumerate(shape))
    cos, sin, down, right = motion[..., :4].unbind(-1)
    return cos * rows + sin * columns + down, cos * columns - sin * rows + right
