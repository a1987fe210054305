"""Files of tensors in the safetensors format; reading them executes nothing."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multiravens.errors import UserError, quote
from multiravens.support.runs import CONFIG, VERSION
from multiravens.support.shards import read_shards, save_shards

_FORMAT = "multiravens-agent"
_RENAMED = (
    (re.compile(r"\bnear\.(module\.)?held\."), r"near.\1picked_encoder."),
    (re.compile(r"\bnear\.(module\.)?there\."), r"near.\1target_encoder."),
    (re.compile(r"(\bprograms\.\d+\.\w+)\.(logits)$"), r"\1.order.\2"),
    (re.compile(r"(\bprograms\.\d+\.\w+)\.(scale|bias)$"), r"\1.affine.\2"),
    (re.compile(r"(\bprograms\.\d+\.\w+)\.(down|up)$"), r"\1.adapter.\2"),
)
"""Names of parameters in older files, and what they are called today."""


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any], shard_size: int | None = None
) -> list[Path]:
    """Write tensors and what is to be known of them; equal content is equal bytes.

    Args:
        path: of the file.
        tensors: by name.
        about: plain values.
        shard_size: of the shards at most [bytes]; None is one file.

    Returns:
        The files.

    Raises:
        UserError: a tensor is larger than a shard, or the disk refuses.
    """
    plain = to_host(tensors)
    return save_shards(path, plain, {"format": _FORMAT, "version": VERSION, **about}, save, shard_size, "shard_size=")


def to_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors in the host's memory, contiguous; however many there are, it waits for their device once."""
    sent = {name: tensor.detach().to("cpu", non_blocking=True) for name, tensor in tensors.items()}
    for device in {tensor.device for tensor in tensors.values() if tensor.is_cuda}:
        torch.cuda.synchronize(device)
    return {name: tensor.contiguous() for name, tensor in sent.items()}


def read_tensors(path: Path, as_written: bool = False) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Args:
        path: of the file.
        as_written: names are those of the file; otherwise those of today.

    Raises:
        UserError: the file or one of its shards is missing, cut short, not ours or of another version.
    """
    found = read_shards(path, _read_shard, "checkpoint")
    if found is None:
        raise UserError(f"there is no checkpoint {path}: train first, or give the folder of a run that is")
    tensors, about = found
    return tensors if as_written else {_todays(name): tensor for name, tensor in tensors.items()}, about


def _todays(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _read_shard(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("multiravens", "null"))
            if not isinstance(about, dict) or about.get("format") != _FORMAT:
                raise UserError(f"{path} is not a checkpoint of an agent: give a run folder of multiravens.train")
            if about.get("version") != VERSION:
                found = quote(about.get("version"))
                raise UserError(f"{path} is a checkpoint of version {found}, and this program reads {VERSION}")
            return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
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
