"""Laws of poses and of the pixel mapping."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multiravens.geometry import (
    PIXEL,
    SHAPE,
    Pose,
    invert,
    multiply,
    pixel_to_xy,
    planar_pose,
    quaternion_yaw,
    rotate,
    rotation_matrix,
    tilt,
    transform,
    wrap_angle,
    xy_to_pixel,
    yaw_quaternion,
)

NUMBER = st.floats(-2, 2, allow_nan=False)
ANGLE = st.floats(-10, 10, allow_nan=False)


@st.composite
def poses(draw: st.DrawFn) -> Pose:
    axis = np.array([draw(NUMBER), draw(NUMBER), draw(NUMBER)]) + [0, 0, 5]
    angle = draw(ANGLE)
    axis = axis / np.linalg.norm(axis)
    return Pose(np.array([draw(NUMBER) for _ in range(3)]), np.append(np.sin(angle / 2) * axis, np.cos(angle / 2)))


@settings(max_examples=50, deadline=None)
@given(poses(), poses(), poses())
def test_poses_form_a_group(a: Pose, b: Pose, c: Pose) -> None:
    points = np.random.default_rng(0).normal(size=(4, 3))
    left, right = multiply(multiply(a, b), c), multiply(a, multiply(b, c))
    np.testing.assert_allclose(transform(left, points), transform(right, points), atol=1e-9)
    np.testing.assert_allclose(transform(multiply(a, invert(a)), points), points, atol=1e-9)
    np.testing.assert_allclose(transform(multiply(a, b), points), transform(a, transform(b, points)), atol=1e-9)


@settings(max_examples=50, deadline=None)
@given(ANGLE)
def test_yaw_survives_the_quaternion_and_agrees_with_the_plane(yaw: float) -> None:
    assert wrap_angle(quaternion_yaw(yaw_quaternion(yaw)) - yaw) == pytest.approx(0, abs=1e-9)
    vector = np.array([0.3, -0.7])
    turned = rotation_matrix(yaw_quaternion(yaw)) @ [*vector, 0]
    np.testing.assert_allclose(rotate(yaw, vector), turned[:2], atol=1e-12)
    assert tilt(planar_pose([0, 0], 0, yaw).quaternion) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("factor", [1, 2])
def test_every_pixel_maps_to_a_point_and_back(factor: int) -> None:
    rows, columns = (side // factor for side in SHAPE)
    pixels = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    np.testing.assert_array_equal(xy_to_pixel(pixel_to_xy(pixels, factor), factor), pixels)


def test_pixels_are_where_the_ravens_family_has_them() -> None:
    np.testing.assert_allclose(pixel_to_xy([0, 0]), [0.25, -0.5])
    np.testing.assert_allclose(pixel_to_xy([10, 4]), [0.25 + 4 * PIXEL, -0.5 + 10 * PIXEL])
    np.testing.assert_allclose(pixel_to_xy([5, 2], factor=2), pixel_to_xy([10.5, 4.5]))


@given(ANGLE, st.floats(0.1, 7))
def test_wrapping_keeps_the_angle_modulo_its_period(angle: float, period: float) -> None:
    wrapped = wrap_angle(angle, period)
    assert -period / 2 - 1e-9 <= wrapped <= period / 2
    turns = (angle - wrapped) / period
    assert turns == pytest.approx(round(turns), abs=1e-6)
