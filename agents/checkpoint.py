"""Run folders and the files in them: tensors as safetensors, configuration as YAML, nothing that is executed."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multiravens.data.files import write_whole
from multiravens.errors import UserError, quote

VERSION = 1
CONFIG, WEIGHTS, STATE, METRICS = "config.yaml", "weights.safetensors", "state.safetensors", "metrics.jsonl"
_FORMAT = "multiravens-agent"
_TRUSTED = "multiravens."
_YAML_BYTES = 2**24


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write tensors and what is to be known of them; equal content is equal bytes.

    Raises:
        UserError: the disk refuses.
    """
    header = json.dumps({"format": _FORMAT, "version": VERSION, **about}, sort_keys=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_whole(path, save(plain, {"multiravens": header}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        UserError: the file is missing, cut short, not ours or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("multiravens", "null"))
            if not isinstance(about, dict) or about.get("format") != _FORMAT:
                raise UserError(f"{path} is not a checkpoint of an agent: give a run folder of multiravens.train")
            if about.get("version") != VERSION:
                found = quote(about.get("version"))
                raise UserError(f"{path} is a checkpoint of version {found}, and this program reads {VERSION}")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint {path}: train first, or give the folder of a run that is") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a whole checkpoint ({reason}): train again in another run folder") from error


def fill(module: torch.nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Copy tensors into a module of the same shape.

    Raises:
        UserError: names or shapes differ.
    """
    own = module.state_dict()
    for name, tensor in own.items():
        if name not in tensors or tensors[name].shape != tensor.shape:
            found = list(tensors[name].shape) if name in tensors else "nothing"
            raise UserError(
                f"{path} holds {found} for {name}, and the configured network needs {list(tensor.shape)}: the "
                f"checkpoint is of another network; check {CONFIG} beside it"
            )
    extra = sorted(set(tensors) - set(own))
    if extra:
        raise UserError(f"{path} holds {quote(extra[0])}, which the configured network lacks: check {CONFIG} beside it")
    module.load_state_dict(dict(tensors))


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
    for target in _targets({key: config.get(key) for key in ("agent", "backbone", "fusion")}):
        if not (isinstance(target, str) and target.startswith(_TRUSTED)):
            raise UserError(f"{path} names {quote(target)} as a _target_: only classes of {_TRUSTED}* are loaded")
    return config


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write a run's configuration.

    Raises:
        UserError: the disk refuses.
    """
    text = yaml.safe_dump({**config, "version": VERSION}, sort_keys=True, default_flow_style=False)
    write_whole(folder / CONFIG, text.encode())


def _targets(node: object) -> Iterator[object]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _targets(item)
