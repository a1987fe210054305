"""One file in shards of at most a given size: `NAME-00001-of-00003.safetensors`, as model hubs name them."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from multiravens.data.files import storage_error, write_whole
from multiravens.errors import UserError, quote

_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}", re.ASCII | re.DOTALL)
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
    found = _shards_beside(path)
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


def write_shards(path: Path, contents: Iterable[bytes], count: int) -> list[Path]:
    """Writes a file's shards one after the other, then removes those of an earlier cut.

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
        for shard, content in zip(paths, contents, strict=True):
            write_whole(shard, content)
        for old in {path, *_shards_beside(path)} - set(paths):
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


def _shards_beside(path: Path) -> list[Path]:
    if not path.parent.is_dir():
        return []
    return sorted(
        other
        for other in path.parent.iterdir()
        if other.suffix == path.suffix and (match := _SHARD.fullmatch(other.stem)) and match[1] == path.stem
    )
