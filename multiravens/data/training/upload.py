"""Asynchronous copies of arrays to the device that computes; the host does not wait until they are there."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

ALIGNMENT = 16
"""Each array begins at a multiple of this [bytes], so that its part can be seen as numbers of any kind."""


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on a device."""
    return send(torch.from_numpy(array), device)


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the host's as one on a device."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def upload_together(arrays: Mapping[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Arrays as tensors on a device, in one copy: each copy costs the host as much as starting several operators."""
    if device.type != "cuda":
        return {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return unpack(send(pack(arrays), device), arrays)


def pack(arrays: Mapping[str, np.ndarray]) -> Tensor:
    """The bytes of arrays one after the other, uint8."""
    starts, size = _starts(arrays)
    together = np.zeros(max(size, ALIGNMENT), np.uint8)  # of no bytes at all there is no view as other numbers
    for start, array in zip(starts, arrays.values(), strict=True):
        together[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return torch.from_numpy(together)


def unpack(together: Tensor, arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Split the tensor that `pack` put together into tensors of the arrays' kinds and shapes."""
    starts, _ = _starts(arrays)
    return {
        name: together[start : start + array.nbytes].view(_dtype(array)).view(array.shape)
        for start, (name, array) in zip(starts, arrays.items(), strict=True)
    }


def _starts(arrays: Mapping[str, np.ndarray]) -> tuple[list[int], int]:
    """Offsets at which each array begins, and at which the last one ends [bytes]."""
    padded = [-(-array.nbytes // ALIGNMENT) * ALIGNMENT for array in arrays.values()]
    ends = np.cumsum(padded).tolist()
    return [end - size for end, size in zip(ends, padded, strict=True)], ends[-1] if ends else 0


def _dtype(array: np.ndarray) -> torch.dtype:
    return torch.from_numpy(np.empty(0, array.dtype)).dtype
