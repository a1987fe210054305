"""Symmetry: every pose that looks the same counts, and no other does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial import cKDTree

from multiravens.envs import PickPlaceEnv, make
from multiravens.geometry import Array, Pose, multiply, planar_pose, rotate, yaw_quaternion
from multiravens.sim.world import World
from multiravens.tasks.parts import LIBRARY, PLATE_HEIGHT, part
from multiravens.tasks.placing import Placing
from multiravens.tasks.stacking import PAD_HEIGHT, Stacking
from tests.test_parts import block

SAME = 0.002  # [m]: points are measured 1 mm apart


def seen(kind: Any, pose: Pose) -> Array:
    """Points (N, 3) [m] of a part that are seen from above."""
    world = World()
    body = kind.add(world, "part", planar_pose((0.0, 0.0)), (0, 0, 0), 0.1)
    world.move(body, pose)
    world.step()  # which brings Bullet's rays up to date
    points = world.seen_above(body, 0.001)
    world.close()
    return points


def differ(a: Array, b: Array) -> float:
    """Distance [m] of the point of either set that is furthest from the other set."""
    return float(max(cKDTree(a).query(b)[0].max(), cKDTree(b).query(a)[0].max()))


def mirrored(points: Array, axis: float) -> Array:
    return rotate(axis, rotate(-axis, points) * [1, -1])


def over(yaw: float, about: float, height: float) -> Pose:
    """The pose of a part, upside down on the ground, that was turned over about an axis of its own xy plane."""
    turn = Pose(np.array([0.0, 0.0, height]), np.array([np.cos(about), np.sin(about), 0.0, 0.0]))
    return multiply(planar_pose((0.0, 0.0), 0.0, yaw), turn)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_part_is_said_to_look_the_same_where_its_outline_does(name: str) -> None:
    symmetry = LIBRARY[name].symmetry
    outline = seen(LIBRARY[name], planar_pose((0.0, 0.0)))[:, :2]
    axes = np.deg2rad(np.arange(0, 180, 3))
    same = [axis for axis in axes if differ(outline, mirrored(outline, axis)) < SAME]
    assert (symmetry.flip is None) == (not same)
    assert symmetry.flip is None or np.isclose(same, symmetry.flip).any()
    turned = differ(outline, rotate(symmetry.period or 1.0, outline))
    assert turned < SAME


@pytest.mark.parametrize("name", [name for name in LIBRARY if name != "zed"])
@pytest.mark.parametrize("about", [0.0, 0.7])
def test_a_part_turned_over_looks_as_its_upright_pose_does(name: str, about: float) -> None:
    kind = LIBRARY[name]
    pose = over(0.4, about, kind.height)
    upright = kind.symmetry.upright(pose, kind.height)
    assert upright.quaternion[:2] == pytest.approx(0.0) and upright.position[2] == pytest.approx(0.0)
    lying, standing = seen(kind, pose), seen(kind, upright)
    assert differ(lying[:, :2], standing[:, :2]) < SAME and abs(lying[:, 2].max() - standing[:, 2].max()) < 1e-4


def single(shape: Any) -> PickPlaceEnv:
    choices: dict[str, Any] = {"problem.modules.placing.shapes": [shape], "problem.modules.placing.parts": 1}
    env = make("placing", **choices)
    env.reset(seed=0)
    return env


def placing(env: PickPlaceEnv) -> Placing:
    found = env.problem.modules["placing"]
    assert isinstance(found, Placing)
    return found


@pytest.mark.parametrize("name", LIBRARY)
def test_an_upside_down_part_counts_and_is_put_right_where_it_looks_the_same(name: str) -> None:
    env, kind = single(name), LIBRARY[name]
    module = placing(env)
    env.world.move(module._bodies[0], multiply(env.world.pose(module._bodies[0]), over(0.3, 0.7, kind.height)))
    action = env.expert()
    assert action is not None and (action.period == kind.symmetry.period or kind.grasp != (0.0, 0.0))
    env.step(action)
    assert module.holds(env.world).tolist() == [name != "zed"]
    if name == "zed":
        return
    pose = env.world.pose(module._bodies[0])
    beside = pose.position + [0.025, 0.0, 0.0]
    turned = multiply(Pose(np.zeros(3), yaw_quaternion(np.deg2rad(32))), Pose(np.zeros(3), pose.quaternion)).quaternion
    for wrong in (Pose(beside, pose.quaternion), Pose(pose.position, turned)):
        env.world.move(module._bodies[0], wrong)
        assert not module.holds(env.world)[0] or (kind.symmetry.period <= 1.1 and wrong.quaternion is turned)
    env.close()


def test_a_part_of_ones_own_counts_upside_down_only_if_it_is_said_to_look_the_same(tmp_path: Path) -> None:
    path = block(tmp_path)
    for more, counts in (({}, False), ({"flip": 0}, True)):
        assert (part({"urdf": path, **more}).symmetry.flip is None) != counts
        env = single({"urdf": path, "symmetry": 180, **more})
        module = placing(env)
        at = planar_pose(module._plates[module._goals[0]], PLATE_HEIGHT, module._yaws[0])
        env.world.move(module._bodies[0], multiply(at, over(0.0, 0.0, 0.02)))
        assert module.holds(env.world).tolist() == [counts]
        env.close()


@pytest.fixture
def towers() -> Iterator[PickPlaceEnv]:
    env = make("stacking", overrides=["problem.modules.stacking.boxes=2", "problem.modules.stacking.towers=1"])
    env.reset(seed=0)
    yield env
    env.close()


def test_a_box_counts_upside_down_but_not_on_another_side(towers: PickPlaceEnv) -> None:
    stacking = towers.problem.modules["stacking"]
    assert isinstance(stacking, Stacking)
    low = next(box for box in range(2) if stacking._below[box] is None)
    size, pad = stacking._sizes[low], stacking._pads[0]
    on_pad = Pose(pad.position + [0, 0, PAD_HEIGHT], pad.quaternion)
    for about in (0.0, np.pi / 2):
        towers.world.move(stacking._bodies[low], multiply(on_pad, over(0.0, about, size[2])))
        assert stacking.holds(towers.world)[low]
    side = Pose(np.array([0, 0, size[1] / 2]), np.array([np.sin(np.pi / 4), 0, 0, np.cos(np.pi / 4)]))
    towers.world.move(stacking._bodies[low], multiply(on_pad, side))
    assert not stacking.holds(towers.world)[low]


def test_the_expert_stacks_boxes_that_lie_upside_down(towers: PickPlaceEnv) -> None:
    stacking = towers.problem.modules["stacking"]
    assert isinstance(stacking, Stacking)
    for body, size in zip(stacking._bodies, stacking._sizes, strict=True):
        towers.world.move(body, multiply(towers.world.pose(body), over(0.0, 0.5, size[2])))
    towers.world.settle()
    for _ in range(2):
        action = towers.expert()
        assert action is not None
        *_, info = towers.step(action)
    assert info["ended"] == "success"
