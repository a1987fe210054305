"""One episode, one immutable safetensors file: pictures compressed one by one, everything else as plain arrays.

The header holds a single text, since a safetensors header with several would list them in a different order each time.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.data.storage import codec
from multiravens.errors import UserError, quote, unknown
from multiravens.geometry import SHAPE
from multiravens.heightmap import at_resolution
from multiravens.options.paths import user_path
from multiravens.support.files import write_whole

FORMAT = "multiravens-episode"
VERSION = 2
RESOLUTIONS = ("full", "half")

# Far above any episode; they bound what a damaged or hostile file can make a reader allocate.
MAX_STEPS = 1000
_MAX_BODIES = 4096
_MAX_SUBGOALS = 1024
MAX_BYTES = 2**29

DTYPES = {"U8": "|u1", "BOOL": "|b1", "I64": "<i8", "F32": "<f4", "F64": "<f8"}
_BLOBS = ("color", "height")
Layout = dict[str, tuple[str, tuple[int, ...]]]


@dataclass
class Episode:
    """One demonstration of T actions with G sub-goals and B bodies.

    Attributes:
        seed: What the environment was reset with.
        problem: The problem's name.
        color: (T + 1, 320, 160, 3) uint8, before the first action and after each.
        height: (T + 1, 320, 160) float32 height above the table [m].
        pointer: (T + 1,) int64 index of the first sub-goal that does not hold, G where all do.
        actions: each field of `spec`, such as `pick_position`, (T, W) float32, as it was chosen: what is learned.
        executed: likewise, as they were carried out: what led to the next frame. The actions unless given; a file holds
            them only where they differ.
        periods: (T,) float32, the turn after which what is held looks the same [rad]; 0 for any, 2 pi for none.
        rewards: (T,) float64 change in standing credit.
        poses: (T + 1, B, 7) float32 position [m] and quaternion of every body in the world's frame.
        subgoals: G names, such as `placing/part 0`.
        goal_frames: (G,) int64 frame that shows each sub-goal reached.
        holds: (T + 1, G) bool, which sub-goals hold.
        success: True if every sub-goal holds at the end.
        spec: The fields of its actions.
    """

    seed: int
    problem: str
    color: np.ndarray
    height: np.ndarray
    pointer: np.ndarray
    actions: dict[str, np.ndarray]
    periods: np.ndarray
    rewards: np.ndarray
    poses: np.ndarray
    subgoals: list[str]
    goal_frames: np.ndarray
    holds: np.ndarray
    success: bool
    executed: dict[str, np.ndarray] = field(default_factory=dict)
    spec: ActionSpec = PICK_PLACE

    def __post_init__(self) -> None:
        self.executed = self.executed or self.actions

    @property
    def disturbed(self) -> np.ndarray:
        """(T,) bool, which actions were carried out otherwise than they were chosen."""
        if self.executed is self.actions:
            return np.zeros(len(self.rewards), bool)
        return np.any([(self.executed[name] != self.actions[name]).any(1) for name in self.spec.widths], axis=0)


class Header(NamedTuple):
    """Header of an episode file, which stands before any array: names, identity and sizes."""

    seed: int
    problem: str
    subgoals: list[str]
    success: bool
    fingerprint: str
    steps: int
    bodies: int
    spec: ActionSpec = PICK_PLACE


class Damaged(ValueError):
    """A file of episodes that breaks the format; the text says how."""


def fingerprint(environment: dict[str, Any]) -> str:
    """Makes the short name of an environment's configuration that each of its episodes carries.

    Args:
        environment: The resolved configuration.

    Returns:
        16 hexadecimal digits.
    """
    return hashlib.sha256(json.dumps(environment, sort_keys=True).encode()).hexdigest()[:16]


def encode_episode(episode: Episode, fingerprint: str = "") -> bytes:
    """Makes the content of an episode's file; equal episodes give equal bytes.

    Args:
        episode: What to store.
        fingerprint: Of the environment's configuration.

    Returns:
        A safetensors file.

    Raises:
        ValueError: If a field has the wrong shape or a value that can't be stored.
    """
    steps = len(episode.color) - 1
    bodies, goals, disturbed = episode.poses.shape[1], len(episode.subgoals), bool(episode.disturbed.any())
    expected = layout(steps, bodies, goals, disturbed, episode.spec)
    if not 0 <= steps <= MAX_STEPS:
        raise ValueError(f"an episode has 0 to {MAX_STEPS} steps, not {steps}")
    for name, shape in {"color": (steps + 1, *SHAPE, 3), "height": (steps + 1, *SHAPE)}.items():
        _check_shape(name, getattr(episode, name), shape)
    tensors = arrays_of(episode)
    for name, (dtype, shape) in expected.items():
        _check_shape(name, tensors[name], shape)
        tensors[name] = np.ascontiguousarray(tensors[name], DTYPES[dtype])
    tensors |= _blobs("color", [codec.encode_color(frame) for frame in episode.color])
    tensors |= _blobs("height", [codec.encode_height(frame) for frame in episode.height])
    return save(tensors, {"multiravens": describe(episode, fingerprint)})


def write_episode(path: str | Path, episode: Episode, fingerprint: str = "") -> int:
    """Writes an episode's file; whatever happens, the file is whole or absent.

    Args:
        path: The file; an existing one is replaced.
        episode: What to store.
        fingerprint: Of the environment's configuration.

    Returns:
        Its size [bytes].

    Raises:
        ValueError: If a field has the wrong shape or a value that can't be stored.
        UserError: If the disk refuses.
    """
    content = encode_episode(episode, fingerprint)
    write_whole(user_path(path), content)
    return len(content)


def read_header(path: str | Path) -> Header:
    """Reads what an episode's file says of itself.

    Args:
        path: The file.

    Returns:
        Its header.

    Raises:
        UserError: If it's missing, truncated, not an episode or of another version.
    """
    with _opened(user_path(path)) as file:
        return _header(file)


def read_episode(path: str | Path, resolution: str = "full", frames: Sequence[int] | None = None) -> Episode:
    """Reads an episode, or only some of its pictures.

    Args:
        path: The file.
        resolution: `full` (320 x 160) or `half` (160 x 80) pictures.
        frames: Which pictures to decode, counted from 0; None is all. The other fields always come whole.

    Returns:
        The episode; `color` and `height` hold the chosen pictures in the order asked for.

    Raises:
        IndexError: If a frame is not there.
        UserError: If the resolution is unknown, or the file missing, truncated, not an episode or of another version.
    """
    if resolution not in RESOLUTIONS:
        raise unknown("resolution", str(resolution), RESOLUTIONS)
    with _opened(user_path(path)) as file:
        header = _header(file)
        chosen = range(header.steps + 1) if frames is None else [_index(frame, header.steps + 1) for frame in frames]
        color, height = _pictures(file, header.steps, chosen, resolution)
        blobs = {f"{name}_{part}" for name in _BLOBS for part in ("blobs", "offsets")}
        arrays = {name: file.get_tensor(name) for name in file.keys() if name not in blobs}
        return assemble(header, arrays, color, height)


def assemble(header: Header, arrays: dict[str, np.ndarray], color: np.ndarray, height: np.ndarray) -> Episode:
    """Makes an episode of what its file says of itself, its plain arrays, and pictures.

    Raises:
        Damaged: If an array counts frames or sub-goals that there are not.
    """
    unreached = 0 if header.success else -1
    for name, first, last in (("goal_frames", unreached, header.steps), ("pointer", 0, len(header.subgoals))):
        if not ((arrays[name] >= first) & (arrays[name] <= last)).all():
            raise Damaged(f"its {name} are not all from {first} to {last}")
    plain = {name: array for name, array in arrays.items() if "." not in name}
    return Episode(
        seed=header.seed,
        problem=header.problem,
        color=color,
        height=height,
        actions={name: arrays[f"actions.{name}"] for name in header.spec.widths},
        executed={name: arrays[f"executed.{name}"] for name in header.spec.widths if is_disturbed(arrays)},
        subgoals=header.subgoals,
        success=header.success,
        spec=header.spec,
        **plain,
    )


def describe(episode: Episode, fingerprint: str) -> str:
    """Writes what an episode says of itself before any array, as JSON that `parse_about` reads."""
    about = {"format": FORMAT, "version": VERSION, "fingerprint": fingerprint, "success": bool(episode.success)}
    about |= {"seed": int(episode.seed), "problem": episode.problem, "subgoals": list(episode.subgoals)}
    if episode.spec != PICK_PLACE:  # as it was before there were others
        about["action"] = episode.spec.plain()
    return json.dumps(about, sort_keys=True)


def arrays_of(episode: Episode) -> dict[str, np.ndarray]:
    """Lists an episode's plain arrays by the names that `layout` gives them."""
    kinds = {"actions": episode.actions} | ({"executed": episode.executed} if episode.disturbed.any() else {})
    actions = {f"{kind}.{name}": fields[name] for kind, fields in kinds.items() for name in episode.spec.widths}
    plain = ("pointer", "periods", "rewards", "poses", "goal_frames", "holds")
    return actions | {name: np.asarray(getattr(episode, name)) for name in plain}


def layout(steps: int, bodies: int, subgoals: int, disturbed: bool, spec: ActionSpec) -> Layout:
    """Returns the type, as a key of `DTYPES`, and the shape of every plain array, some for disturbed episodes alone."""
    kinds = ("actions", "executed") if disturbed else ("actions",)
    actions = {f"{kind}.{name}": ("F32", (steps, width)) for kind in kinds for name, width in spec.widths.items()}
    return actions | {
        "pointer": ("I64", (steps + 1,)),
        "periods": ("F32", (steps,)),
        "rewards": ("F64", (steps,)),
        "poses": ("F32", (steps + 1, bodies, 7)),
        "goal_frames": ("I64", (subgoals,)),
        "holds": ("BOOL", (steps + 1, subgoals)),
    }


def is_disturbed(names: Iterable[str]) -> bool:
    """Tell from the names of an episode's arrays whether some action was carried out otherwise than it was chosen."""
    return any(name.startswith("executed.") for name in names)


def _blobs(name: str, blobs: list[bytes]) -> dict[str, np.ndarray]:
    offsets = np.cumsum([0, *map(len, blobs)], dtype="<i8")
    return {f"{name}_blobs": np.frombuffer(b"".join(blobs), np.uint8), f"{name}_offsets": offsets}


def _check_shape(name: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if np.shape(array) != shape:
        raise ValueError(f"an episode's {name} must have shape {shape}, not {np.shape(array)}")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens an episode's file and turns whatever is wrong with it into one line."""
    try:
        if not path.is_file():
            raise UserError(f"there is no episode file {path}")
        if path.stat().st_size > MAX_BYTES:
            raise Damaged(f"it is larger than {MAX_BYTES} bytes")
        with safe_open(path, framework="numpy") as file:
            yield file
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    except (SafetensorError, Damaged, codec.CodecError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{path} is not a whole episode file ({reason}): delete it and run multiravens.demos again to replace it"
        ) from error


def _header(file: Any) -> Header:
    about = parse_about((file.metadata() or {}).get("multiravens", "null"))
    names = set(file.keys())
    steps = _shape(file, names, "pointer", 1)[0] - 1
    bodies = _shape(file, names, "poses", 3)[1]
    subgoals = about["subgoals"]
    check_sizes(steps, bodies, len(subgoals))
    expected = layout(steps, bodies, len(subgoals), is_disturbed(names), about["spec"])
    for name in _BLOBS:
        expected[f"{name}_offsets"] = ("I64", (steps + 2,))
        expected[f"{name}_blobs"] = ("U8", _shape(file, names, f"{name}_blobs", 1))
    if names != set(expected):
        raise Damaged(f"its arrays are {quote(sorted(names))}")
    for name, (dtype, shape) in expected.items():
        array = file.get_slice(name)
        if (array.get_dtype(), tuple(array.get_shape())) != (dtype, shape):
            raise Damaged(f"{name} is {array.get_dtype()} {array.get_shape()} instead of {dtype} {list(shape)}")
    return Header(**about, steps=steps, bodies=bodies)


def check_sizes(steps: int, bodies: int, subgoals: int) -> None:
    """Refuses counts that no episode has.

    Raises:
        Damaged: If one is.
    """
    if not (0 <= steps <= MAX_STEPS and bodies <= _MAX_BODIES and subgoals <= _MAX_SUBGOALS):
        raise Damaged(f"it claims {steps} steps, {bodies} bodies and {subgoals} sub-goals")


def parse_header(text: str | bytes, form: str, version: int) -> dict[str, Any]:
    """Reads the JSON that a file of ours says what it is with.

    Args:
        text: The JSON.
        form: What its `format` must say.
        version: What its `version` must be.

    Raises:
        Damaged: If it's not that.
    """
    try:
        about = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Damaged("its header is not JSON") from error
    if not isinstance(about, dict) or about.get("format") != form:
        raise Damaged("its header does not say so")
    if about.get("version") != version:
        raise Damaged(f"it has format version {quote(about.get('version'))}, and this program reads {version}")
    return about


def parse_about(text: str | bytes) -> dict[str, Any]:
    """Reads what `describe` wrote: all of a `Header` but the sizes.

    Raises:
        Damaged: If it's not that, or of another version.
    """
    about = parse_header(text, FORMAT, VERSION)
    types = {"seed": int, "problem": str, "subgoals": list, "success": bool, "fingerprint": str}
    for name, kind in types.items():
        if type(about.get(name)) is not kind:
            raise Damaged(f"its header has no valid {name}")
    if not all(type(name) is str for name in about["subgoals"]):
        raise Damaged("its header has no valid subgoals")
    try:
        spec = ActionSpec.parse(about.get("action"))
    except ValueError as error:
        raise Damaged(f"its header has no valid action: {error}") from error
    return {name: about[name] for name in types} | {"spec": spec}


def _shape(file: Any, names: set[str], name: str, dimensions: int) -> tuple[int, ...]:
    shape = tuple(file.get_slice(name).get_shape()) if name in names else ()
    if len(shape) != dimensions:
        raise Damaged(f"it has no valid {name}")
    return shape


def _index(frame: int, count: int) -> int:
    if not 0 <= frame < count:
        raise IndexError(f"frame {frame} of an episode with {count} frames")
    return int(frame)


def _pictures(file: Any, steps: int, frames: Sequence[int], resolution: str) -> tuple[np.ndarray, np.ndarray]:
    """Decodes the chosen pictures and no others."""
    slices = {}
    for name in _BLOBS:
        blobs, offsets = file.get_slice(f"{name}_blobs"), file.get_tensor(f"{name}_offsets")
        if offsets[0] != 0 or offsets[-1] != blobs.get_shape()[0] or not np.all(offsets[1:] > offsets[:-1]):
            raise Damaged(f"{name}_offsets do not fit {name}_blobs")
        slices[name] = [blobs[int(offsets[frame]) : int(offsets[frame + 1])].tobytes() for frame in frames]
    shape = SHAPE if resolution == "full" else (SHAPE[0] // 2, SHAPE[1] // 2)
    color = np.empty((len(frames), *shape, 3), np.uint8)
    height = np.empty((len(frames), *shape), np.float32)
    for index, (first, second) in enumerate(zip(slices["color"], slices["height"], strict=True)):
        picture = codec.decode_color(first, SHAPE), codec.decode_height(second, SHAPE)
        color[index], height[index] = at_resolution(*picture, resolution)
    return color, height
