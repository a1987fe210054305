"""The arm is the published one, reaches everywhere and keeps to its path."""

import importlib.util
import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import pybullet
import pytest

from multiravens.envs import demonstrate, make
from multiravens.envs.action import Action
from multiravens.envs.primitive import UNREACHABLE, PickPlace
from multiravens.geometry import BOUNDS, Array, Pose, invert, multiply, planar_pose, rotation_matrix, tilt, wrap_angle
from multiravens.sim.arm import A2, A3, BASE, D1, D4, D5, D6, TOOL, URDF, Arm
from multiravens.sim.motion import ArmMotion
from multiravens.sim.shapes import slab
from multiravens.sim.world import World
from tests.worlds import seen


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


def carry(arm: Arm, mass: float) -> None:
    """Hang a box of a mass [kg] on the tip."""
    tip, client = arm.tip(), arm._client
    centre = tip.position - [0, 0, 0.025]
    shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=[0.02] * 3, physicsClientId=client)
    box = pybullet.createMultiBody(mass, shape, -1, centre.tolist(), physicsClientId=client)
    state = pybullet.getLinkState(arm.body, arm.tip_link, physicsClientId=client)
    frame = Pose(np.array(state[0]), np.array(state[1]))
    relative = multiply(invert(frame), Pose(centre, np.array([0.0, 0.0, 0.0, 1.0])))
    joint = pybullet.createConstraint(
        arm.body,
        arm.tip_link,
        box,
        -1,
        pybullet.JOINT_FIXED,
        [0, 0, 0],
        relative.position.tolist(),
        [0, 0, 0],
        relative.quaternion.tolist(),
        [0, 0, 0, 1],
        physicsClientId=client,
    )
    pybullet.changeConstraint(joint, maxForce=50, physicsClientId=client)


@pytest.mark.parametrize("mass", [0.0, 0.3])
def test_the_motors_keep_to_the_path_and_do_not_sag(arm: Arm, mass: float) -> None:
    position = np.array([0.4, -0.3, 0.2])
    arm.show(position, 0.0)
    if mass:
        carry(arm, mass)
    for tick in range(300):
        moving = tick < 240
        position = position + [0, 0.5 / 240 * moving, 0]
        arm.drive(position, 0.5 * min(tick, 240) / 240)
        pybullet.stepSimulation(physicsClientId=arm._client)
        assert np.linalg.norm(arm.tip().position - position) < 3e-3
    assert np.linalg.norm(arm.tip().position - position) < 5e-4


def speed(arm: Arm) -> float:
    """Of the joint that turns fastest [rad/s]."""
    states = pybullet.getJointStates(arm.body, range(6), physicsClientId=arm._client)
    return max(abs(state[1]) for state in states)


def test_no_joint_turns_faster_than_the_real_one() -> None:
    world, motion = World(), ArmMotion()
    motion.attach(world)
    fastest: list[float] = []
    misses = []
    world.on_tick.append(lambda _: fastest.append(speed(motion.arm)))
    for goal in ([0.75, 0.5, 0.14], [0.75, -0.5, 0.3], [0.25, 0.0, 0.05]):
        motion.park(np.array(goal), 1.0)
        misses.append(np.linalg.norm(motion.tip().position - goal))
    world.close()
    assert max(fastest) < 1.02 * np.pi
    assert max(misses) < 5e-4


def test_the_tip_touches_and_the_links_pass_through(arm: Arm) -> None:
    links = [
        link for link in range(-1, 7) if pybullet.getCollisionShapeData(arm.body, link, physicsClientId=arm._client)
    ]
    assert links == [arm.tip_link]
    arm.show([0.5, 0.0, 0.2], 0.0)
    below = clearance(arm, (0.1, 0.1, 0.01), (0.5, 0.0, 0.15))
    beside = clearance(arm, (0.01, 0.1, 0.1), (0.55, 0.0, 0.21))
    assert below == pytest.approx(0.04, abs=1e-4)
    assert 0.04 - beside <= 0.007


def clearance(arm: Arm, half: tuple[float, float, float], centre: tuple[float, float, float]) -> float:
    """Distance [m] between the tip and a box."""
    client = arm._client
    shape = pybullet.createCollisionShape(pybullet.GEOM_BOX, halfExtents=half, physicsClientId=client)
    body = pybullet.createMultiBody(0, shape, -1, centre, physicsClientId=client)
    points = pybullet.getClosestPoints(arm.body, body, 1.0, arm.tip_link, -1, physicsClientId=client)
    return min(point[8] for point in points)


def tumble(shown: bool) -> bytes:
    """Every pose of a part that is dropped on a corner, with or without an arm shown and drawn above it."""
    world, studio = World(), pybullet.connect(pybullet.DIRECT)
    arm = Arm(studio) if shown else None
    corner = np.array([0.3, 0.2, 0.1, 0.9]) / np.linalg.norm([0.3, 0.2, 0.1, 0.9])
    world.add("box", slab((0.04, 0.05, 0.06), (1.0, 0.5, 0.0)), Pose(np.array([0.5, 0.0, 0.12]), corner), mass=0.1)
    poses = []
    for tick in range(120):
        if arm is not None:
            arm.show([0.5, 0.0, 0.02 + 0.001 * tick], 0.01 * tick)
            if tick % 40 == 0:
                view = pybullet.computeViewMatrix((1.5, -1, 1), (0.3, 0, 0.2), (0, 0, 1))
                lens = pybullet.computeProjectionMatrixFOV(40, 1, 0.1, 5)
                for client in (studio, world.client):
                    pybullet.getCameraImage(
                        32, 32, view, lens, renderer=pybullet.ER_TINY_RENDERER, physicsClientId=client
                    )
        world.step()
        poses.append(world.poses())
    world.close()
    pybullet.disconnect(studio)
    return np.array(poses).tobytes()


def test_a_shown_arm_does_not_change_a_bit_of_the_physics() -> None:
    assert tumble(shown=True) == tumble(shown=False)


def test_the_meshes_are_what_the_script_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("make_arm", URDF.parents[1] / "make_arm.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(script, "FOLDER", tmp_path)
    script.main()
    made, kept = ({path.name: path.read_text() for path in folder.iterdir()} for folder in (tmp_path, URDF.parent))
    assert made.keys() == kept.keys()
    assert sum(map(len, kept.values())) < 1e6
    # Triangles take time to draw in software; bytes of a coordinate may differ with the machine's mathematics library.
    assert sum(text.count("\nf ") for text in kept.values()) < 6000
    for name in kept:
        assert _numbers(made[name]) == pytest.approx(_numbers(kept[name]), abs=2e-5), name


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"-?\d+\.\d+(?:e-?\d+)?", text)]


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


def fields(pose: Pose) -> dict[str, Array]:
    """A pick and a place at one pose, which need not be in the workspace."""
    return {name: value.astype(float) for name, value in Action(pose, pose).to_dict().items()}


def test_what_is_out_of_reach_ends_the_primitive_with_a_reason() -> None:
    world, motion = World(), ArmMotion()
    motion.attach(world)
    beyond = planar_pose((1.2, 0.0))
    assert PickPlace()(world, motion, fields(beyond), seen(world)) == UNREACHABLE
    # A column that reaches up to the workspace's ceiling, and is taken to hang as far down, is lifted too high.
    corner = planar_pose((BOUNDS[0, 1] - 0.02, BOUNDS[1, 1] - 0.02))
    world.add("column", slab((0.03, 0.03, BOUNDS[2, 1]), (0.5, 0.5, 0.5)), corner, 0.1)
    assert PickPlace()(world, motion, fields(corner), seen(world)) == UNREACHABLE
    assert motion.vacuum == 0.0
    world.close()
