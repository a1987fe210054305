"""Parameters of each problem's own beside shared ones: scales and biases of layers, the model patch.

Reference: Mudrakarta et al. 1810.10703.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.func import functional_call

from multiravens.data.demonstrations import upload


class PerProblem(nn.Module, ABC):
    """Has parameters of each problem's own."""

    @abstractmethod
    def of(self, problem: int) -> nn.Module:
        """Those of a problem."""


class Patch(nn.Module):
    """Scales and biases of channels, which do nothing at first.

    Args:
        channels: of all layers together.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))


class Patched(PerProblem):
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
        self.own = nn.ModuleList(Patch(sum(self.channels.values())) for _ in range(problems))

    def of(self, problem: int) -> nn.Module:
        """The scales and biases of a problem."""
        return self.own[problem]

    def forward(self, *inputs: Any) -> Tensor:
        """Each sample through the layers as its problem has them.

        Args:
            inputs: of the module; the last are the problems (N,) as indices, no tensor on a device.
        """
        *rest, tasks = inputs

        def compute(task: int, own: Any) -> list[Tensor]:
            return [self.run(task, *(each[own] for each in rest), tasks)]

        (made,) = by_problem(tasks, rest[0].device, compute)
        return made

    def run(self, task: int, *inputs: Any) -> Any:
        """What the module makes of inputs of one problem."""
        patch = self.own[task]
        assert isinstance(patch, Patch)
        scales, biases = (each.split(list(self.channels.values())) for each in (patch.scale, patch.bias))
        changed = {}
        for name, scale, bias in zip(self.channels, scales, biases, strict=True):
            weight, shared = (self.module.get_parameter(f"{name}.{each}") for each in ("weight", "bias"))
            changed[f"{name}.weight"] = weight * scale.view(-1, *[1] * (weight.ndim - 1))
            changed[f"{name}.bias"] = shared + bias
        return functional_call(self.module, changed, inputs)


def by_problem(tasks: ArrayLike, device: torch.device, compute: Callable[[int, Any], Sequence[Any]]) -> list[Tensor]:
    """Compute for the samples of each problem alone, and put what comes out in the samples' order.

    Args:
        tasks: (N,) indices of the problems, no tensor on a device: they decide what is computed.
        device: where that is.
        compute: given a problem and its samples, as an index, returns tensors with a row for each.
    """
    tasks = np.asarray(tasks)
    present = sorted(set(tasks.tolist()))
    if len(present) == 1:
        return list(compute(present[0], slice(None)))
    rows = [(tasks == task).nonzero()[0] for task in present]
    back = upload(np.concatenate(rows).argsort(), device)
    made = [compute(task, upload(own, device)) for task, own in zip(present, rows, strict=True)]
    return [torch.cat(parts)[back] for parts in zip(*made, strict=True)]
