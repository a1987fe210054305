"""Demonstrations from elsewhere, such as a real camera or another simulator, as a data set like our own."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from multiravens.actions import PICK_PLACE, ActionField, ActionSpec, pick_place_fields
from multiravens.data.storage.episode import MAX_STEPS, Episode, write_episode
from multiravens.data.storage.manifest import update_manifest
from multiravens.data.storage.splits import known_splits, parse_splits
from multiravens.data.storage.store import DATASET, Store
from multiravens.errors import UserError, unknown
from multiravens.geometry import BOUNDS, SHAPE, xy_to_pixel
from multiravens.picture_checks import as_array, check_color, check_height, check_range, check_shape


class EpisodeWriter:
    """Writes episodes of one problem and split; opened again, it appends.

    Args:
        data: Folder of all problems.
        problem: A name of your own; it names the sub-folder, and training asks for it in `problems=[NAME]`.
        split: Names the sub-folder of that.
        seeds: Its first seed and the one after the last; those of `train`, `test` and `validation` are known.
        spec: The fields of its actions, where they are not to pick and place.

    Attributes:
        store: The data set.

    Raises:
        UserError: If a name can't be a folder's, the split's seeds are not known, or simulated data has these names.
    """

    def __init__(
        self,
        data: str | Path,
        problem: str,
        split: str = "train",
        seeds: tuple[int, int] | None = None,
        spec: ActionSpec = PICK_PLACE,
    ) -> None:
        ranges = known_splits() if seeds is None else parse_splits({split: seeds})
        if split not in ranges:
            raise UserError(f"{unknown('split', split, ranges)}, or give the seeds of your own")
        environment = {"source": "external", "problem": {"name": problem}}
        self.store = Store.create(data, problem, split, ranges[split], environment, spec)
        folder = self.store.folder
        if (folder / DATASET).exists() and Store.open(folder).environment != self.store.environment:
            raise UserError(
                f"{folder} holds demonstrations made by multiravens.demos: give yours another problem's name"
            )

    def write(
        self,
        color: ArrayLike,
        height: ArrayLike,
        pick: ArrayLike,
        place: ArrayLike,
        turn: ArrayLike = 0.0,
        *,
        period: ArrayLike = 2 * math.pi,
        goal_frames: ArrayLike | None = None,
        subgoals: Sequence[str] | None = None,
    ) -> Path:
        """Writes one successful episode of T picks and places and G sub-goals, under the split's next free seed.

        Args:
            color: (T + 1, 320, 160, 3) uint8 heightmaps before the first action and after each: red, green, blue.
            height: (T + 1, 320, 160) height above the table [m].
            pick: (T, 2) or (T, 3) where the tip touches, in the world's frame [m]; without z the surface's height
                there is taken.
            place: (T, 2) or (T, 3) where it lets go, likewise.
            turn: (T,) or one for all, by which what is held is turned about +z on the way [rad].
            period: (T,) or one for all, the turn after which what is held looks the same [rad]; 0 after any, 2 pi only
                after a full one.
            goal_frames: (G,) the frame that first shows each sub-goal reached, counted from 0; they may not fall, and
                the last is frame T. By default each action reaches one: 1 to T.
            subgoals: Their names; `PROBLEM/goal 0` and so on by default.

        Returns:
            The episode's file.

        Raises:
            ValueError: If a field has the wrong shape, type or range; nothing is written then.
            UserError: If another command is writing to the data set, it holds episodes of another environment, its
                seeds are used up, or the disk refuses.
        """
        if self.store.spec != PICK_PLACE:
            raise ValueError(f"{self.store.name} holds actions of {self.store.spec}: write them by write_actions")
        color, height = _pictures(color, height)
        turns = _angles("turn", turn, len(color) - 1, -math.inf, math.inf)
        actions = pick_place_fields(_positions("pick", pick, height), _positions("place", place, height), turns)
        return self._write(color, height, actions, period, goal_frames, subgoals)

    def write_actions(
        self,
        color: ArrayLike,
        height: ArrayLike,
        actions: Mapping[str, ArrayLike],
        *,
        goal_frames: ArrayLike | None = None,
        subgoals: Sequence[str] | None = None,
    ) -> Path:
        """Writes one successful episode of T actions of whichever primitive.

        Args:
            color: As of `write`, as are height, goal_frames and subgoals, what is returned and what is raised.
            height: As well.
            actions: (T, W) each field of `spec`; of positions (T, 2) will do, as for a pick.
            goal_frames: As well.
            subgoals: As well.
        """
        color, height = _pictures(color, height)
        fields = {field.name: _field(field, actions, height) for field in self.store.spec.fields}
        return self._write(color, height, fields, 2 * math.pi, goal_frames, subgoals)

    def _write(
        self,
        color: np.ndarray,
        height: np.ndarray,
        actions: dict[str, np.ndarray],
        period: ArrayLike,
        goal_frames: ArrayLike | None,
        subgoals: Sequence[str] | None,
    ) -> Path:
        steps = len(color) - 1
        holds, names = self._subgoals(goal_frames, subgoals, steps)
        episode = Episode(
            seed=-1,
            problem=self.store.folder.parent.name,
            color=color,
            height=height,
            pointer=holds.sum(axis=1),
            actions=actions,
            spec=self.store.spec,
            periods=_angles("period", period, steps, 0.0, 2 * math.pi).astype(np.float32),
            rewards=np.diff(holds.sum(axis=1) / len(names)),
            poses=np.zeros((steps + 1, 0, 7), np.float32),
            subgoals=names,
            goal_frames=holds.argmax(axis=0),
            holds=holds,
            success=True,
        )
        return self._store(episode)

    def _subgoals(
        self, goal_frames: ArrayLike | None, subgoals: Sequence[str] | None, steps: int
    ) -> tuple[np.ndarray, list[str]]:
        """Returns which sub-goals hold in which frame (T + 1, G), and their names."""
        frames = as_array("goal_frames", range(1, steps + 1) if goal_frames is None else goal_frames)
        if frames.ndim != 1 or frames.dtype.kind not in "iu" or not 1 <= len(frames) <= MAX_STEPS:
            found = f"{frames.shape} {frames.dtype}"
            raise ValueError(f"goal_frames is {found}; it must be (G,) integers, G from 1 to {MAX_STEPS}")
        if frames[0] < 1 or (frames[1:] < frames[:-1]).any() or frames[-1] != steps:
            raise ValueError(
                f"goal_frames is {frames.tolist()}; it must start at 1 or later, never fall, and end with the last "
                f"frame, {steps}: leave out what follows the last sub-goal"
            )
        problem = self.store.folder.parent.name
        names = [f"{problem}/goal {index}" for index in range(len(frames))] if subgoals is None else list(subgoals)
        if len(names) != len(frames) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"subgoals is {names}; it must be {len(frames)} names, one for each of goal_frames")
        return frames <= np.arange(steps + 1)[:, None], names

    def _store(self, episode: Episode) -> Path:
        with self.store.writing():
            used = {*self.store.kept(), *self.store.rejected()}
            episode.seed = max(used, default=self.store.seeds.start - 1) + 1
            if episode.seed not in self.store.seeds:
                first, last = self.store.seeds[0], self.store.seeds[-1]
                raise UserError(
                    f"the seeds of {self.store.name}, {first} to {last}, are used up: write to another split or problem"
                )
            path = self.store.path(episode.seed)
            write_episode(path, episode, self.store.fingerprint)
            update_manifest(self.store)
        return path


def _pictures(color: ArrayLike, height: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    color, height = check_color("color", color, "T + 1, "), check_height("height", height, "T + 1, ")
    check_shape("height", height, (len(color), *SHAPE), "one for each colour picture")
    if not 2 <= len(color) <= MAX_STEPS + 1:
        raise ValueError(f"color has {len(color)} frames: give 2 to {MAX_STEPS + 1}, one more than actions")
    return color, height


def _field(field: ActionField, actions: Mapping[str, ArrayLike], height: np.ndarray) -> np.ndarray:
    """Returns a field (T, W) float32 of actions."""
    if field.name not in actions:
        raise ValueError(f"actions lacks {field.name!r}: give every field of the primitive's action")
    if field.kind == "position":
        return _positions(field.name, actions[field.name], height)
    values = as_array(field.name, actions[field.name])
    check_shape(field.name, values, (len(height) - 1, field.width), "one row for each action")
    return np.stack([field.check(row) for row in values]).astype(np.float32)


def _positions(name: str, value: ArrayLike, height: np.ndarray) -> np.ndarray:
    """Returns positions (T, 3) float32 [m]; z is the surface's height in the frame before where it is not given."""
    positions, steps = as_array(name, value), len(height) - 1
    if positions.shape not in ((steps, 2), (steps, 3)):
        raise ValueError(
            f"{name} has shape {positions.shape}; it must be ({steps}, 2) or ({steps}, 3): one position for each "
            "action, and one action fewer than frames"
        )
    remedy = ": positions are in the world's frame, x away from the robot, y to its left, z up from the table"
    for axis in range(positions.shape[1]):
        low, high = BOUNDS[axis].tolist()
        check_range(f"{name} {'xyz'[axis]}", positions[:, axis], low, high, "m", remedy)
    if positions.shape[1] == 2:
        rows, columns = np.clip(xy_to_pixel(positions), 0, np.array(SHAPE) - 1).T
        surface = height[np.arange(steps), rows, columns]
        positions = np.column_stack([positions, np.minimum(surface, BOUNDS[2, 1])])
    return positions.astype(np.float32)


def _angles(name: str, value: ArrayLike, steps: int, low: float, high: float) -> np.ndarray:
    angles = as_array(name, value)
    if angles.ndim == 0:
        angles = np.repeat(angles, steps)
    check_shape(name, angles, (steps,), "one for each action, or a single number for all")
    check_range(name, angles, low, high, "rad", "")
    return np.clip(angles.astype(np.float64), low, high)
