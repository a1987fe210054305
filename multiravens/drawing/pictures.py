"""Drawing for people: heightmaps, actions, text and contact sheets. All images are (H, W, 3) uint8, RGB."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

import cv2
import numpy as np
from numpy.typing import NDArray

from multiravens.actions import Mark
from multiravens.geometry import BOUNDS, Array

Image = NDArray[np.uint8]
Color = tuple[int, int, int]

PAPER, INK, FAINT = (250, 250, 248), (38, 42, 50), (120, 126, 136)
NOW, DONE, LEFT = (236, 110, 20), (30, 150, 84), (196, 200, 206)
TALLEST = 0.12
"""Height [m] that is drawn in the last colour."""


def turned(image: Image, size: tuple[int, int]) -> Image:
    """A heightmap (320, 160, 3) as it looks from the front of the table, +y right and +x down, at a size."""
    sideways = np.ascontiguousarray(image.transpose(1, 0, 2))
    smaller = size[1] < sideways.shape[1]
    return np.asarray(cv2.resize(sideways, size[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC))


def colored(height: NDArray[np.float32]) -> Image:
    """A height map (H, W) [m] in colours, dark at the table."""
    scaled = np.clip(np.sqrt(height / TALLEST) * 255, 0, 255).astype(np.uint8)
    return np.asarray(cv2.applyColorMap(scaled, cv2.COLORMAP_VIRIDIS)[..., ::-1])


def draw_action(panel: Image, marks: Sequence[Mark]) -> None:
    """Draw an action's places and the way between them into a turned heightmap; ticks show the yaws."""
    spots = [_spot(panel, mark.position) for mark in marks]
    for color, extra in (((20, 20, 24), 2), ((255, 255, 255), 0)):
        for start, end in pairwise(spots):
            _arrow(panel, start, end, color, 2 + extra)
        for index, (spot, mark) in enumerate(zip(spots, marks, strict=True)):
            ring = color if extra or index else (255, 214, 64)
            cv2.circle(panel, _fixed(spot), 9 * 16, ring, 2 + extra, cv2.LINE_AA, 4)
            if mark.yaw is not None:
                tip = spot + 17 * np.array([np.sin(mark.yaw), np.cos(mark.yaw)])
                cv2.line(panel, _fixed(spot + (tip - spot) * 9 / 17), _fixed(tip), ring, 2 + extra, cv2.LINE_AA, 4)


def _arrow(panel: Image, start: Array, end: Array, color: Color, thickness: int) -> None:
    """A line from circle to circle, with a head."""
    length = float(np.linalg.norm(end - start))
    if length < 26:
        return
    along = (end - start) / length
    tail, head = start + 9 * along, end - 11 * along
    side = np.array([-along[1], along[0]])
    cv2.line(panel, _fixed(tail), _fixed(head), color, thickness, cv2.LINE_AA, 4)
    for sign in (-1, 1):
        cv2.line(panel, _fixed(head - 9 * along + sign * 5 * side), _fixed(head), color, thickness, cv2.LINE_AA, 4)


def _spot(panel: Image, position: Array) -> Array:
    """Pixel (across, down) (2,) of a world position in a turned heightmap."""
    share = (np.asarray(position[:2], dtype=float) - BOUNDS[:2, 0]) / np.ptp(BOUNDS[:2], axis=1)
    return share[::-1] * panel.shape[1::-1]


def _fixed(spot: Array) -> tuple[int, int]:
    """A pixel in OpenCV's sixteenths."""
    return int(round(spot[0] * 16)), int(round(spot[1] * 16))


def tick(image: Image, spot: tuple[int, int]) -> None:
    """A white tick on a green disc."""
    cv2.circle(image, spot, 10, PAPER, -1, cv2.LINE_AA)
    cv2.circle(image, spot, 9, DONE, -1, cv2.LINE_AA)
    points = np.array(spot) + np.array([[-4, 0], [-1, 3], [4, -3]])
    cv2.polylines(image, [points.astype(np.int32)], False, (255, 255, 255), 2, cv2.LINE_AA)


def paste(canvas: Image, image: Image, top: int, left: int) -> None:
    """Put an image on a larger one."""
    canvas[top : top + image.shape[0], left : left + image.shape[1]] = image


def write(image: Image, text: str, spot: tuple[int, int], scale: float, color: Color, bold: bool = False) -> int:
    """Write text with its baseline's left end at a spot (across, down); returns the column behind it."""
    mask, descent = _glyphs(text, scale, bold)
    left, bottom = spot[0], spot[1] + descent
    area = image[max(bottom - mask.shape[0], 0) : bottom, left : left + mask.shape[1]]
    share = mask[mask.shape[0] - area.shape[0] :, : area.shape[1], None]
    area[:] = area + share * (np.array(color) - area.astype(np.float32))
    return left + mask.shape[1]


@lru_cache(maxsize=512)
def _glyphs(text: str, scale: float, bold: bool) -> tuple[NDArray[np.float32], int]:
    """Coverage (H, W) of a line of text and the rows of it below the baseline: drawn large and reduced."""
    zoom, font = 4, cv2.FONT_HERSHEY_SIMPLEX
    thickness = round(zoom * scale * (3.2 if bold else 2.1))
    (width, height), base = cv2.getTextSize(text, font, scale * zoom, thickness)
    descent = -(-(base + thickness) // zoom)
    rows, columns = -(-(height + thickness) // zoom) + descent, -(-width // zoom) + 1
    canvas = np.zeros((rows * zoom, columns * zoom), np.uint8)
    cv2.putText(canvas, text, (0, (rows - descent) * zoom), font, scale * zoom, 255, thickness, cv2.LINE_AA)
    small = cv2.resize(canvas, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(small / 255, np.float32), descent


def wrap(text: str, width: int, scale: float) -> list[str]:
    """Break a text into lines of at most a width [px]; words that are wider are cut."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _glyphs(longer, scale, False)[0].shape[1] <= width:
            lines[-1] = longer
        else:
            while len(word) > 1 and _glyphs(word, scale, False)[0].shape[1] > width:
                word = word[:-1]
            lines.append(word)
    return lines


def contact_sheet(images: Sequence[Image], titles: Sequence[str], columns: int) -> Image:
    """Lay images out in rows with a title above each.

    Args:
        images: N of the same shape (H, W, 3).
        titles: N.
        columns: images in a row.

    Raises:
        ValueError: there are no images, or not as many as titles.
    """
    if not len(images) or len(images) != len(titles):
        raise ValueError(f"{len(images)} images and {len(titles)} titles: give at least one, and one title for each")
    height, width = images[0].shape[:2]
    rows, band, gap = -(-len(images) // columns), 34, 14
    sheet = np.full((rows * (height + band) + gap, columns * (width + gap) + gap, 3), PAPER, np.uint8)
    for index, (image, title) in enumerate(zip(images, titles, strict=True)):
        top, left = (index // columns) * (height + band) + band, (index % columns) * (width + gap) + gap
        paste(sheet, image, top, left)
        line = (wrap(title, width, 0.55) or [""])[0]
        write(sheet, line, (left, top - 10), 0.55, INK, bold=True)
    return sheet


def png(image: Image) -> bytes:
    """An image as a PNG file's bytes."""
    encoded: NDArray[np.uint8] = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])[1]
    return encoded.tobytes()
