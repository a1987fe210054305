"""Correlation of rotated crops with a feature map, which scores every place and turn at once."""

import math
from typing import Any

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

DIRECT = 12
"""Side of the largest square that is not transformed [pixels]."""


def rotated_crops(maps: Tensor, centres: Tensor, size: int, rotations: int) -> Tensor:
    """Cut a square out of each map, once for every turn that what lies in it may be given.

    Args:
        maps: (N, D, H, W).
        centres: (N, 2) row and column of the pixel that the squares turn about.
        size: K, side of the square [pixels]; the centre is at index K // 2.
        rotations: R, evenly spaced turns; turn r is by 2 pi r / R from +x (columns) to +y (rows).

    Returns:
        (N, D, R, K, K): square r shows what lies about the centre after turn r; bilinear, zeros outside of the map.
    """
    # Coordinates need more than the eight bits of bfloat16.
    maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
    centres = centres.to(maps.dtype)
    count, depth, height, width = maps.shape
    offsets = torch.arange(size, device=maps.device, dtype=maps.dtype) - size // 2
    angles = torch.arange(rotations, device=maps.device, dtype=maps.dtype) * (2 * math.pi / rotations)
    cos, sin = angles.cos()[:, None, None], angles.sin()[:, None, None]
    rows, columns = offsets[:, None], offsets[None, :]
    # The content at offset v comes to R(angle) v, so offset u shows what was at R(-angle) u.
    x = cos * columns + sin * rows + centres[:, 1, None, None, None]
    y = cos * rows - sin * columns + centres[:, 0, None, None, None]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], dim=-1).reshape(count, -1, size, 2)
    crops = functional.grid_sample(maps, grid.to(maps.dtype), mode="bilinear", align_corners=True)
    return crops.reshape(count, depth, rotations, size, size)


def correlate(maps: Tensor, kernels: Tensor) -> Tensor:
    """Slide every kernel over the map of its sample.

    Large squares go through the Fourier transform. Small ones are convolved on a CPU; elsewhere they are one product of
    matrices, since a convolution in as many groups as there are samples is not what GPUs are made for.

    Args:
        maps: (N, D, H, W).
        kernels: (N, D, R, K, K), the pivot at index K // 2.

    Returns:
        (N, R, H, W): at each place of the pivot the sum of products over D and the square; zeros lie outside of maps.

    Reference: Zeng et al. 2010.14406. Departs: one correlation of features computed once, where the original runs a
    convolution of 36 crops that each went through the network.
    """
    maps, kernels = maps.float(), kernels.float()
    # Sums of so many products are taken in 32 bits, whatever the network computes in.
    with torch.autocast(maps.device.type, enabled=False):
        if kernels.shape[-1] > DIRECT:
            return correlate_by_fourier(maps, kernels)
        return correlate_by_products(maps, kernels) if maps.is_cuda else correlate_directly(maps, kernels)


def correlate_by_fourier(maps: Tensor, kernels: Tensor) -> Tensor:
    """`correlate` as products of Fourier transforms."""
    return torch.as_tensor(_Correlation.apply(maps, kernels))


def correlate_directly(maps: Tensor, kernels: Tensor) -> Tensor:
    """`correlate` as one convolution with a group for each sample."""
    count, depth, rotations, size, _ = kernels.shape
    before, after = size // 2, size - 1 - size // 2
    padded = functional.pad(maps, (before, after, before, after))
    together = padded.reshape(1, count * depth, *padded.shape[-2:])
    weights = kernels.transpose(1, 2).reshape(count * rotations, depth, size, size)
    return functional.conv2d(together, weights, groups=count).reshape(count, rotations, *maps.shape[-2:])


def correlate_by_products(maps: Tensor, kernels: Tensor) -> Tensor:
    """`correlate` as a product of the kernels and of the squares about every place, laid out in rows."""
    size = kernels.shape[-1]
    before, after = size // 2, size - 1 - size // 2
    squares = functional.unfold(functional.pad(maps, (before, after, before, after)), size)
    scores = kernels.transpose(1, 2).flatten(2) @ squares
    return scores.unflatten(2, maps.shape[-2:])


class _Correlation(torch.autograd.Function):
    """Its own backward pass: torch's would take the transforms of real maps as complex ones, at twice the cost.

    Kernels fill few rows of the padded square, so their transforms run along rows first and back along rows last.
    """

    @staticmethod
    def forward(ctx: Any, maps: Tensor, kernels: Tensor) -> Tensor:
        size, (height, width) = kernels.shape[-1], maps.shape[-2:]
        before = size // 2
        shape = [next_fast_len(side + size - 1, real=True) for side in (height, width)]
        padded = functional.pad(maps, (before, size - 1 - before, before, size - 1 - before))
        spectra = torch.fft.rfft2(padded, s=shape)
        scores = maps.new_empty(len(maps), kernels.shape[2], height, width)
        for part in _parts(maps):
            products = _kernel_spectra(kernels[part], shape).conj_physical_().mul_(spectra[part, :, None]).sum(1)
            scores[part] = torch.fft.irfft2(products, s=shape)[..., :height, :width]
        ctx.save_for_backward(spectra, kernels)
        ctx.shape, ctx.extent = shape, (height, width)
        return scores

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> tuple[Tensor, Tensor]:
        spectra, kernels = ctx.saved_tensors
        size, shape, (height, width) = kernels.shape[-1], ctx.shape, ctx.extent
        before = size // 2
        by_maps = gradients.new_empty(len(gradients), kernels.shape[1], height, width)
        by_kernels = torch.empty_like(kernels)
        for part in _parts(gradients):
            incoming = torch.fft.rfft2(gradients[part], s=shape)[:, None]
            summed = (_kernel_spectra(kernels[part], shape) * incoming).sum(2)
            # What the padding moved by `before` is moved back.
            by_maps[part] = torch.fft.irfft2(summed, s=shape)[..., before : before + height, before : before + width]
            products = incoming.conj_physical_() * spectra[part, :, None]
            rows = torch.fft.ifft(products, dim=-2)[..., :size, :]
            by_kernels[part] = torch.fft.irfft(rows, n=shape[1])[..., :size]
        return by_maps, by_kernels


def _kernel_spectra(kernels: Tensor, shape: list[int]) -> Tensor:
    return torch.fft.fft(torch.fft.rfft(kernels, n=shape[1]), n=shape[0], dim=-2)


def _parts(batch: Tensor) -> list[slice]:
    """Sample by sample on a CPU, where what is in hand then fits its cache; all at once elsewhere."""
    return [slice(None)] if batch.is_cuda else [slice(index, index + 1) for index in range(len(batch))]
