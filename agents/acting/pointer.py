"""The goal pointer from a camera's images: the sub-goal whose image the table looks like."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from multiravens.agents.acting.agent import View

_SMOOTHING = 3  # pixels; evens out camera noise
COLOR_CHANGE, HEIGHT_CHANGE = 0.12, 0.006
"""Pixels differ when a colour channel (of 1) or the height [m] differs by more: twice the smoothed noise of a D415."""
_ENOUGH = 0.5  # of the pixels that a sub-goal changed must look like its image for it to hold

Picture = NDArray[np.float32]


def visual_pointer(view: View) -> int:
    """The first sub-goal that does not hold, judged by pictures alone.

    The table is compared with the start and with every goal image where those differ at all; the picture it looks like
    most tells how far the sequence has come. Then each sub-goal before must still look as it does in that picture.

    Args:
        view: of which the pointer is not looked at.

    Returns:
        0 to G.
    """
    frames = [_picture(view.start_color, view.start_height)]
    frames += [_picture(color, height) for color, height in zip(view.goal_color, view.goal_height, strict=True)]
    changed = [_differ(before, after) for before, after in zip(frames[:-1], frames[1:], strict=True)]
    anywhere = np.logical_or.reduce(changed)
    now = _picture(view.color, view.height)
    alike = [~_differ(now, frame) for frame in frames]
    scores = [float(same[anywhere].mean()) if anywhere.any() else 0.0 for same in alike]
    # Sub-goals met by one action share an image: the last of them counts.
    best = max(range(len(frames)), key=lambda index: (round(scores[index], 6), index if scores[index] > 0 else 0))
    later = np.zeros_like(anywhere)
    first = best
    for index in range(best - 1, -1, -1):
        own = changed[index] & ~later
        if own.any() and alike[best][own].mean() < _ENOUGH:
            first = index
        later |= changed[index]
    return first


def _picture(color: NDArray[np.uint8], height: NDArray[np.float32]) -> Picture:
    """(H, W, 4): smoothed, in units of what counts as a change."""
    joined = np.concatenate([color / (255 * COLOR_CHANGE), height[..., None] / HEIGHT_CHANGE], axis=-1)
    return np.asarray(uniform_filter(joined.astype(np.float32), size=(_SMOOTHING, _SMOOTHING, 0)))


def _differ(one: Picture, other: Picture) -> NDArray[np.bool_]:
    return np.asarray((np.abs(one - other) > 1.0).any(-1))
