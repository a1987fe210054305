"""The folder of one problem's episodes of one split: `DATA/PROBLEM/SPLIT/episode_000123.safetensors`.

Beside the episodes lie `dataset.json` (how they were made), `rejected.json` (the seeds that did not succeed, and why)
and `manifest.json` (what each file must be). All hold no time of day, so equal runs leave equal bytes.
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from multiravens.actions import PICK_PLACE, ActionSpec
from multiravens.data.storage.episode import fingerprint
from multiravens.data.storage.splits import parse_splits, refuse_overlap
from multiravens.errors import UserError, quote
from multiravens.options.plain import plain
from multiravens.support.files import locked, read_json, remove_temporaries, storage_error, user_path, write_json

VERSION = 1
DATASET = "dataset.json"
REJECTED = "rejected.json"
_DATASET_FORMAT = "multiravens-dataset"
_REJECTED_FORMAT = "multiravens-rejected"
_SHOWN = 3  # differences named in one line
_REASON_CLIP = 300  # characters of a reason that are kept


@dataclass(frozen=True)
class Store:
    """The episodes of one problem and split.

    Attributes:
        folder: Where they lie; its name is the split's and its parent's name the problem's.
        seeds: The split's range.
        environment: The resolved configuration of the environment that makes them, plain values only.
        spec: The fields of their actions.
    """

    folder: Path
    seeds: range
    environment: dict[str, Any]
    spec: ActionSpec = PICK_PLACE

    @classmethod
    def create(
        cls,
        data: str | Path,
        problem: str,
        split: str,
        seeds: range,
        environment: Mapping[str, Any],
        spec: ActionSpec = PICK_PLACE,
    ) -> "Store":
        """Names the store of a problem and split; nothing is written yet.

        Args:
            data: The folder of all problems.
            problem: Names its sub-folder.
            split: Names the sub-folder of that.
            seeds: The split's range.
            environment: The resolved configuration of the environment.
            spec: The fields of its actions.

        Returns:
            The store.

        Raises:
            UserError: If the problem's name can't be a folder's.
        """
        if not re.fullmatch(r"\w[\w.-]{0,199}", problem, re.ASCII):
            raise UserError(f"problem.name must be letters, digits, _, - or ., to name a folder, not {quote(problem)}")
        plain = json.loads(json.dumps(dict(environment)))  # as dataset.json will give it back
        return cls(user_path(data) / problem / split, seeds, plain, spec)

    @classmethod
    def open(cls, folder: str | Path) -> "Store":
        """Opens a store that exists.

        Args:
            folder: Its folder, with its `dataset.json`.

        Returns:
            The store.

        Raises:
            UserError: If there is none, or it's not of this version.
        """
        folder = user_path(folder)
        content = read_json(folder / DATASET, _DATASET_FORMAT, VERSION)
        try:
            (seeds,) = parse_splits({folder.resolve().name: content.get("seeds")}).values()
            spec = ActionSpec.parse(content.get("action"))
        except (UserError, ValueError) as error:
            raise UserError(f"{folder / DATASET} is damaged: {error}") from error
        environment = content.get("environment")
        if not isinstance(environment, dict):
            raise UserError(f"{folder / DATASET} is damaged: it names no environment")
        return cls(folder, seeds, plain(environment, folder / DATASET), spec)

    @property
    def name(self) -> str:
        """The problem and the split, as in `chaining-placing/train`."""
        folder = self.folder.resolve()
        return f"{folder.parent.name}/{folder.name}"

    @property
    def fingerprint(self) -> str:
        """The short name of the environment's configuration, which each episode carries."""
        return fingerprint(self.environment)

    def path(self, seed: int) -> Path:
        """Returns where the episode of a seed lies."""
        return self.folder / f"episode_{seed:06d}.safetensors"

    def kept(self) -> list[int]:
        """Lists the seeds that have a file, in order.

        Raises:
            UserError: If a file has an episode's name but a seed outside the split.
        """
        seeds = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                match = re.fullmatch(r"episode_(\d{6,12})\.safetensors", entry.name)
                if not match:
                    continue
                seed = int(match[1])
                if seed not in self.seeds or self.path(seed).name != entry.name:
                    raise UserError(
                        f"{entry.path} is not of this split, whose seeds are {self.seeds.start} to "
                        f"{self.seeds.stop - 1}: move it elsewhere"
                    )
                seeds.append(seed)
        return sorted(seeds)

    def rejected(self) -> dict[int, str]:
        """Returns the seeds that did not succeed, in order, each with the reason.

        Raises:
            UserError: If the file that lists them is damaged.
        """
        path = self.folder / REJECTED
        if not path.exists():
            return {}
        listed = read_json(path, _REJECTED_FORMAT, VERSION).get("seeds")
        if isinstance(listed, list) and all(_is_rejection(item) for item in listed):
            return {item["seed"]: item["reason"] for item in sorted(listed, key=lambda item: item["seed"])}
        raise UserError(f"{path} is damaged: remove it, and its seeds are tried again")

    def write_rejected(self, rejected: Mapping[int, str]) -> None:
        """Writes the list of seeds that did not succeed.

        Args:
            rejected: Each seed's reason.

        Raises:
            UserError: If the disk refuses.
        """
        listed = [
            {"seed": seed, "reason": " ".join(rejected[seed].split())[:_REASON_CLIP]} for seed in sorted(rejected)
        ]
        content = {"format": _REJECTED_FORMAT, "version": VERSION, "seeds": listed}
        write_json(self.folder / REJECTED, content)

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Holds the folder for one writer; leftovers of killed writers are removed at both ends.

        Raises:
            UserError: If another command is writing to it, the disk refuses, it holds episodes of another
                configuration, or another split there has some of its seeds.
        """
        with locked(self.folder):
            self._check_siblings()
            self._describe()
            remove_temporaries(self.folder)
            try:
                yield
            finally:
                remove_temporaries(self.folder)

    def _describe(self) -> None:
        """Writes `dataset.json`, or checks that the one there says the same."""
        seeds = [self.seeds.start, self.seeds.stop]
        path = self.folder / DATASET
        if not path.exists():
            content = {
                "format": _DATASET_FORMAT,
                "version": VERSION,
                "environment": self.environment,
                "seeds": seeds,
            }
            written = {} if self.spec == PICK_PLACE else {"action": self.spec.plain()}
            write_json(path, content | written)
            return
        wanted = {"splits": {self.folder.name: seeds}, "action": self.spec.kinds}
        Store.open(self.folder).refuse_other(wanted | self.environment)

    def refuse_other(self, wanted: Mapping[str, Any]) -> None:
        """Refuses a configuration that its episodes were not made with.

        Args:
            wanted: Of an environment, plain values, and where they matter `splits`, the range of seeds of each, and
                `action`, the kind of each field.

        Raises:
            UserError: If it's another one.
        """
        own = {"splits": {self.folder.name: [self.seeds.start, self.seeds.stop]}, "action": self.spec.kinds}
        there = {name: value for name, value in own.items() if name in wanted}
        differences = list(_differences(there | self.environment, wanted))
        if differences:
            more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
            raise UserError(
                f"{self.folder} was made with {', '.join(differences[:_SHOWN])}{more}: use the same options, or choose "
                "another folder with data=FOLDER"
            )

    def _check_siblings(self) -> None:
        """Refuses seeds that another split of this problem already has on disk."""
        for path in sorted(self.folder.parent.glob(f"*/{DATASET}")):
            if path.parent.name != self.folder.name:
                refuse_overlap(self.folder.name, self.seeds, path.parent.name, Store.open(path.parent).seeds)


def find_stores(path: str | Path) -> list[Store]:
    """Finds the data sets at or below a folder.

    Args:
        path: The folder of a split, of a problem or of all problems.

    Returns:
        The data sets in the order of their paths.

    Raises:
        UserError: If there is none, or one can't be read.
    """
    root = user_path(path)
    try:
        found = sorted({file.parent for depth in ("", "*/", "*/*/") for file in root.glob(depth + DATASET)})
    except OSError as error:
        raise storage_error(root, error) from error
    if not found:
        what = "no data set in" if root.exists() else "no file or folder"
        raise UserError(f"{what} {root}: make one with python -m multiravens.demos data={root}")
    return [Store.open(folder) for folder in found]


def _is_rejection(item: Any) -> bool:
    return isinstance(item, dict) and type(item.get("seed")) is int and type(item.get("reason")) is str


def _differences(there: Any, here: Any, key: str = "") -> Iterator[str]:
    """Yields `key=old instead of new` for every value that two configurations do not share."""
    if isinstance(there, Mapping) and isinstance(here, Mapping):
        for name in sorted({*there, *here}):
            nested = f"{key}.{name}" if key else str(name)
            yield from _differences(there.get(name), here.get(name), nested)
    elif there != here:
        yield f"{key}={quote(there)} instead of {quote(here)}"
