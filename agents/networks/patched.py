"""Per-problem parameters beside shared ones: scales and biases of layers, the model patch.

Reference: Mudrakarta et al. 1810.10703.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call

from multiravens.data.training.upload import upload


class Tasks(NamedTuple):
    """The problems of N samples.

    Attributes:
        problem: (N,) index of each sample's, int64, where the network computes.
        only: the problem of all samples; None if there may be several. The host knows it without asking the device.
    """

    problem: Tensor
    only: int | None

    @classmethod
    def of(cls, index: ArrayLike, device: str | torch.device = "cpu") -> "Tasks":
        """The problems (N,) of samples, as the host has them."""
        index = np.asarray(index, np.int64)
        only = int(index[0]) if len(index) and (index == index[0]).all() else None
        return cls(upload(index, torch.device(device)), only)


class PerProblem(nn.Module, ABC):
    """Has parameters of each problem's own."""

    @abstractmethod
    def of(self, problem: int) -> nn.Module:
        """Those of a problem."""


class TaskAffine(nn.Module):
    """Scales and biases of channels, which do nothing at first.

    Args:
        channels: of all layers together.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class PerTaskAffine(PerProblem):
    """A module in some of whose layers each problem has scales and biases of its own.

    Args:
        module: whose inputs and outputs all have a row for each sample.
        kinds: of layers, with a weight for each channel out and a bias.
        problems: how many.
    """

    def __init__(self, module: nn.Module, kinds: tuple[type[nn.Module], ...], problems: int) -> None:
        super().__init__()
        self.module = module
        layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, kinds)}
        self.channels = {name: len(layer.weight) for name, layer in layers.items()}  # type: ignore[arg-type]
        self.own = nn.ModuleList(TaskAffine(sum(self.channels.values())) for _ in range(problems))
        # Of each layer, while samples of several problems go through it: what each sample's output is scaled and
        # shifted by.
        self._rows: dict[str, tuple[Tensor, Tensor]] = {}
        for name, layer in layers.items():
            layer.register_forward_hook(partial(_scaled, self._rows, name))

    def of(self, problem: int) -> nn.Module:
        """The scales and biases of a problem."""
        return self.own[problem]

    def forward(self, *inputs: Any) -> Any:
        """Each sample through the layers as its problem has them.

        Args:
            inputs: of the module; the last are the problems.
        """
        tasks: Tasks = inputs[-1]
        return self.run_all(tasks, *inputs) if tasks.only is None else self.run(tasks.only, *inputs)

    def run(self, task: int, *inputs: Any) -> Any:
        """Inputs of one problem through the module."""
        patch = self.own[task]
        assert isinstance(patch, TaskAffine)
        scales, biases = (each.split(list(self.channels.values())) for each in (patch.scale, patch.bias))
        changed = {}
        for name, scale, bias in zip(self.channels, scales, biases, strict=True):
            weight, shared = (self.module.get_parameter(f"{name}.{each}") for each in ("weight", "bias"))
            changed[f"{name}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
            changed[f"{name}.bias"] = shared + bias
        return functional_call(self.module, changed, inputs)

    def run_all(self, tasks: Tasks, *inputs: Any) -> Any:
        """Inputs of several problems through the module at once: outputs are scaled and shifted by the sample."""
        scale, bias = (torch.stack([getattr(patch, name) for patch in self.own]) for name in ("scale", "bias"))
        shared = torch.cat([self.module.get_parameter(f"{name}.bias") for name in self.channels])
        # A layer's output has its own bias, once; scaled with the rest, it would not be.
        shift = bias + shared * (1 - scale)
        sizes = list(self.channels.values())
        parts = (each[tasks.problem][..., None, None].split(sizes, dim=1) for each in (scale, shift))
        self._rows.update(zip(self.channels, zip(*parts, strict=True), strict=True))
        try:
            return self.module(*inputs)
        finally:
            self._rows.clear()


def _scaled(
    rows: dict[str, tuple[Tensor, Tensor]], name: str, layer: nn.Module, inputs: Any, output: Tensor
) -> Tensor | None:
    if not rows:
        return None
    scale, shift = rows[name]
    return torch.addcmul(shift.to(output.dtype), output, scale.to(output.dtype))


def by_problem(tasks: Tasks, compute: Callable[[int, Any], Sequence[Any]]) -> list[Tensor]:
    """Compute for the samples of each problem alone, and put what comes out in the samples' order.

    Args:
        tasks: the problems. The host waits for the device to tell which there are.
        compute: given a problem and its samples, as an index, returns tensors with a row for each.
    """
    index = tasks.problem.cpu().numpy()
    present = sorted(set(index.tolist()))
    rows = [(index == task).nonzero()[0] for task in present]
    device = tasks.problem.device
    back = upload(np.concatenate(rows).argsort(), device)
    made = [compute(task, upload(own, device)) for task, own in zip(present, rows, strict=True)]
    return [torch.cat(parts)[back] for parts in zip(*made, strict=True)]
