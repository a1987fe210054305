"""What an agent remembers of picks that it tried in vain, so that it does not try them for ever.

Reference: Itti and Koch 2000, "A saliency-based search mechanism for overt and covert shifts of visual attention".
Departs: a place is only inhibited while it looks as it did when it was tried. A second try mostly has to pick again
what has moved a little.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multiravens.agents.agent import View

REACH = 0.01
"""Standard deviation [m] of what is shunned round a pick."""
AROUND = 0.03
"""Side [m] of the square round a pick that is compared."""
SAME_COLOR, SAME_HEIGHT = 6.0, 0.0015
"""Mean differences of colour (of 255) and height [m] below which a square looks as it did."""


class Try(NamedTuple):
    """What an agent notes of a step.

    Attributes:
        pointer: the sub-goal that it was after.
        pick: (2,) row and column.
        color: (K, K, 3) round the pick, before.
        height: (K, K) [m].
    """

    pointer: int
    pick: NDArray[np.float64]
    color: NDArray[np.float32]
    height: NDArray[np.float32]


def note(view: View, pointer: int, pick: NDArray[np.float64], pixel: float) -> None:
    """Write a step's pick (2,), in pixels of a size [m], into the view's memory."""
    view.memory[view.step] = Try(pointer, pick, *_around(view, pick, pixel))


def count_tries(view: View, pointer: int, shape: Sequence[int], pixel: float) -> NDArray[np.float32]:
    """How often picks near each pixel (H, W) were tried for the same sub-goal where all looks as it did.

    Args:
        view: what is seen now, with its memory.
        pointer: the sub-goal that the agent is after; notes of before it last moved do not count.
        shape: H and W.
        pixel: its side [m].
    """
    rows, columns = np.indices(shape)
    count = np.zeros(shape)
    for step in range(view.step - 1, -1, -1):
        last = view.memory.get(step)
        if not isinstance(last, Try) or last.pointer != pointer:
            break
        color, height = _around(view, last.pick, pixel)
        if np.abs(color - last.color).mean() < SAME_COLOR and np.abs(height - last.height).mean() < SAME_HEIGHT:
            distances = (rows - last.pick[0]) ** 2 + (columns - last.pick[1]) ** 2
            count += np.exp(-distances * pixel**2 / (2 * REACH**2))
    return count.astype(np.float32)


def _around(view: View, pick: NDArray[np.float64], pixel: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour and height of the square round a pick; the picture's edge is repeated outside of it."""
    half = round(AROUND / pixel / 2)
    rows, columns = (
        np.clip(np.arange(-half, half + 1) + round(float(at)), 0, side - 1)
        for at, side in zip(pick, view.height.shape, strict=True)
    )
    square = np.ix_(rows, columns)
    return view.color[square].astype(np.float32), view.height[square].astype(np.float32)
