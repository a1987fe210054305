"""Demonstrations decoded for training: every picture once, as integers on one device, and a table of the steps.

Nothing here needs a simulator.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.data.storage.codec import HEIGHT_QUANTUM, quantize_height
from multiravens.data.storage.episode import Episode, read_episode
from multiravens.data.storage.pack import SUFFIX, Pack
from multiravens.data.storage.store import DATASET, Store
from multiravens.data.training.upload import send, upload_together
from multiravens.errors import UserError, unknown
from multiravens.geometry import BOUNDS, PIXEL, quaternion_yaw, wrap_angle
from multiravens.options.problems import refused
from multiravens.support.files import user_path

FACTORS = {"full": 1, "half": 2}
"""Full-resolution pixels that a pixel spans along each side."""

COLOR_MEAN, COLOR_SCALE = 0.35, 0.25
"""Of colours in [0, 1], over the pictures of the fifteen problems; with them a table's pixel is near 0."""
RESIDENT = 0.5
"""Share of a device's free memory that pictures may take; training needs the rest."""
HEIGHT_SCALE = 0.02
"""Heights are given in units of this [m], that of a part."""


@dataclass(frozen=True)
class Steps:
    """The table of S steps; each is one action of one demonstration.

    Attributes:
        task: (S,) int64 index of the problem.
        episode: (S,) int64 index of the demonstration, counted over all problems.
        step: (S,) int64 actions taken before.
        frame: (S,) int64 index of the picture before the action.
        pointer: (S,) int64 first sub-goal that does not hold.
        pick: (S, 2) float32 row and column [pixels], not rounded; as place and turn NaN of another primitive.
        place: (S, 2) float32 likewise.
        turn: (S,) float32 [rad].
        period: (S,) float32 [rad].
    """

    task: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    frame: np.ndarray
    pointer: np.ndarray
    pick: np.ndarray
    place: np.ndarray
    turn: np.ndarray
    period: np.ndarray


class Batch(NamedTuple):
    """Samples as a network and its loss take them.

    Attributes:
        images: (N, 4 (1 + K), H, W) float32: of observation and goals, red, green, blue and height, normalised.
        pick: (N, 2) float32 row and column [pixels]; as place and turn NaN of another primitive.
        place: (N, 2) float32.
        turn: (N,) float32 [rad].
        period: (N,) float32 [rad].
        labels: (N, ..) further ones by name, see `Demonstrations`.
        action: (N, W) float32 by name, the fields of the actions of another primitive, in the world frame; none where
            they pick and place.
    """

    images: Tensor
    pick: Tensor
    place: Tensor
    turn: Tensor
    period: Tensor
    labels: Mapping[str, Tensor] = {}
    action: Mapping[str, Tensor] = {}


class Demonstrations:
    """All demonstrations of a training run, decoded.

    Args:
        episodes: the demonstrations of each problem.
        resolution: `full` or `half`.
        device: where batches are put together. The pictures lie there, too, or in the host's memory if they would take
            more than `RESIDENT` of what is free.
        labels: by name, what gives a demonstration's further labels (T, ..), a row for each of its T steps.

    Raises:
        UserError: there is not a row of such labels for each step, or the actions are of several primitives.

    Attributes:
        tasks: names of the problems.
        steps: the table.
        goal_frames: (E, G) int64 frames of each demonstration's sub-goals; the last one repeated to a common length.
        counts: (E,) int64 sub-goals of each.
        color: (F, H, W, 3) uint8 tensor.
        height: (F, H, W) tensor, uint16 in units of 10 micrometres.
    """

    def __init__(
        self,
        episodes: Mapping[str, Sequence[Episode]],
        resolution: str = "full",
        device: str | torch.device = "cpu",
        labels: Mapping[str, Callable[[Episode], np.ndarray]] | None = None,
    ) -> None:
        self.tasks, self.resolution = list(episodes), resolution
        ordered = [(task, episode) for task, name in enumerate(self.tasks) for episode in episodes[name]]
        starts = np.cumsum([0, *(len(episode.color) for _, episode in ordered)])
        tables = [
            _steps(episode, task, index, int(starts[index]), FACTORS[resolution])
            for index, (task, episode) in enumerate(ordered)
        ]
        self.steps = Steps(
            **{name.name: np.concatenate([table[name.name] for table in tables]) for name in fields(Steps)}
        )
        self.counts = np.array([len(episode.goal_frames) for _, episode in ordered], np.int64)
        self.goal_frames = np.stack(
            [
                np.pad(start + episode.goal_frames, (0, self.counts.max() - len(episode.goal_frames)), mode="edge")
                for start, (_, episode) in zip(starts, ordered, strict=False)
            ]
        )
        height = np.concatenate([quantize_height(episode.height) for _, episode in ordered]).astype(np.uint16)
        color = np.concatenate([episode.color for _, episode in ordered])
        self.device = torch.device(device)
        self.color, self.height = _settled(color, height, self.device)
        columns = (self.steps.pick, self.steps.place, self.steps.turn[:, None], self.steps.period[:, None])
        self._actions = torch.from_numpy(np.concatenate(columns, axis=1)).to(self.device)
        spec = spec_of(episodes)
        self._fields = {
            name: torch.from_numpy(np.concatenate([episode.actions[name] for _, episode in ordered])).to(self.device)
            for name in (() if spec == PICK_PLACE else spec.widths)
        }
        self._labels = {
            name: torch.from_numpy(np.concatenate([_label(name, give, episode) for _, episode in ordered])).to(device)
            for name, give in (labels or {}).items()
        }

    @property
    def size(self) -> int:
        """Of all pictures [bytes]."""
        return self.color.nbytes + self.height.nbytes

    @property
    def resident(self) -> bool:
        """True if the pictures lie on the device that batches are put together on."""
        return self.color.device.type == self.device.type

    def batch(self, samples: np.ndarray, goals: np.ndarray) -> Batch:
        """Put samples together.

        Args:
            samples: (N,) rows of the table.
            goals: (N, K) indices into the sub-goals of each sample's demonstration.
        """
        frames = self.frames(samples, goals)
        return self.gather(frames, **upload_together({"samples": samples, "at": frames}, self.device))

    def frames(self, samples: np.ndarray, goals: np.ndarray) -> np.ndarray:
        """Frames (N, 1 + K) of samples (N,), rows of the table, and of their sub-goals (N, K)."""
        table = self.steps
        return np.c_[table.frame[samples], self.goal_frames[table.episode[samples][:, None], goals]]

    def gather(self, frames: np.ndarray, samples: Tensor, at: Tensor) -> Batch:
        """Put samples together that are known where they are put together.

        Args:
            frames: (N, 1 + K) as `frames` gives them.
            samples: (N,) rows of the table.
            at: the frames on the device.
        """
        color, height = self._pictures(frames, at)
        pick, place, turn, period = self._actions[samples].split([2, 2, 1, 1], dim=1)
        images = normalise(color, height.to(torch.float32) * HEIGHT_QUANTUM)
        labels, action = ({name: rows[samples] for name, rows in each.items()} for each in (self._labels, self._fields))
        return Batch(images, pick, place, turn[:, 0], period[:, 0], labels, action)

    def _pictures(self, frames: np.ndarray, at: Tensor) -> tuple[Tensor, Tensor]:
        if self.resident:
            # CUDA does not index unsigned numbers of 16 bits; the bits are the same.
            return self.color[at], self.height.view(torch.int16)[at].view(torch.uint16)
        here = torch.from_numpy(frames)
        return send(self.color[here], self.device), send(self.height[here], self.device)


def _settled(color: np.ndarray, height: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor]:
    """Pictures on a device, or in the host's memory if it has too little room."""
    pictures = torch.from_numpy(color), torch.from_numpy(height)
    if device.type == "cuda" and color.nbytes + height.nbytes > RESIDENT * torch.cuda.mem_get_info(device)[0]:
        return pictures
    return pictures[0].to(device), pictures[1].to(device)


def normalise(color: Tensor, height: Tensor) -> Tensor:
    """Pictures as networks see them: of every picture, three channels of colour and one of height.

    Args:
        color: (N, P, H, W, 3) uint8.
        height: (N, P, H, W) float32 [m].

    Returns:
        (N, 4 P, H, W) float32.
    """
    colors = (color.to(torch.float32) / 255 - COLOR_MEAN) / COLOR_SCALE
    joined = torch.cat([colors, (height / HEIGHT_SCALE)[..., None]], dim=-1)
    count, pictures, rows, columns, channels = joined.shape
    return joined.permute(0, 1, 4, 2, 3).reshape(count, pictures * channels, rows, columns).contiguous()


def load(
    data: str | Path, problems: Sequence[str], demos: int, resolution: str, split: str = "train"
) -> tuple[dict[str, list[Episode]], dict[str, dict[str, Any]]]:
    """Read the first demonstrations of every problem.

    Args:
        data: folder of all problems, or a pack.
        problems: their names.
        demos: how many of each, the first by seed.
        resolution: `full` or `half`.
        split: which range of seeds.

    Returns:
        The demonstrations of each problem, and the configuration of the environment that each was made in.

    Raises:
        UserError: there are too few, or a file is damaged.
    """
    pack = Pack.open(data) if Path(data).suffix == SUFFIX else None
    episodes, environments = {}, {}
    for problem in problems:
        source = _packed(pack, problem, split) if pack else _stored(user_path(data), problem, split, demos)
        if len(source.seeds) < demos:
            found = f"{source.where} has {len(source.seeds)} demonstrations"
            raise UserError(f"{found} and demos={demos} asks for more: {source.remedy}")
        episodes[problem] = [source.read(seed, resolution) for seed in source.seeds[:demos]]
        environments[problem] = source.environment
    return episodes, environments


def spec_of(episodes: Mapping[str, Sequence[Episode]]) -> ActionSpec:
    """The fields of the actions of the demonstrations of some problems.

    Raises:
        UserError: they are not all of one primitive.
    """
    found = {(problem, episode.spec) for problem, each in episodes.items() for episode in each}
    if len({spec for _, spec in found}) > 1:
        listed = ", ".join(sorted(f"{problem} by {spec}" for problem, spec in found))
        raise UserError(f"the demonstrations are not all of one primitive ({listed}): train on those of one")
    return next(iter(found))[1]


def read_spec(data: str | Path, problem: str, split: str) -> ActionSpec:
    """The fields of the actions of a problem's first demonstration; of picking and placing where there is none.

    Raises:
        UserError: it is damaged, or there is no such pack.
    """
    pack = Pack.open(data) if Path(data).suffix == SUFFIX else None
    source = _packed(pack, problem, split) if pack else _stored(user_path(data), problem, split, 1)
    return source.read(source.seeds[0], "half").spec if source.seeds else PICK_PLACE


class _Source(NamedTuple):
    """Demonstrations of a problem, in a folder or in a pack; the remedy helps if they are too few."""

    where: str
    seeds: list[int]
    environment: dict[str, Any]
    read: Callable[[int, str], Episode]
    remedy: str


def _stored(data: Path, problem: str, split: str, demos: int) -> _Source:
    folder = data / problem / split
    there = (folder / DATASET).exists()
    store = Store.open(folder) if there else Store(folder, range(0), {})
    seeds = store.kept() if there else []
    remedy = f"write more with EpisodeWriter, or give demos={len(seeds)}"
    if not there and (reason := refused(problem)):
        remedy = reason
    elif not there or "camera" in store.environment:
        command = f"python -m multiravens.demos problem={problem} split={split} episodes={demos} data={data}"
        remedy = f"make them with `{command}`"

    def read(seed: int, resolution: str) -> Episode:
        return read_episode(store.path(seed), resolution)

    return _Source(str(folder), seeds, store.environment, read, remedy)


def _packed(pack: Pack, problem: str, split: str) -> _Source:
    name = f"{problem}/{split}"
    if name not in pack.seeds:
        raise unknown(f"data set in {pack.path}", name, pack.seeds)
    seeds, environment = pack.seeds[name], pack.environments[name]
    remedy = f"pack more of them, or give demos={len(seeds)}"
    return _Source(f"{name} in {pack.path}", seeds, environment, partial(pack.read, name), remedy)


def _label(name: str, give: Callable[[Episode], np.ndarray], episode: Episode) -> np.ndarray:
    found, steps = np.asarray(give(episode)), len(episode.rewards)
    if found.ndim < 1 or len(found) != steps or found.dtype.kind not in "biuf":
        raise UserError(
            f"the labels of loss {name} are {found.dtype} of shape {found.shape} for a demonstration of {steps} steps: "
            "give a row of numbers for each step"
        )
    return found.astype(np.float32 if found.dtype.kind == "f" else np.int64)


def _steps(episode: Episode, task: int, index: int, start: int, factor: int) -> dict[str, np.ndarray]:
    count = len(episode.rewards)
    if episode.spec == PICK_PLACE:
        picks, picked, places, placed = (episode.actions[name] for name in PICK_PLACE.widths)
    else:
        picks = places = np.full((count, 3), np.nan, np.float32)
        picked = placed = np.full((count, 4), np.nan, np.float32)
    turns = [
        wrap_angle(quaternion_yaw(place) - quaternion_yaw(pick)) for pick, place in zip(picked, placed, strict=True)
    ]
    return {
        "task": np.full(count, task, np.int64),
        "episode": np.full(count, index, np.int64),
        "step": np.arange(count),
        "frame": start + np.arange(count),
        "pointer": episode.pointer[:-1].astype(np.int64),
        "pick": _pixels(picks, factor),
        "place": _pixels(places, factor),
        "turn": np.array(turns, np.float32),
        "period": episode.periods.astype(np.float32),
    }


def _pixels(positions: np.ndarray, factor: int) -> np.ndarray:
    """Rows and columns (T, 2) of positions (T, 3) [m], not rounded."""
    fine = (positions[:, 1::-1].astype(np.float64) - BOUNDS[1::-1, 0]) / PIXEL
    return ((fine - (factor - 1) / 2) / factor).astype(np.float32)
