"""Tensors in files: safetensors, nothing that is executed."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from multiravens.data.shards import fill_shards, find_shards, write_shards
from multiravens.errors import UserError, quote
from multiravens.runs import CONFIG, VERSION

_FORMAT = "multiravens-agent"
_HEADER_BYTES = 160
"""At most, that a shard's header takes for a tensor beside its name."""


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
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    sizes = [tensor.nbytes + len(name) + _HEADER_BYTES for name, tensor in plain.items()]
    cut_up = {} if shard_size is None else {"sha256": _digest(plain)}
    header = json.dumps({"format": _FORMAT, "version": VERSION, **about, **cut_up}, sort_keys=True)
    fixed = len(header) + _HEADER_BYTES
    if shard_size is not None and fixed + max(sizes) > shard_size:
        raise UserError(f"shard_size={shard_size}: one tensor takes {fixed + max(sizes)} bytes: give as many or more")
    names = list(plain)
    cut = fill_shards(sizes, None if shard_size is None else shard_size - fixed)
    contents = (save({names[index]: plain[names[index]] for index in each}, {"multiravens": header}) for each in cut)
    return write_shards(path, contents, len(cut))


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Of all tensors, which tells shards of one checkpoint from those of another."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Raises:
        UserError: the file or one of its shards is missing, cut short, not ours or of another version.
    """
    shards = find_shards(path)
    if not shards:
        raise UserError(f"there is no checkpoint {path}: train first, or give the folder of a run that is")
    tensors: dict[str, Tensor] = {}
    abouts = []
    for shard in shards:
        found, about = _read_shard(shard)
        tensors |= found
        abouts.append(about)
    if any(about != abouts[0] for about in abouts):
        raise UserError(f"the shards of {path} are of several checkpoints: copy all of one")
    return tensors, abouts[0]


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
