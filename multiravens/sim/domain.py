"""Visual domains: the look of a table and of what lies on it. Colours, table texture, light, noise; not physics.

Everything is drawn at an episode's start and stays through it, but for the noise.
"""

from collections.abc import Callable, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from multiravens.errors import unknown
from multiravens.geometry import SHAPE, Array
from multiravens.heightmap import Color, Height

Texture = Callable[[np.random.Generator], Array]

_LUMA = np.array([0.299, 0.587, 0.114])
# From red, green, blue to luma and two colour differences, in which a hue is an angle.
_TO_YIQ = np.array([_LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)


def _noise(rng: np.random.Generator, cells: tuple[int, int]) -> Array:
    """Smooth noise (H, W) from 0 to 1, of about half as many bumps along each side."""
    coarse = rng.uniform(0, 1, (cells[0] + 3, cells[1] + 3)).astype(np.float32)
    fine = cv2.resize(coarse, (SHAPE[1] * 2, SHAPE[0] * 2), interpolation=cv2.INTER_CUBIC)
    return np.clip(fine[SHAPE[0] // 2 : -SHAPE[0] // 2, SHAPE[1] // 2 : -SHAPE[1] // 2], 0, 1)


def _grid() -> tuple[Array, Array]:
    return np.meshgrid(np.arange(SHAPE[0], dtype=float), np.arange(SHAPE[1], dtype=float), indexing="ij")


def wood(rng: np.random.Generator) -> Array:
    """Grain along x, as rings of a trunk cut lengthwise."""
    rows, _ = _grid()
    return 0.5 + 0.5 * np.sin(rows / 5 + 14 * _noise(rng, (24, 4)) + rng.uniform(0, 2 * np.pi))


def marble(rng: np.random.Generator) -> Array:
    """Veins in a turbulent field."""
    rows, columns = _grid()
    turn = rng.uniform(0, np.pi)
    along = np.cos(turn) * rows + np.sin(turn) * columns
    return np.abs(np.sin(along / 22 + 6 * _noise(rng, (8, 4)) + 2 * _noise(rng, (40, 20))))


def checker(rng: np.random.Generator) -> Array:
    """Squares of 5 cm, shifted at random."""
    (rows, columns), shift = _grid(), rng.integers(0, 32, 2)
    return ((rows + shift[0]) // 16 + (columns + shift[1]) // 16) % 2


def stripes(rng: np.random.Generator) -> Array:
    """Stripes 4 cm apart, at any turn."""
    (rows, columns), turn = _grid(), rng.uniform(0, np.pi)
    return (np.sin((np.cos(turn) * rows + np.sin(turn) * columns) / 2.05 + rng.uniform(0, 2 * np.pi)) > 0).astype(float)


def speckle(rng: np.random.Generator) -> Array:
    """Grains of about a centimetre."""
    return _noise(rng, (160, 80))


TEXTURES: Mapping[str, Texture] = {texture.__name__: texture for texture in (wood, marble, checker, stripes, speckle)}


class Domain:
    """Changes to the images of a camera.

    Args:
        hue: every colour's is turned by this [deg].
        saturation: of colours, 1 leaves them.
        brightness: of everything, 1 leaves it.
        table: colour of the table, each from 0 to 1; None leaves it.
        texture: of the table, one of `TEXTURES`; None for none.
        contrast: of the texture, 0 to 1.
        light: by how much the light falls off from one edge of the table to the other, 0 to 1; from where is drawn.
        color_noise: standard deviation of each pixel's colour, as a share of full scale.
        depth_noise: standard deviation of each pixel's height where there is something [m].

    Raises:
        ValueError: a value out of its range.
    """

    def __init__(
        self,
        hue: float = 0.0,
        saturation: float = 1.0,
        brightness: float = 1.0,
        table: tuple[float, float, float] | None = None,
        texture: str | None = None,
        contrast: float = 0.5,
        light: float = 0.0,
        color_noise: float = 0.0,
        depth_noise: float = 0.0,
    ) -> None:
        if texture is not None and texture not in TEXTURES:
            raise unknown("texture", texture, TEXTURES)
        bounds = {"saturation": 4, "brightness": 4, "contrast": 1, "light": 1, "color_noise": 1, "depth_noise": 0.1}
        for name, high in bounds.items():
            if not 0 <= locals()[name] <= high:
                raise ValueError(f"{name}={locals()[name]}: give 0 to {high}")
        if table is not None and not (len(table) == 3 and all(0 <= share <= 1 for share in table)):
            raise ValueError(f"table={table}: give red, green and blue, each from 0 to 1")
        self.hue, self.saturation, self.brightness, self.table = hue, saturation, brightness, table
        self.texture, self.contrast, self.light = texture, contrast, light
        self.color_noise, self.depth_noise = color_noise, depth_noise
        self._mix = brightness * _FROM_YIQ @ _turn(np.deg2rad(hue), saturation) @ _TO_YIQ

    def begin(self, rng: np.random.Generator) -> None:
        """Draw what stays through an episode."""
        self._pattern = np.zeros(SHAPE) if self.texture is None else 2 * TEXTURES[self.texture](rng) - 1
        rows, columns = (axis / side - 0.5 for axis, side in zip(_grid(), SHAPE, strict=True))
        turn = rng.uniform(0, 2 * np.pi)
        self._shade = 1 - self.light * np.clip(0.5 + np.cos(turn) * rows + np.sin(turn) * columns, 0, 1)

    def apply(
        self, color: Color, height: Height, empty: NDArray[np.bool_], rng: np.random.Generator
    ) -> tuple[Color, Height]:
        """Change a heightmap to what the camera sees in this domain.

        Args:
            color: (320, 160, 3) uint8.
            height: (320, 160) [m].
            empty: (320, 160) where nothing but the table is.
            rng: of the noise.
        """
        seen = color / 255.0
        if self.table is not None:
            seen[empty] = self.table
        seen[empty] *= 1 + self.contrast * self._pattern[empty][:, None]
        seen = (seen @ self._mix.T) * self._shade[..., None]
        if self.color_noise:
            seen = seen + rng.normal(0.0, self.color_noise, seen.shape)
        if self.depth_noise:
            noisy = height + np.where(empty, 0.0, rng.normal(0.0, self.depth_noise, height.shape))
            height = np.maximum(noisy, 0.0).astype(np.float32)
        return np.rint(255 * np.clip(seen, 0, 1)).astype(np.uint8), height


def _turn(angle: float, saturation: float) -> Array:
    cos, sin = saturation * np.cos(angle), saturation * np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
