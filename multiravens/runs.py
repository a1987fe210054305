"""Folders of training runs: what is in them, and reading them without running anything that they name."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from multiravens.data.files import read_json, write_json, write_whole
from multiravens.errors import UserError, quote

VERSION = 1
CONFIG, WEIGHTS, STATE, METRICS = "config.yaml", "weights.safetensors", "state.safetensors", "metrics.jsonl"
EVALUATION = "evaluation"
TRUSTED = "multiravens."
"""What names in a run's configuration must begin with to be built: a run's folder may come from anywhere."""

_EVALUATION_FORMAT = ("multiravens-evaluation", 1)
_YAML_BYTES = 2**24


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
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(config, dict) or config.get("version") != VERSION or not isinstance(config.get("agent"), dict):
        raise UserError(f"{path} is not the configuration of a run of version {VERSION}")
    for target in foreign_targets({key: config.get(key) for key in ("agent", "backbone", "fusion")}):
        raise UserError(f"{path} names {quote(target)} as a _target_: only classes of {TRUSTED}* are loaded")
    return config


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a run's configuration.

    Raises:
        UserError: the disk refuses.
    """
    text = yaml.safe_dump({**config, "version": VERSION}, sort_keys=True, default_flow_style=False)
    write_whole(folder / CONFIG, text.encode())


def foreign_targets(node: object) -> Iterator[object]:
    """What a plain configuration would build that is not ours."""
    if isinstance(node, Mapping):
        if not str(node.get("_target_", TRUSTED)).startswith(TRUSTED):
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from foreign_targets(item)


def read_evaluation(path: Path) -> dict[str, Any]:
    """What an evaluation of one problem wrote.

    Raises:
        UserError: the file is missing or damaged, or not ours.
    """
    return read_json(path, *_EVALUATION_FORMAT)


def write_evaluation(path: Path, content: Mapping[str, Any]) -> None:
    """Write an evaluation of one problem.

    Raises:
        UserError: the disk refuses.
    """
    form, version = _EVALUATION_FORMAT
    write_json(path, {"format": form, "version": version, **content})
