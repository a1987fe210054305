"""Cameras: bodies appear in their pictures where they are in the world."""

from collections.abc import Iterator

import numpy as np
import pytest

from multiravens.geometry import PIXEL, SHAPE, pixel_to_xy, planar_pose
from multiravens.heightmap import fuse, reduce_half
from multiravens.sim.cameras import TABLE_COLOR, Camera, Orthographic, RealSense
from multiravens.sim.shapes import slab
from multiravens.sim.world import World

HEIGHTS = (0.02, 0.035, 0.05, 0.08)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def boxes(world: World) -> list[np.ndarray]:
    """Four boxes of known heights and places; returns their xy."""
    rng = np.random.default_rng(1)
    places = [
        np.array([x, y]) + rng.uniform(-0.01, 0.01, 2) for x, y in [(0.4, -0.3), (0.6, -0.1), (0.4, 0.1), (0.6, 0.3)]
    ]
    for index, (xy, height) in enumerate(zip(places, HEIGHTS, strict=True)):
        world.add(f"box {index}", slab((0.05, 0.06, height), (0.8, 0.2 * index, 0.3)), planar_pose(xy, 0, 0.3 * index))
    return places


@pytest.mark.parametrize(
    ("camera", "height_error"), [(Orthographic(), 1e-4), (RealSense(0.0, 0.0), 3e-3)], ids=["orthographic", "realsense"]
)
def test_boxes_are_recovered_exactly(world: World, camera: Camera, height_error: float) -> None:
    places = boxes(world)
    color, height = camera.observe(world, np.random.default_rng(0))
    assert color.shape == (*SHAPE, 3) and color.dtype == np.uint8 and height.dtype == np.float32
    for xy, expected in zip(places, HEIGHTS, strict=True):
        near = np.linalg.norm(pixel_to_xy(np.indices(SHAPE).transpose(1, 2, 0)) - xy, axis=-1) < 0.06
        top = near & (height > expected - 2 * height_error)
        assert np.median(height[top]) == pytest.approx(expected, abs=height_error)
        centre = pixel_to_xy(np.argwhere(top).mean(0))
        assert np.abs(centre - xy).max() < 0.5 * PIXEL


def test_what_is_not_seen_is_table(world: World) -> None:
    color, height = Orthographic().observe(world, np.random.default_rng(0))
    assert (height == 0).all() and (color == TABLE_COLOR).all()


def spread(difference: np.ndarray) -> float:
    """Standard deviation of the noise in either of two pictures, robust to edges that show another face in each."""
    return float(1.4826 * np.median(np.abs(difference)) / np.sqrt(2))


def test_noise_is_there_and_has_the_asked_size(world: World) -> None:
    boxes(world)
    rng = np.random.default_rng(0)
    clean, noisy = RealSense(0.0, 0.0), RealSense(color_noise=0.02, depth_noise=0.003)
    colors, heights = clean.observe(world, rng)
    first, second = noisy.observe(world, rng), noisy.observe(world, rng)
    inside = heights > 0.07
    assert 0.5 * 0.02 * 255 < spread(first[0][inside].astype(float) - second[0][inside]) < 1.5 * 0.02 * 255
    # The highest of several noisy points is kept, which spreads less than one point does.
    assert 0.0005 < spread(first[1][inside] - second[1][inside]) < 0.003
    again = RealSense(0.02, 0.003).observe(world, np.random.default_rng(5))
    same = RealSense(0.02, 0.003).observe(world, np.random.default_rng(5))
    np.testing.assert_array_equal(again[1], same[1])


def test_noise_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match="depth_noise"):
        RealSense(depth_noise=-1)


def test_half_resolution_is_the_mean_of_every_four_pixels() -> None:
    rng = np.random.default_rng(0)
    height = rng.uniform(0, 0.2, (8, 6)).astype(np.float32)
    color = rng.integers(0, 255, (8, 6, 3), dtype=np.uint8)
    small_color, small_height = reduce_half(color, height)
    for row in range(4):
        for column in range(3):
            block = height[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            colors = color[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].reshape(4, 3)
            assert small_height[row, column] == pytest.approx(block.mean(), abs=1e-7)
            np.testing.assert_array_equal(small_color[row, column], np.floor(colors.mean(0) + 0.5))
    stacked = reduce_half(np.stack([color] * 3), np.stack([height] * 3))
    np.testing.assert_array_equal(stacked[0][1], small_color)
    np.testing.assert_array_equal(stacked[1][2], small_height)


def test_fusing_keeps_the_highest_point_whatever_their_order() -> None:
    xy = pixel_to_xy([100, 50])
    points = np.array([[*xy, 0.05], [*xy, 0.02], [0.1, 0.0, 0.03], [*pixel_to_xy([20, 20]), 0.9]])
    colors = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [9, 9, 9]], np.uint8)
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        color, height = fuse(points[order], colors[order], TABLE_COLOR)
        assert height[100, 50] == pytest.approx(0.05) and (height > 0).sum() == 1
        np.testing.assert_array_equal(color[100, 50], [1, 2, 3])
