"""The arm is the published one, reaches everywhere and keeps to its path."""

from collections.abc import Iterator
from itertools import product

import numpy as np
import pybullet
import pytest

from multiravens.envs import demonstrate, make
from multiravens.geometry import BOUNDS, Array, rotation_matrix, tilt, wrap_angle
from multiravens.sim.arm import A2, A3, BASE, D1, D4, D5, D6, TOOL, Arm


@pytest.fixture
def arm() -> Iterator[Arm]:
    client = pybullet.connect(pybullet.DIRECT)
    pybullet.setGravity(0, 0, -9.8, physicsClientId=client)
    pybullet.setTimeStep(1 / 240, physicsClientId=client)
    yield Arm(client)
    pybullet.disconnect(client)


def denavit_hartenberg(joints: Array) -> Array:
    """(4, 4) pose of the flange in the base frame by the published parameters."""
    pose = np.eye(4)
    rows = [(D1, 0, np.pi / 2), (0, A2, 0), (0, A3, 0), (D4, 0, np.pi / 2), (D5, 0, -np.pi / 2), (D6, 0, 0)]
    for angle, (d, a, alpha) in zip(joints, rows, strict=True):
        c, s, ca, sa = np.cos(angle), np.sin(angle), np.cos(alpha), np.sin(alpha)
        pose = pose @ np.array([[c, -s * ca, s * sa, a * c], [s, c * ca, -c * sa, a * s], [0, sa, ca, d], [0, 0, 0, 1]])
    return pose


def test_the_urdf_has_the_published_kinematics(arm: Arm) -> None:
    rng = np.random.default_rng(0)
    for joints in [np.zeros(6), *rng.uniform(-np.pi, np.pi, (5, 6))]:
        arm.set_joints(joints)
        flange = denavit_hartenberg(joints)
        expected = flange[:3, 3] + TOOL * flange[:3, 2] + BASE
        np.testing.assert_allclose(arm.tip().position, expected, atol=1e-6)
        np.testing.assert_allclose(rotation_matrix(arm.tip().quaternion), flange[:3, :3], atol=1e-6)


def test_it_reaches_the_whole_workspace(arm: Arm) -> None:
    (left, right), (near, far), _ = BOUNDS
    grid = product(np.linspace(left, right, 5), np.linspace(near, far, 5), (0.0, 0.14, 0.30))
    for position in map(np.array, grid):
        for yaw in np.arange(12) * np.pi / 6:
            arm.show(position, yaw)
            tip = arm.tip()
            assert np.linalg.norm(tip.position - position) < 1e-3
            assert np.pi - tilt(tip.quaternion) < np.deg2rad(0.2)
            axis = rotation_matrix(tip.quaternion)[:2, 0]
            assert wrap_angle(np.arctan2(axis[1], axis[0]) + np.pi / 2 - yaw) == pytest.approx(0, abs=1e-5)
            assert np.abs(arm.joints()).max() < 2 * np.pi


def test_out_of_reach_is_said(arm: Arm) -> None:
    with pytest.raises(ValueError, match="cannot reach"):
        arm.inverse_kinematics([1.2, 0, 0.1], 0.0)


def test_the_motors_keep_to_the_path_and_do_not_sag(arm: Arm) -> None:
    position = np.array([0.4, -0.3, 0.2])
    arm.show(position, 0.0)
    for tick in range(300):
        moving = tick < 240
        position = position + [0, 0.5 / 240 * moving, 0]
        arm.drive(position, 0.5 * min(tick, 240) / 240)
        pybullet.stepSimulation(physicsClientId=arm._client)
        assert np.linalg.norm(arm.tip().position - position) < 3e-3
    assert np.linalg.norm(arm.tip().position - position) < 5e-4


@pytest.mark.parametrize("problem", ["placing", "stacking", "chaining", "routing"])
def test_the_arm_solves_what_the_gripper_solves(problem: str) -> None:
    env = make(problem, motion="arm")
    runs = [demonstrate(env, seed) for seed in range(2)]
    env.close()
    assert any(run.success for run in runs), [run.reason for run in runs]


def test_the_arm_is_not_in_observations() -> None:
    frames = []
    for motion in ("gripper", "arm"):
        env = make("placing", motion=motion)
        frames.append(env.reset(seed=3)[0]["height"])
        env.close()
    assert np.abs(frames[0] - frames[1]).max() < 1e-3
