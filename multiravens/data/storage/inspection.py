"""Summary of a data set, in lines and in one picture."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from multiravens.data.storage.episode import Episode, read_episode
from multiravens.data.storage.pack import Pack
from multiravens.data.storage.store import Store
from multiravens.support.files import write_whole

CONTACT_SHEET = "contact_sheet.png"
_ROWS = 6  # episodes in a contact sheet
_COLUMNS = 10  # frames of each
_GAP = 4  # [pixels] between pictures
_LABEL = 14  # [pixels] above each, for the frame's number
_PAPER = 255
_INK = (60, 60, 60)


def summarize(store: Store) -> list[str]:
    """Describes a data set.

    Args:
        store: The data set.

    Returns:
        Lines for a person: counts, lengths, success, size, rejected seeds.

    Raises:
        UserError: If an episode's file is damaged.
    """
    seeds, rejected = store.kept(), store.rejected()
    lines = [f"{store.folder}: {len(seeds)} episodes, seeds {store.seeds.start} to {store.seeds.stop - 1}"]
    if seeds:
        paths = [store.path(seed) for seed in seeds]
        episodes = [read_episode(path, frames=()) for path in paths]
        lines += [*_describe(episodes), _size(episodes, sum(path.stat().st_size for path in paths))]
    lines.append(f"  rejected  {len(rejected)} of {len(seeds) + len(rejected)} seeds tried")
    return lines + [f"    seed {seed}: {reason}" for seed, reason in list(rejected.items())[:_ROWS]]


def summarize_episode(path: Path) -> list[str]:
    """Describes one episode.

    Args:
        path: Its file.

    Returns:
        Lines for a person.

    Raises:
        UserError: If it's not a whole episode file.
    """
    episode = read_episode(path)
    lines = [f"{path}: {episode.problem}, seed {episode.seed}", *_describe([episode])]
    lines.append(_size([episode], path.stat().st_size))
    for name, frame in zip(episode.subgoals, episode.goal_frames, strict=True):
        lines.append(f"    {name} holds from frame {frame}")
    return lines


def summarize_pack(pack: Pack) -> list[str]:
    """Describes a pack.

    Args:
        pack: The pack.

    Returns:
        Lines for a person: of each data set, counts, lengths, success and size.

    Raises:
        UserError: If an episode is damaged.
    """
    shards = sorted(set(pack.shards.values()))
    size = sum(path.stat().st_size for path in shards) / 1e6
    lines = [
        f"{pack.path}: {len(pack.shards)} episodes, {pack.resolution} resolution, {len(shards)} files, {size:.2f} MB"
    ]
    for name, seeds in pack.seeds.items():
        lines.append(f"{name}: {len(seeds)} episodes, seeds {seeds[0]} to {seeds[-1]}")
        lines += _describe([_without_pictures(pack.read(name, seed)) for seed in seeds])
    return lines


def _without_pictures(episode: Episode) -> Episode:
    return replace(episode, color=episode.color[:0], height=episode.height[:0])


def write_contact_sheet(paths: Sequence[Path], out: Path) -> None:
    """Draws episodes as rows of pictures spread evenly over time.

    Args:
        paths: Episodes' files; some spread evenly over them are drawn if they are many.
        out: The PNG to write.

    Raises:
        UserError: If an episode's file is damaged, or the disk refuses.
    """
    rows = [_row(paths[index]) for index in _spread(len(paths), _ROWS)]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=_PAPER) for row in rows]
    _, encoded = cv2.imencode(".png", np.concatenate(padded)[..., ::-1])
    write_whole(out, encoded.tobytes())


def _size(episodes: Sequence[Episode], size: int) -> str:
    frames = sum(len(episode.rewards) + 1 for episode in episodes)
    return f"  size      {size / 1e6:.2f} MB, {size / frames / 1e3:.1f} KB a frame"


def _describe(episodes: Sequence[Episode]) -> list[str]:
    steps = [len(episode.rewards) for episode in episodes]
    returns = [float(episode.rewards.sum()) for episode in episodes]
    changed = sum(int(episode.disturbed.sum()) for episode in episodes)
    disturbed = (
        [f"  disturbed {changed} of {sum(steps)} actions: what was carried out is not the label"] if changed else []
    )
    successes = sum(episode.success for episode in episodes)
    return [
        f"  steps     {min(steps)} to {max(steps)}, mean {np.mean(steps):.1f}, together {sum(steps)}",
        f"  success   {successes} of {len(episodes)}, mean return {np.mean(returns):.3f}",
        f"  sub-goals {max(len(episode.subgoals) for episode in episodes)}",
        *disturbed,
    ]


def _row(path: Path) -> np.ndarray:
    count = len(read_episode(path, frames=()).pointer)
    chosen = _spread(count, _COLUMNS)
    episode = read_episode(path, frames=chosen)
    labels = [f"{frame}" for frame in chosen]
    labels[0] = f"seed {episode.seed}"
    return np.concatenate([_tile(color, label) for color, label in zip(episode.color, labels, strict=True)], axis=1)


def _tile(color: np.ndarray, label: str) -> np.ndarray:
    tile = np.full((color.shape[0] + _LABEL + _GAP, color.shape[1] + _GAP, 3), _PAPER, np.uint8)
    tile[_LABEL : _LABEL + color.shape[0], : color.shape[1]] = color
    cv2.putText(tile, label, (1, _LABEL - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _INK, 1, cv2.LINE_AA)
    return tile


def _spread(count: int, most: int) -> list[int]:
    """Picks at most `most` indices of `count`, evenly, with the first and the last."""
    return [int(index) for index in np.linspace(0, count - 1, min(count, most)).round()]
