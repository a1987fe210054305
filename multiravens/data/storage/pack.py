"""Packs: demonstrations of many problems in one file, or in shards, for machines that train without a simulator.

A shard is a safetensors file of byte strings, one for each episode: everything of the episode in one zstd frame, each
picture as its difference from the one before. Most of a table stays as it is from step to step, so that an episode
takes a third to a half of its own file's size.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from multiravens.data.storage import episode as episodes
from multiravens.data.storage.codec import dequantize_height, quantize_height
from multiravens.data.storage.episode import Damaged, Episode, Header, read_episode
from multiravens.data.storage.store import Store
from multiravens.errors import UserError, quote
from multiravens.geometry import SHAPE
from multiravens.heightmap import at_resolution
from multiravens.options.plain import plain
from multiravens.support.files import user_path
from multiravens.support.shards import find_shards, read_shards, save_shards, shards_beside

FORMAT = "multiravens-pack"
VERSION = 1
SUFFIX = ".safetensors"
_LEVEL = 19
_MOST_VALUES = 2**22  # in the environments of all data sets; one has thirty


@dataclass(frozen=True)
class Pack:
    """A pack that exists.

    Attributes:
        path: The file that its shards make up.
        resolution: `full` or `half`, of its pictures.
        environments: The configuration of the environment that made each data set, as in `chaining-placing/train`.
        seeds: Of each data set, in order.
        shards: The shard of each episode, by its key, as in `chaining-placing/train/000123`.
    """

    path: Path
    resolution: str
    environments: dict[str, dict[str, Any]]
    seeds: dict[str, list[int]]
    shards: dict[str, Path]
    # Opening a shard reads its whole header, so each stays open once an episode of it was read.
    _files: dict[Path, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, path: str | Path) -> "Pack":
        """Opens a pack.

        Args:
            path: The file, or the file that shards lie beside.

        Raises:
            UserError: If it's missing, lacks a shard, is cut short, is not a pack or is of another version.
        """
        path = user_path(path)
        found = read_shards(path, _listed, "pack")
        if found is None:
            raise UserError(f"there is no pack {path}: make one with `multiravens data pack DATA --out {path}`")
        shards, about = found
        seeds: dict[str, list[int]] = {name: [] for name in about["environments"]}
        for key in shards:
            name, _, seed = key.rpartition("/")
            if name not in seeds or not re.fullmatch(r"\d{6,12}", seed, re.ASCII) or key != _key(name, int(seed)):
                raise UserError(f"{shards[key]} holds {quote(key)}, which is no episode of it: pack again")
            seeds[name].append(int(seed))
        for name, each in seeds.items():
            if not each:
                raise UserError(f"{path} names {quote(name)} and holds no episode of it: copy it again, or pack again")
            each.sort()
        return cls(path, about["resolution"], about["environments"], seeds, shards)

    def read(self, name: str, seed: int, resolution: str | None = None) -> Episode:
        """Reads an episode.

        Args:
            name: Of its data set, as in `chaining-placing/train`.
            seed: Its seed.
            resolution: `full` or `half` pictures; None is what the pack has.

        Raises:
            UserError: If the pack's pictures are smaller, or the file is damaged.
        """
        wanted = resolution or self.resolution
        if wanted == "full" and self.resolution != "full":
            raise UserError(
                f"{self.path} holds pictures at half resolution and resolution=full asks for more: give "
                "resolution=half, or pack again with --resolution full"
            )
        key = _key(name, seed)
        shard = self.shards[key]
        with _reading(shard):
            if shard not in self._files:
                self._files[shard] = safe_open(shard, framework="numpy").__enter__()
            episode = _decode(self._files[shard].get_tensor(key).tobytes(), self.resolution)
        if wanted != self.resolution:
            episode.color, episode.height = at_resolution(episode.color, episode.height, wanted)
        return episode


def is_pack(path: Path) -> bool:
    """Tell whether a file, or shards of it, are there and are no episode: a pack, whole or not."""
    for shard in find_shards(path):
        try:
            with safe_open(shard, framework="numpy") as file:
                return episodes.FORMAT not in (file.metadata() or {}).get("multiravens", "")
        except (SafetensorError, OSError):
            # Cut short, it does not say what it was; an episode's name does.
            return not path.name.startswith("episode_")
    return False


def write_pack(
    path: Path,
    stores: Sequence[Store],
    *,
    demos: int | None = None,
    resolution: str = "full",
    shard_size: int | None = None,
    workers: int = 1,
    update: Callable[[float, str], None] | None = None,
) -> list[Path]:
    """Packs data sets; equal data sets give equal bytes.

    Args:
        path: The file; an existing one is replaced.
        stores: The data sets.
        demos: How many episodes of each, the first by seed; None is all.
        resolution: `full` or `half`, of the pictures.
        shard_size: Of the shards at most [bytes]; None is one file.
        workers: Threads that compress.
        update: Called with the episodes done, and a remark.

    Returns:
        The shards' paths.

    Raises:
        UserError: If a data set has fewer episodes, one is damaged or larger than a shard, something else has the
            pack's name, or the disk refuses.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"--out {path}: give a name that ends with {SUFFIX}")
    for there in [path] * path.exists() + shards_beside(path):
        if not _is_ours(there):
            raise UserError(f"--out {path}: {there} is there and is no whole pack: remove it, or give another name")
    chosen = [(store, seed) for store in stores for seed in _first(store, demos)]

    def encoded(each: tuple[Store, int]) -> bytes:
        store, seed = each
        return _encode(read_episode(store.path(seed), resolution), store.fingerprint)

    blobs: dict[str, bytes] = {}
    with ThreadPoolExecutor(workers) as pool:
        for (store, seed), blob in zip(chosen, pool.map(encoded, chosen), strict=True):
            blobs[_key(store.name, seed)] = blob
            if update:
                update(len(blobs), "")
    about = {
        "format": FORMAT,
        "version": VERSION,
        "resolution": resolution,
        "environments": {store.name: store.environment for store in stores},
    }
    arrays = {key: np.frombuffer(blob, np.uint8) for key, blob in blobs.items()}
    return save_shards(path, arrays, about, save, shard_size, "--shard-size ")


def _is_ours(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("multiravens", "null"))
    except (OSError, SafetensorError, ValueError, RecursionError):
        return False
    return isinstance(about, dict) and about.get("format") == FORMAT


def _key(name: str, seed: int) -> str:
    return f"{name}/{seed:06d}"


def _first(store: Store, demos: int | None) -> list[int]:
    seeds = store.kept()
    if not seeds:
        raise UserError(f"{store.folder} has no episode to pack")
    if len(seeds) < (demos or 0):
        raise UserError(f"{store.folder} has {len(seeds)} episodes, and --demos {demos} asks for more")
    return seeds[:demos]


def _listed(shard: Path) -> tuple[dict[str, Path], dict[str, Any]]:
    """The shard's path under the name of each of its episodes, and the shard's header."""
    with _reading(shard), safe_open(shard, framework="numpy") as file:
        return dict.fromkeys(file.keys(), shard), _about(file)


def _about(file: Any) -> dict[str, Any]:
    about = episodes.parse_header((file.metadata() or {}).get("multiravens", "null"), FORMAT, VERSION)
    environments = about.get("environments")
    if about.get("resolution") not in episodes.RESOLUTIONS or not isinstance(environments, dict):
        raise Damaged("its header has no valid resolution or environments")
    if not all(isinstance(environment, dict) for environment in environments.values()):
        raise Damaged("its header has no valid environments")
    try:
        about["environments"] = plain(environments, "its header", _MOST_VALUES)
    except UserError as error:
        raise Damaged(str(error)) from error
    return about


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns whatever is wrong with a shard into one line."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    # The last four are what safetensors raises for types of numbers that NumPy lacks.
    except (SafetensorError, Damaged, zstandard.ZstdError, AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a whole pack ({reason}): copy it again, or pack again") from error


def _encode(episode: Episode, fingerprint: str) -> bytes:
    arrays = episodes.arrays_of(episode)
    for name, (dtype, _) in _layout(episode).items():
        arrays[name] = np.ascontiguousarray(arrays[name], episodes.DTYPES[dtype])
    arrays["color"] = _differences(episode.color)
    arrays["height"] = _differences(quantize_height(episode.height))
    arrays["about"] = np.frombuffer(episodes.describe(episode, fingerprint).encode(), np.uint8)
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(save(arrays))


def _layout(episode: Episode) -> dict[str, tuple[str, tuple[int, ...]]]:
    sizes = len(episode.color) - 1, episode.poses.shape[1], len(episode.subgoals)
    return episodes.layout(*sizes, bool(episode.disturbed.any()), episode.spec)


def _decode(blob: bytes, resolution: str) -> Episode:
    claimed = zstandard.get_frame_parameters(blob).content_size
    if not 0 < claimed <= episodes.MAX_BYTES:
        raise Damaged(f"an episode claims {claimed} bytes")
    content = zstandard.ZstdDecompressor().decompress(blob, max_output_size=claimed, allow_extra_data=False)
    arrays = load(content)
    missing = {"about", "pointer", "poses", "color", "height"} - set(arrays)
    if missing or arrays["pointer"].ndim != 1 or arrays["poses"].ndim != 3:
        raise Damaged("an episode lacks arrays")
    about = episodes.parse_about(arrays.pop("about").tobytes())
    steps, bodies = len(arrays["pointer"]) - 1, arrays["poses"].shape[1]
    episodes.check_sizes(steps, bodies, len(about["subgoals"]))
    header = Header(**about, steps=steps, bodies=bodies)
    _check(arrays, header, resolution)
    color, height = (_undone(arrays.pop(name)) for name in ("color", "height"))
    return episodes.assemble(header, arrays, color, dequantize_height(height))


def _check(arrays: dict[str, np.ndarray], header: Header, resolution: str) -> None:
    steps, sizes = header.steps, (header.steps, header.bodies, len(header.subgoals))
    shape = SHAPE if resolution == "full" else (SHAPE[0] // 2, SHAPE[1] // 2)
    layout = episodes.layout(*sizes, episodes.is_disturbed(arrays), header.spec)
    expected = {name: (episodes.DTYPES[dtype], each) for name, (dtype, each) in layout.items()}
    expected |= {"color": ("|u1", (steps + 1, *shape, 3)), "height": ("<u2", (steps + 1, *shape))}
    found = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    if found != expected:
        names = sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name))
        raise Damaged(f"an episode has no valid {names[0]}")


def _differences(frames: np.ndarray) -> np.ndarray:
    """Each of (T, H, ..) unsigned pictures less the one before, each row of the first less the row above."""
    changes = frames.copy()
    changes[1:] -= frames[:-1]
    changes[0, 1:] -= frames[0, :-1]
    return changes


def _undone(changes: np.ndarray) -> np.ndarray:
    frames = changes.copy()
    np.add.accumulate(changes[0], axis=0, dtype=changes.dtype, out=frames[0])
    return np.asarray(np.add.accumulate(frames, axis=0, dtype=changes.dtype))
