"""Folders of training runs: what is in them, and reading them without running anything that they name."""

import hashlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from multiravens.data.files import read_json, user_path, write_rows, write_whole
from multiravens.data.shards import find_shards
from multiravens.errors import UserError, quote
from multiravens.values import flatten

VERSION = 1
CONFIG, WEIGHTS, STATE, METRICS = "config.yaml", "weights.safetensors", "state.safetensors", "metrics.jsonl"
EVALUATION = "evaluation"
PACKAGED = ("assets", "checkpoints")
"""Where trained agents come with the program."""
TRUSTED = "multiravens."
"""What names in a run's configuration must begin with to be built: a run's folder may come from anywhere."""

_EVALUATION_FORMAT = ("multiravens-evaluation", 1)
_EVALUATION_FIELDS: dict[str, Any] = {
    "problem": str,
    "agent": str,
    "pointer": str,
    "inhibition": int | float,
    "patience": int,
    "weights": str | None,
    "source": str | None,
    "environment": dict,
    "beside": dict,
}
_YAML_BYTES = 2**24
ACTING = ("inhibition", "patience")
"""Options of how a trained agent acts; they play no part in its training."""
_OLDER = {"inhibition": 0.0, "patience": 0}
"""What runs and evaluations from before there were such options did."""


def read_config(folder: Path) -> dict[str, Any]:
    """The configuration that a run was made with.

    Raises:
        UserError: there is none, or it is not one of ours; nothing in it is executed either way.
    """
    path = folder / CONFIG
    try:
        if path.stat().st_size > _YAML_BYTES:
            raise UserError(f"{path} is too large to be a run's configuration")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{folder} is not a run folder ({path.name}: {error.strerror})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none is a ValueError
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, dict) or config.get("version") != VERSION or not isinstance(config.get("agent"), dict):
        raise UserError(f"{path} is not the configuration of a run of version {VERSION}")
    environments = config.get("environment", {})
    if not isinstance(environments, dict) or not all(isinstance(each, dict) for each in environments.values()):
        raise UserError(f"{path} is damaged: its environment is {quote(environments)}, not one for each problem")
    built = {key: config.get(key) for key in ("agent", "backbone", "fusion")}
    refuse_interpolation(built, path)
    for target in foreign_targets(built):
        raise UserError(f"{path} names {quote(target)} as a _target_: only classes of {TRUSTED}* are loaded")
    return _OLDER | config


def find_run(run: str | Path) -> Path:
    """The folder of a run; `assets/checkpoints/NAME` is found where the program is, if it is not where the user is."""
    folder = user_path(run)
    packaged = Path(__file__).parent / folder
    return packaged if folder.parts[:2] == PACKAGED and not folder.exists() and packaged.exists() else folder


def is_packaged(run: Path) -> bool:
    """Say whether a run is one of the trained agents that come with the program."""
    return run.resolve().is_relative_to(Path(__file__).parent.joinpath(*PACKAGED).resolve())


def hash_weights(folder: Path) -> str:
    """SHA-256 of a run's weights, in one file or in shards.

    Raises:
        UserError: a shard is missing.
    """
    digest = hashlib.sha256()
    for path in find_shards(folder / WEIGHTS):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a run's configuration.

    Raises:
        UserError: the disk refuses.
    """
    text = yaml.safe_dump({**config, "version": VERSION}, sort_keys=True, default_flow_style=False)
    write_whole(folder / CONFIG, text.encode())


def foreign_targets(node: object) -> Iterator[object]:
    """What a plain configuration would build that is not a class of ours."""
    if isinstance(node, Mapping):
        if "_target_" in node and not _is_ours(node["_target_"]):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from foreign_targets(item)


def _is_ours(target: object) -> bool:
    """Whether a target is a class defined in a module of ours: not what such a module happens to import."""
    if not (isinstance(target, str) and target.startswith(TRUSTED)):
        return False
    module, _, name = target.rpartition(".")
    try:
        found = getattr(import_module(module), name, None)
    except ImportError:
        return False
    return isinstance(found, type) and found.__module__ == module


def refuse_interpolation(node: object, where: object) -> None:
    """Refuse values that would be computed when they are read.

    Raises:
        UserError: there is one.
    """
    for path, value in flatten({"": node}):
        if "${" in f"{path}{value}":
            raise UserError(f"{where} has {quote(value)} for {path.strip('.')}: values of a run are plain")


def read_evaluation(path: Path) -> dict[str, Any]:
    """What an evaluation of one problem wrote.

    Returns:
        Its fields; `source` is None where it was measured before that was noted, by whatever code.

    Raises:
        UserError: the file is missing or damaged, or not ours.
    """
    content = _OLDER | {"source": None} | read_json(path, *_EVALUATION_FORMAT)
    parts = [content, *content["beside"].values()] if isinstance(content.get("beside"), dict) else []
    for name, kind in _EVALUATION_FIELDS.items():
        if not parts or name not in content or not isinstance(content[name], kind):
            raise UserError(f"{path} is damaged ({name}): remove it and measure again")
    for part in parts:
        if not isinstance(part, dict) or not _is_whole(part):
            raise UserError(f"{path} is damaged: remove it and measure again")
    return content


def _is_whole(part: Mapping[str, Any]) -> bool:
    """Whether an agent's part of an evaluation has what tables and plots take from it."""
    summary, episodes = part.get("summary"), part.get("episodes")
    if not isinstance(summary, dict) or not isinstance(episodes, list) or not isinstance(part.get("skipped"), list):
        return False
    numbers = all(isinstance(summary.get(name), int | float) for name in ("episodes", "mean_return", "success_rate"))
    intervals = (summary.get(name) for name in ("mean_return_interval", "success_interval"))
    pairs = all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(bound, int | float) for bound in pair)
        for pair in intervals
    )
    kinds = {"seed": int, "returned": int | float, "success": bool}
    rows = all(isinstance(row, dict) and all(isinstance(row.get(k), kinds[k]) for k in kinds) for row in episodes)
    return numbers and pairs and rows


def write_evaluation(path: Path, content: Mapping[str, Any]) -> None:
    """Write an evaluation of one problem, a line for each episode.

    Raises:
        UserError: the disk refuses.
    """
    form, version = _EVALUATION_FORMAT
    write_rows(path, {"format": form, "version": version, **content})
