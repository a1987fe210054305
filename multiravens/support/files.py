"""Files that are whole or absent, and folders that one command at a time writes to."""

import contextlib
import errno
import fcntl
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from multiravens.errors import UserError, quote
from multiravens.options.paths import user_path as user_path

_JSON_BYTES = 2**28  # a manifest of a million episodes; anything larger is not ours
_LOCK = ".lock"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that whoever looks, at whatever moment the machine dies, finds it whole or not at all.

    Args:
        path: The file; an existing one is replaced.
        content: Everything it holds.

    Raises:
        UserError: If the disk is full, read-only or otherwise refuses; nothing is left behind then.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def read_whole(path: Path, most: int) -> bytes:
    """Reads a regular file; a pipe or a device could hang, or never end.

    Args:
        path: The file, or a link to one.
        most: Bytes that it may have.

    Raises:
        OSError: If it can't be opened.
        UserError: If it is no regular file, or too large.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f"{path} is no regular file: remove it, or give another folder")
        with open(descriptor, "rb", closefd=False) as file:
            content = file.read(most + 1) if status.st_size <= most else b""
    finally:
        os.close(descriptor)
    if max(status.st_size, len(content)) > most:
        raise UserError(f"{path} is larger than {most} bytes, too large to be ours: remove it, or give another folder")
    return content


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder survive a power cut.

    Raises:
        OSError: If the disk refuses.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network file systems cannot, and need not
            raise
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Removes what writers killed in the middle left in a folder. Call it with the folder locked.

    Raises:
        UserError: If the disk refuses.
    """
    try:
        for path in folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(folder, error) from error


@contextlib.contextmanager
def locked(folder: Path, option: str = "data") -> Iterator[None]:
    """Makes a folder and holds it for one command; the lock goes with the process, however that ends.

    Args:
        folder: The folder.
        option: What a user gives it as.

    Raises:
        UserError: If another command holds it, or it can't be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise storage_error(folder, error) from error
    try:
        _lock(descriptor, folder, option)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, option: str) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"another command is writing to {folder}: wait for it to end, or choose another folder with {option}=FOLDER"
        ) from None
    except OSError as error:
        raise storage_error(folder, error) from error


@contextlib.contextmanager
def in_turn(folder: Path) -> Iterator[None]:
    """Waits until no other command holds a folder this way, and holds it; nothing is left in it.

    Raises:
        OSError: If the folder can't be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.EBADF, errno.ENOLCK, errno.EOPNOTSUPP):
                raise  # these are network file systems, which can't hold a folder
        yield
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> UserError:
    """Makes the error for a disk that refuses a write.

    Args:
        path: What was being written.
        error: What the system said.

    Returns:
        One line with the reason and the remedy.
    """
    remedies = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some of your quota",
        errno.EROFS: "choose a writable folder",
        errno.EACCES: "choose a folder that you may write to",
        errno.EPERM: "choose a folder that you may write to",
    }
    remedy = remedies.get(error.errno or 0, "choose another folder")
    return UserError(f"cannot write {path} ({error.strerror or error}): {remedy} and run the command again")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON whole, keys sorted, so that equal content is equal bytes.

    Raises:
        UserError: If the disk refuses.
    """
    write_whole(path, (json.dumps(content, indent=1, sort_keys=True) + "\n").encode())


def write_rows(path: Path, content: dict[str, Any]) -> None:
    """Writes JSON whole, keys sorted, with one line for each row of a table: for each item of a list of dictionaries.

    Args:
        path: The file.
        content: What it holds; `read_json` and any other reader of JSON gives it back.

    Raises:
        UserError: If the disk refuses.
    """
    write_whole(path, (_rows(content, "") + "\n").encode())


def _rows(node: Any, indent: str) -> str:
    """Spells a value: on one line, unless there is a table in it."""
    if not _holds_table(node):
        return json.dumps(node, sort_keys=True)
    if isinstance(node, dict):
        start, end = "{}"
        lines = [f"{json.dumps(str(key))}: {_rows(node[key], f'{indent} ')}" for key in sorted(node)]
    else:
        start, end = "[]"
        lines = [json.dumps(row, sort_keys=True) for row in node]
    return "\n".join([start, ",\n".join(f"{indent} {line}" for line in lines), f"{indent}{end}"])


def _is_table(node: Any) -> bool:
    return isinstance(node, list) and bool(node) and all(isinstance(row, dict) for row in node)


def _holds_table(node: Any) -> bool:
    return _is_table(node) or (isinstance(node, dict) and any(map(_holds_table, node.values())))


def read_json(path: Path, kind: str, version: int, oldest: int | None = None) -> dict[str, Any]:
    """Reads a JSON file of ours.

    Args:
        path: The file.
        kind: What its `format` field must say.
        version: The newest version that this program reads.
        oldest: The oldest one; None if it is the same.

    Returns:
        Its content.

    Raises:
        UserError: If it's missing, not JSON, of another kind or of another version.
    """
    remedy = "remove it, or give another folder"
    try:
        content = json.loads(read_whole(path, _JSON_BYTES))
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a {kind}: {remedy}") from error
    if not isinstance(content, dict) or content.get("format") != kind:
        raise UserError(f"{path} is not a {kind}: {remedy}")
    if content.get("version") not in range(oldest or version, version + 1):
        found = quote(content.get("version"))
        raise UserError(f"{path} is a {kind} of version {found}, and this program reads {version}: {remedy}")
    return content
