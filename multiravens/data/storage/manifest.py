"""The manifest: the expected state of every episode's file, so that a lost or altered one is noticed."""

import hashlib
from pathlib import Path
from typing import Any

from multiravens.data.storage.episode import read_episode, read_header
from multiravens.data.storage.store import Store
from multiravens.errors import UserError
from multiravens.support.files import read_json, write_json

MANIFEST = "manifest.json"
VERSION = 1
_FORMAT = "multiravens-manifest"

Entries = dict[str, dict[str, Any]]


def describe(path: Path) -> dict[str, Any]:
    """Makes one episode's entry.

    Args:
        path: The episode's file.

    Returns:
        Its SHA-256, size [bytes], steps, seed and return.

    Raises:
        UserError: If it's not a whole episode file.
    """
    episode = read_episode(path, frames=())
    content = path.read_bytes()
    return {
        "bytes": len(content),
        "return": float(episode.rewards.sum()),
        "seed": episode.seed,
        "sha256": hashlib.sha256(content).hexdigest(),
        "steps": len(episode.rewards),
    }


def read_manifest(store: Store) -> Entries:
    """Reads the entries of a data set's manifest, by file name; none where it has no manifest yet.

    Raises:
        UserError: If the manifest is damaged.
    """
    path = store.folder / MANIFEST
    if not path.exists():
        return {}
    entries = read_json(path, _FORMAT, VERSION).get("episodes")
    if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
        raise UserError(f"{path} is damaged: rewrite it with multiravens data verify {store.folder} --rebuild")
    return entries


def update_manifest(store: Store) -> None:
    """Adds the episodes that the manifest lacks and drops those that are gone.

    What it already lists is left as it is, so that a file altered since then is still noticed.

    Raises:
        UserError: If the manifest or a new episode is damaged, or the disk refuses.
    """
    listed = read_manifest(store)
    paths = [store.path(seed) for seed in store.kept()]
    entries = {path.name: listed[path.name] if path.name in listed else describe(path) for path in paths}
    if entries != listed or not (store.folder / MANIFEST).exists():
        _write(store, entries)


def rebuild_manifest(store: Store) -> int:
    """Rewrites the manifest from the files as they are.

    Returns:
        How many episodes it lists.

    Raises:
        UserError: If an episode's file is damaged, or the disk refuses; the old manifest stays then.
    """
    entries = {path.name: describe(path) for path in map(store.path, store.kept())}
    _write(store, entries)
    return len(entries)


def verify(store: Store) -> list[str]:
    """Checks every episode's file against the manifest and decodes all of it.

    Args:
        store: The data set.

    Returns:
        A line for each fault; none if all is well.

    Raises:
        UserError: If the manifest is damaged.
    """
    listed = read_manifest(store)
    paths = {path.name: path for path in map(store.path, store.kept())}
    faults = [f"{store.folder / name} is in the manifest and missing" for name in sorted({*listed} - {*paths})]
    for name, path in paths.items():
        faults += _faults(store, path, listed.get(name))
    return faults


def _faults(store: Store, path: Path, entry: dict[str, Any] | None) -> list[str]:
    try:
        found = describe(path)
        episode = read_episode(path)
        made_by = read_header(path).fingerprint
    except UserError as error:
        return [str(error)]
    if entry is None:
        return [f"{path} is not in the manifest: run multiravens.demos again, or verify with --rebuild"]
    if store.path(episode.seed) != path:
        return [f"{path} holds the episode of seed {episode.seed}"]
    if episode.spec != store.spec:
        return [f"{path} holds actions of {episode.spec}, and {store.folder} those of {store.spec}"]
    if made_by != store.fingerprint:
        return [f"{path} was made by another environment than the rest of {store.folder}"]
    wrong = [key for key in sorted(found) if found[key] != entry.get(key)]
    return [f"{path} differs from the manifest in {', '.join(wrong)}"] if wrong else []


def _write(store: Store, entries: Entries) -> None:
    write_json(store.folder / MANIFEST, {"format": _FORMAT, "version": VERSION, "episodes": entries})
