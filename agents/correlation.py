"""Correlating rotated crops with a map, which scores every place and turn at once."""

import math

import torch
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional


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
    """Slide every kernel over the map of its sample, through the Fourier transform.

    Args:
        maps: (N, D, H, W).
        kernels: (N, D, R, K, K), the pivot at index K // 2.

    Returns:
        (N, R, H, W): at each place of the pivot the sum of products over D and the square; zeros lie outside of maps.

    Reference: Zeng et al. 2010.14406. Departs: one FFT correlation of features computed once, where the original runs
    a convolution of 36 crops that each went through the network.
    """
    size, (height, width) = kernels.shape[-1], maps.shape[-2:]
    before = size // 2
    shape = [next_fast_len(side + size - 1, real=True) for side in (height, width)]
    padded = functional.pad(maps, (before, size - 1 - before, before, size - 1 - before))
    spectra = torch.fft.rfft2(padded.float(), s=shape)
    if maps.is_cuda:
        spectrum = torch.einsum("ndrhw,ndhw->nrhw", torch.fft.rfft2(kernels.float(), s=shape).conj(), spectra)
        return torch.fft.irfft2(spectrum, s=shape)[..., :height, :width]
    # Sample by sample on a CPU: what is in hand then fits its cache.
    scores = []
    for kernel, spectrum in zip(kernels.float(), spectra, strict=True):
        product = (torch.fft.rfft2(kernel, s=shape).conj() * spectrum[:, None]).sum(0)
        scores.append(torch.fft.irfft2(product, s=shape)[..., :height, :width])
    return torch.stack(scores)
