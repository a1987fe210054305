"""Lossless compression of one heightmap: colour as uint8, height as uint16 in steps of 10 micrometres.

Measured on orthographic pictures of 12 boxes, 6 cylinders and 60 beads, 320 x 160: zstd level 9 gives 6.4 KB for colour
with the filter below (7.0 KB without) and 3.4 KB for height (a row or column difference makes it larger, since flat
tops repeat), written in 1.5 ms and read in 0.5 ms together. Level 16 saves 2 % more for three times the time, level 19
a tenth for fifty times.
"""

import numpy as np
import zstandard

from multiravens.geometry import HEIGHT_LIMIT as HEIGHT_LIMIT
from multiravens.geometry import HEIGHT_QUANTUM as HEIGHT_QUANTUM

_LEVEL = 9
_GREEN = 1


class CodecError(ValueError):
    """A blob that is not one compressed heightmap of the expected size."""


def encode_color(color: np.ndarray) -> bytes:
    """Compresses a colour picture.

    Args:
        color: (H, W, 3) uint8, red, green, blue.

    Returns:
        One zstd frame of each row's difference from the row above, red and blue less green beforehand.
    """
    filtered = color.copy()
    filtered[..., 0] -= color[..., _GREEN]
    filtered[..., 2] -= color[..., _GREEN]
    filtered[1:] -= filtered[:-1].copy()
    return _compress(filtered)


def decode_color(blob: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Restores what `encode_color` compressed.

    Args:
        blob: One zstd frame.
        shape: (H, W) of the picture.

    Returns:
        (H, W, 3) uint8.

    Raises:
        CodecError: If the blob is damaged or not of this shape.
    """
    filtered = np.frombuffer(_decompress(blob, shape[0] * shape[1] * 3), np.uint8)
    rows = filtered.reshape(shape[0], shape[1] * 3)
    color = np.add.accumulate(rows, axis=0, dtype=np.uint8).reshape(*shape, 3)
    color[..., 0] += color[..., _GREEN]
    color[..., 2] += color[..., _GREEN]
    return color


def quantize_height(height: np.ndarray) -> np.ndarray:
    """Rounds heights to the stored steps.

    Args:
        height: (...) height above the table [m].

    Returns:
        (...) uint16, in units of `HEIGHT_QUANTUM`.

    Raises:
        ValueError: If a height is not finite or outside [0, `HEIGHT_LIMIT`].
    """
    steps = np.rint(np.asarray(height, np.float64) / HEIGHT_QUANTUM)
    if not (steps.min(initial=0) >= 0 and steps.max(initial=0) <= 65535):
        raise ValueError(
            f"height must be finite and within [0, {HEIGHT_LIMIT:.5f}] m to be stored, not "
            f"[{np.min(height):.5f}, {np.max(height):.5f}]"
        )
    return steps.astype("<u2")


def dequantize_height(steps: np.ndarray) -> np.ndarray:
    """Restores heights: (...) uint16 in units of `HEIGHT_QUANTUM` to (...) float32 [m]."""
    return steps.astype(np.float32) * np.float32(HEIGHT_QUANTUM)


def encode_height(height: np.ndarray) -> bytes:
    """Compresses a height picture.

    Args:
        height: (H, W) height above the table [m].

    Returns:
        One zstd frame of little-endian uint16 in units of `HEIGHT_QUANTUM`.

    Raises:
        ValueError: If a height is not finite or outside [0, `HEIGHT_LIMIT`].
    """
    return _compress(quantize_height(height))


def decode_height(blob: bytes, shape: tuple[int, int]) -> np.ndarray:
    """Restores what `encode_height` compressed.

    Args:
        blob: One zstd frame.
        shape: (H, W) of the picture.

    Returns:
        (H, W) float32 height above the table [m], within half a `HEIGHT_QUANTUM` of what was encoded.

    Raises:
        CodecError: If the blob is damaged or not of this shape.
    """
    return dequantize_height(np.frombuffer(_decompress(blob, shape[0] * shape[1] * 2), "<u2").reshape(shape))


def _compress(array: np.ndarray) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL).compress(np.ascontiguousarray(array).data)


def _decompress(blob: bytes, size: int) -> bytes:
    """Decompresses to exactly `size` bytes; the size a hostile blob claims is refused before it is allocated."""
    try:
        claimed = zstandard.get_frame_parameters(blob).content_size
        if claimed != size:
            raise CodecError(f"a compressed picture holds {claimed} bytes instead of {size}")
        content = zstandard.ZstdDecompressor().decompress(blob, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodecError("a compressed picture is damaged") from error
    if len(content) != size:
        raise CodecError(f"a compressed picture holds {len(content)} bytes instead of {size}")
    return content
