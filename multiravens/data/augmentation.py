"""Turning and shifting a sample as a whole: observation, goals and action alike."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from multiravens.data.demonstrations import Batch, upload

_TRIES = 24


class Warp(NamedTuple):
    """Rigid motions of N pictures in their plane.

    Attributes:
        turn: (N,) [rad], from +x (columns) to +y (rows), about the picture's middle.
        shift: (N, 2) rows and columns [pixels], after the turn.
    """

    turn: np.ndarray
    shift: np.ndarray


class SE2:
    """Draws one rigid motion a sample, redrawn until pick and place stay inside.

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

    def draw(self, pick: np.ndarray, place: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> Warp:
        """Draw for N samples.

        Args:
            pick: (N, 2) row and column.
            place: (N, 2).
            shape: rows and columns of the pictures.
            rng: its draws depend on N alone.
        """
        count = len(pick)
        turns = np.concatenate([rng.normal(0, self.turn, (count, _TRIES)), np.zeros((count, 1))], axis=1)
        shifts = rng.normal(0, self.shift * min(shape), (count, _TRIES, 2))
        shifts = np.concatenate([shifts, np.zeros((count, 1, 2))], axis=1)
        points = np.stack([pick, place], axis=1)[:, None]
        moved = _move(points, turns[..., None], shifts[:, :, None], shape)
        inside = np.asarray(((moved >= 0) & (moved <= np.array(shape) - 1)).all((2, 3)))
        # The last candidate stays put.
        first = np.where(inside.any(1), inside.argmax(1), _TRIES)
        rows = np.arange(count)
        return Warp(turns[rows, first], shifts[rows, first])


def moved(batch: Batch, warp: Warp) -> Batch:
    """The batch with every sample moved; bilinear, zeros come in from outside."""
    middle = [(side - 1) / 2 for side in batch.images.shape[-2:]]
    columns = np.c_[np.cos(warp.turn), np.sin(warp.turn), warp.shift + middle]
    cos, sin, down, right = upload(columns, batch.images.device).unbind(1)

    def at(points: Tensor) -> Tensor:
        centred = [points[:, axis].double() - middle[axis] for axis in range(2)]
        rows, columns = _turned(centred[0], centred[1], cos, sin)
        return torch.stack([rows + down, columns + right], dim=1).float()

    pick, place = at(batch.pick), at(batch.place)
    return batch._replace(images=warp_images(batch.images, warp), pick=pick, place=place)


def warp_images(images: Tensor, warp: Warp) -> Tensor:
    """Move pictures (N, C, H, W): what was at p comes to R (p - middle) + middle + shift."""
    height, width = images.shape[-2:]
    cos, sin = np.cos(warp.turn), np.sin(warp.turn)
    down, right = warp.shift[:, 0], warp.shift[:, 1]
    # Each pixel out asks for where it came from, in grid_sample's coordinates: x right, y down, both in [-1, 1].
    x_shift, y_shift = -(cos * right + sin * down), -(cos * down - sin * right)
    rows, columns = (height - 1) / 2, (width - 1) / 2
    matrix = np.stack(
        [
            np.stack([cos, sin * rows / columns, x_shift / columns], axis=-1),
            np.stack([-sin * columns / rows, cos, y_shift / rows], axis=-1),
        ],
        axis=1,
    )
    theta = upload(matrix.astype(np.float32), images.device)
    grid = functional.affine_grid(theta, list(images.shape), align_corners=True)
    return functional.grid_sample(images, grid, mode="bilinear", align_corners=True)


def _move(points: np.ndarray, turn: np.ndarray, shift: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Points (..., 2) given as row and column, turned about the picture's middle and shifted."""
    middle = (np.array(shape) - 1) / 2
    rows, columns = np.moveaxis(points - middle, -1, 0)
    rows, columns = _turned(rows, columns, np.cos(turn), np.sin(turn))
    return np.stack([rows, columns], axis=-1) + middle + shift


def _turned(rows: Any, columns: Any, cos: Any, sin: Any) -> tuple[Any, Any]:
    """Rows and columns, of arrays or tensors, turned about the origin."""
    return cos * rows + sin * columns, cos * columns - sin * rows
