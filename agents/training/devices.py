"""Devices, precision and processes of a training run."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from multiravens.errors import UserError

PRECISIONS = ("32-true", "bf16-mixed")


def fabric_of(config: Mapping[str, Any]) -> Fabric:
    """Devices, precision and processes as configured.

    Raises:
        UserError: a device that is not there, or a batch that can't be shared out.
    """
    name = str(config["device"])
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not (kind == "cuda" and index.isdecimal())):
        raise UserError(f"device={name}: give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name} is not there: this machine has {torch.cuda.device_count()} CUDA devices")
    count, machines = _processes(config)
    there = torch.cuda.device_count() if kind == "cuda" else count
    if count > (1 if index else there):
        raise UserError(f"device={name} for {count} processes: each needs a device of its own, and {there} are there")
    # Programs of problems that a process's batch lacks have no gradient there.
    several = "ddp_find_unused_parameters_true" if config["backbone"]["streams"] else "ddp"
    return Fabric(
        accelerator=kind,
        devices=[int(index)] if index else count,
        num_nodes=machines,
        strategy=several if count * machines > 1 else "auto",
        # Named, since looking for others loads the libraries of whatever cluster software is installed.
        plugins=[
            TorchElasticEnvironment() if torch.distributed.is_torchelastic_launched() else LightningEnvironment(),
            *([_Mixed("bf16-mixed", kind)] if config["precision"] == "bf16-mixed" else []),
        ],
    )


class _Mixed(MixedPrecision):
    """Computes in bfloat16 what torch's autocast says; fabric's own rounds the network's inputs, too.

    Of a pixel's coordinates bfloat16 keeps eight bits: 317.3 became 318.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def _processes(config: Mapping[str, Any]) -> tuple[int, int]:
    """Processes on each machine, and machines: as configured, or as torchrun has started them."""
    count, machines = int(config["devices"]), 1
    if torch.distributed.is_torchelastic_launched():
        count = int(os.environ["LOCAL_WORLD_SIZE"])
        machines = int(os.environ["WORLD_SIZE"]) // count
        if config["devices"] not in (1, count):
            raise UserError(f"devices={config['devices']}: torchrun started {count} processes here; leave devices out")
    if config["batch"] % (count * machines):
        raise UserError(f"batch={config['batch']} is not a multiple of {count * machines} processes: give one that is")
    return count, machines


@contextmanager
def tensor_floats(allowed: bool) -> Iterator[None]:
    """Let GPUs compute products and convolutions of float32 in TensorFloat-32, or in neither.

    Torch's own defaults let convolutions alone. What was set before is set again.
    """
    kinds: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [kind.allow_tf32 for kind in kinds]
    try:
        for kind in kinds:
            kind.allow_tf32 = allowed
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.allow_tf32 = value


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on the host or on a device."""
    told = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        any(words in told for words in ("can't allocate memory", "not enough memory", "out of memory", "ALLOC_FAILED"))
    )
