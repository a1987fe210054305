"""The state of an environment as plain data: an episode's seed and actions, from which it is simulated again.

Bullet's own snapshots leave out what its solver carries from step to step, and linked bodies go on differently after
one. An episode that is played again from its seed is the same to the byte.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from multiravens.actions import ActionSpec, Fields
from multiravens.errors import UserError, quote, unknown
from multiravens.geometry import Array

State = dict[str, Any]


class Played(NamedTuple):
    """An episode so far.

    Attributes:
        seed: of the episode.
        actions: taken since its start, as they were given.
        poses: (B, 7) of all bodies now, position [m] and quaternion xyzw.
    """

    seed: int
    actions: Sequence[Fields]
    poses: Array


def pack(problem: str, played: Played, spec: ActionSpec) -> State:
    """Write an episode so far as numbers, text and arrays.

    Args:
        problem: its name.
        played: the episode.
        spec: of its actions.

    Returns:
        `problem`, `seed`, one array (T, W) for each field of the T actions, and `poses` (B, 7).
    """
    actions = spec.columns(played.actions)
    return {"problem": problem, "seed": int(played.seed), **actions, "poses": np.array(played.poses)}


def unpack(state: Mapping[str, Any], problem: str, spec: ActionSpec) -> Played:
    """Read what `pack` wrote; lists and arrays of no dimension, as files give them back, are taken as well.

    Raises:
        UserError: a key is missing or unknown, a value is of another kind, or the state is another problem's.
    """
    keys = ("problem", "seed", *spec.widths, "poses")
    if not isinstance(state, Mapping):
        raise UserError(f"a state is what get_state() returned, a dictionary of {', '.join(keys)}; not {quote(state)}")
    for key in state:
        if key not in keys:
            raise unknown("key of a state", str(key), keys)
    for key in keys:
        if key not in state:
            raise UserError(f"the state lacks {key!r}: give all of {', '.join(keys)}")
    if str(state["problem"]) != problem:
        raise UserError(
            f"the state is of {quote(str(state['problem']))}, and this environment's problem is {problem!r}"
        )
    seed = np.asarray(state["seed"], dtype=object)
    if seed.shape != () or isinstance(seed.item(), bool) or not isinstance(seed.item(), int) or seed.item() < 0:
        raise UserError(f"the state's seed is {quote(state['seed'])}: give an integer of 0 or more")
    columns = {name: _numbers(state[name], name, width, np.float32) for name, width in spec.widths.items()}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) > 1:
        raise UserError(f"the state's fields are of {counts} actions: give as many of each")
    actions = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    for action in actions:
        try:
            spec.check(action)
        except ValueError as error:
            raise UserError(f"the state's actions: {error}") from error
    return Played(seed.item(), actions, _numbers(state["poses"], "poses", 7, float))


def compare(here: Array, there: Array) -> str:
    """Difference between the poses of bodies, (B, 7) each, in words; empty where they are the same."""
    if here.shape != there.shape:
        return f"{len(here)} bodies here, {len(there)} in the state"
    return "" if np.array_equal(here, there) else f"they differ by up to {abs(here - there).max():.2g}"


def _numbers(value: ArrayLike, name: str, width: int, kind: type) -> NDArray[Any]:
    """An array (N, width) of a state's numbers."""
    try:
        array: NDArray[Any] = np.asarray(value, dtype=kind)
    except (TypeError, ValueError) as error:
        raise UserError(f"the state's {name} is {quote(value)}: give an array of numbers") from error
    if array.size == 0:
        array = array.reshape(0, width)
    if array.ndim != 2 or array.shape[1] != width:
        raise UserError(f"the state's {name} has shape {array.shape}; it must be (N, {width})")
    if not np.isfinite(array).all():
        raise UserError(f"the state's {name} holds a number that is not finite")
    return array
