"""One safetensors file in shards of a given size, as model hubs name them: `NAME-00001-of-00003.safetensors`."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from multiravens.errors import UserError, quote
from multiravens.support.files import in_turn, storage_error, write_whole

_Read = TypeVar("_Read")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}", re.ASCII | re.DOTALL)
_HEADER_BYTES = 160  # at most, that a header takes for an array beside its name
_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: object, name: str) -> int:
    """Reads a size such as `16MiB`, `500KB` or `1000000` [bytes].

    Args:
        text: What a user wrote.
        name: Of the option, for the error.

    Raises:
        UserError: If it's not a size above 0.
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?) *([A-Za-z]*)", str(text).strip())
    unit = _UNITS.get(match[2].upper()) if match else None
    size = int(float(match[1]) * unit) if match and unit else 0
    if size < 1:
        raise UserError(f"{name}={quote(text)}: give a size such as 16MiB, 500KB or 1000000")
    return size


def shard_paths(path: Path, count: int) -> list[Path]:
    """Names the shards of a file: the file itself where there is one."""
    if count == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{index:05d}-of-{count:05d}{path.suffix}") for index in range(1, count + 1)]


def find_shards(path: Path) -> list[Path]:
    """Finds a file, or all its shards in order; nothing if there is neither.

    Raises:
        UserError: If some are missing, there are shards of several cuts, or the path is of one shard.
    """
    if match := _SHARD.fullmatch(path.stem):
        raise UserError(f"{path} is one shard of several: give {path.with_name(match[1] + path.suffix)}")
    if path.is_file():
        return [path]
    found = shards_beside(path)
    if not found:
        return []
    counts = {int(name.stem[-5:]) for name in found}
    if len(counts) > 1:
        raise UserError(f"beside {path} lie shards of {len(counts)} cuts of it: keep one")
    expected = shard_paths(path, counts.pop())
    missing = sorted({shard.name for shard in expected} - {shard.name for shard in found})
    if missing:
        raise UserError(f"{path.parent} lacks {len(missing)} of {len(expected)} shards: copy {missing[0]} there")
    return expected


def read_shards(
    path: Path, read: Callable[[Path], tuple[dict[str, _Read], dict[str, Any]]], kind: str
) -> tuple[dict[str, _Read], dict[str, Any]] | None:
    """Reads a file, or all its shards as one.

    Args:
        path: The file that they make up.
        read: Of a shard, what it holds by name, and what it says of itself.
        kind: What the file is, for the error.

    Returns:
        What all hold, and what they say of themselves; None if there is no file.

    Raises:
        UserError: If a shard is missing or of another file.
    """
    shards = find_shards(path)
    parts = [read(shard) for shard in shards]
    for shard, (_, about) in zip(shards, parts, strict=True):
        if about != parts[0][1]:
            raise UserError(f"{shard} is of another {kind} than {shards[0]}: copy all shards of one {kind}")
    return ({name: each for held, _ in parts for name, each in held.items()}, parts[0][1]) if parts else None


def save_shards(
    path: Path,
    arrays: Mapping[str, Any],
    about: Mapping[str, Any],
    save: Callable[[dict[str, Any], dict[str, str]], bytes],
    shard_size: int | None,
    option: str,
) -> list[Path]:
    """Writes arrays as one safetensors file, or as shards that say which others they belong to.

    Args:
        path: The file.
        arrays: By name, NumPy's or torch's.
        about: What the file says of itself.
        save: safetensors' for arrays of that kind.
        shard_size: Of the shards at most [bytes]; None is one file.
        option: That a user gives it by, for the error.

    Returns:
        The files.

    Raises:
        UserError: If an array is larger than a shard, or the disk refuses.
    """
    told = dict(about)
    if shard_size is not None:
        told["sha256"] = hashlib.sha256(save(dict(arrays), {})).hexdigest()
    header = {"multiravens": json.dumps(told, sort_keys=True)}
    fixed = len(json.dumps(header)) + _HEADER_BYTES
    sizes = [array.nbytes + len(name) + _HEADER_BYTES for name, array in arrays.items()]
    if shard_size is not None and fixed + max(sizes) > shard_size:
        raise UserError(
            f"{option}{shard_size}: one of its parts takes {fixed + max(sizes)} bytes: give as many or more"
        )
    cut = fill_shards(sizes, None if shard_size is None else shard_size - fixed)
    names = list(arrays)
    contents = (save({names[index]: arrays[names[index]] for index in each}, header) for each in cut)
    return write_shards(path, contents, len(cut))


def write_shards(path: Path, contents: Iterable[bytes], count: int) -> list[Path]:
    """Writes a file's shards one after the other, then removes those of an earlier cut.

    Of several commands that write to one folder at once, each waits for the one before: the last one's file is whole.

    Args:
        path: The file that they make up.
        contents: Of each shard.
        count: How many there are.

    Returns:
        The shards' paths.

    Raises:
        UserError: If the disk refuses.
    """
    paths = shard_paths(path, count)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(path.parent):
            _remove_temporaries(path)
            for shard, content in zip(paths, contents, strict=True):
                write_whole(shard, content)
            for old in {path, *shards_beside(path)} - set(paths):
                old.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    return paths


def fill_shards(sizes: Sequence[int], limit: int | None) -> list[range]:
    """Cuts a row of pieces into as few ranges as hold at most `limit` [bytes] each; a larger piece has its own."""
    starts, held = [0], 0
    for index, size in enumerate(sizes):
        if limit is not None and held and held + size > limit:
            starts.append(index)
            held = 0
        held += size
    return [range(start, end) for start, end in zip(starts, [*starts[1:], len(sizes)], strict=True)]


def _remove_temporaries(path: Path) -> None:
    """Remove what a writer of the same file left that was killed in the middle."""
    name = re.compile(rf"\.{re.escape(path.stem)}(-\d{{5}}-of-\d{{5}})?{re.escape(path.suffix)}\.\d+\.tmp", re.ASCII)
    for other in path.parent.iterdir():
        if name.fullmatch(other.name):
            other.unlink(missing_ok=True)


def shards_beside(path: Path) -> list[Path]:
    """Lists the shards of a file that are there, of whatever cut."""
    if not path.parent.is_dir():
        return []
    return sorted(
        other
        for other in path.parent.iterdir()
        if other.suffix == path.suffix and (match := _SHARD.fullmatch(other.stem)) and match[1] == path.stem
        if other.is_file()  # a pipe or a device could hang
    )
