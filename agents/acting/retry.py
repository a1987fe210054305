"""Memory of an agent's failed attempts, so that it does not repeat them for ever.

Inhibition shuns picks, after Itti and Koch 2000, "A saliency-based search mechanism for overt and covert shifts of
visual attention". Departs: a place is only inhibited while it looks as it did when it was tried. A second try mostly
has to pick again what has moved a little.

Patience ends with a sub-goal: what else there is to do is done first. Departs from Lim et al. 2109.07578, whose agent
goes for the next sub-goal until it holds, so that one which it can't reach costs all that come after.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from multiravens.agents.acting.agent import View

REACH = 0.01
"""Standard deviation [m] of what is shunned round a pick."""
AROUND = 0.03
"""Side [m] of the square round a pick that is compared."""
SAME_COLOR, SAME_HEIGHT = 6.0, 0.0015
"""Mean differences of colour (of 255) and height [m] below which a square looks as it did."""


class Try(NamedTuple):
    """An agent's note of a step.

    Attributes:
        pointer: the first sub-goal that did not hold.
        aim: the sub-goal that it was after.
        pick: (2,) row and column.
        color: (K, K, 3) round the pick, before.
        height: (K, K) [m].
    """

    pointer: int
    aim: int
    pick: NDArray[np.float64]
    color: NDArray[np.float32]
    height: NDArray[np.float32]


def note(view: View, pointer: int, aimed: int, pick: NDArray[np.float64], pixel: float) -> None:
    """Write what a step is after, and its pick (2,), in pixels of a size [m], into the view's memory."""
    view.memory[view.step] = Try(pointer, aimed, pick, *_around(view, pick, pixel))


def aim(view: View, pointer: int, patience: int) -> int:
    """The sub-goal to go for: the one at the pointer, or a later one whose image shows what was done since.

    Where the pointer has not moved in so many tries as there is patience, each later sub-goal is gone for once. From
    then on the image is one in which they are done: any before it would have the agent undo them. Likewise where a
    sub-goal is lost that held before.

    Args:
        view: what is seen now, with its memory.
        pointer: the first sub-goal that does not hold, 0 to G.
        patience: tries; 0 for one that never ends, and follows the pointer whatever was done.

    Returns:
        Its index.
    """
    if not patience:
        return pointer
    notes = [view.memory.get(step) for step in range(view.step)]
    tries = [note for note in notes if isinstance(note, Try)]
    done = [note.aim if note.aim > note.pointer else note.pointer - 1 for note in tries]
    out_of_patience = sum(1 for _ in _in_vain(view, pointer)) >= patience
    return min(max(pointer, *done, 0) + out_of_patience, len(view.goal_color) - 1)


def count_tries(view: View, pointer: int, shape: Sequence[int], pixel: float) -> NDArray[np.float32]:
    """Count the attempts to pick near each pixel (H, W) for the same sub-goal, where the table looks as it did then.

    Args:
        view: what is seen now, with its memory.
        pointer: the first sub-goal that does not hold; notes of before it last moved do not count.
        shape: H and W.
        pixel: its side [m].
    """
    rows, columns = np.indices(shape)
    count = np.zeros(shape)
    for last in _in_vain(view, pointer):
        color, height = _around(view, last.pick, pixel)
        if np.abs(color - last.color).mean() < SAME_COLOR and np.abs(height - last.height).mean() < SAME_HEIGHT:
            distances = (rows - last.pick[0]) ** 2 + (columns - last.pick[1]) ** 2
            count += np.exp(-distances * pixel**2 / (2 * REACH**2))
    return count.astype(np.float32)


def _in_vain(view: View, pointer: int) -> Iterator[Try]:
    """Tries since the pointer moved, the latest first."""
    for step in range(view.step - 1, -1, -1):
        last = view.memory.get(step)
        if not isinstance(last, Try) or last.pointer != pointer:
            return
        yield last


def _around(view: View, pick: NDArray[np.float64], pixel: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colour and height of the square round a pick; the picture's edge is repeated outside of it."""
    half = round(AROUND / pixel / 2)
    rows, columns = (
        np.clip(np.arange(-half, half + 1) + round(float(at)), 0, side - 1)
        for at, side in zip(pick, view.height.shape, strict=True)
    )
    square = np.ix_(rows, columns)
    return view.color[square].astype(np.float32), view.height[square].astype(np.float32)
