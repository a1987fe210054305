"""Bodies at rest stay where they are; those out of balance or pushed do not."""

from collections.abc import Iterator

import numpy as np
import pybullet
import pytest

from multiravens.envs import demonstrate, make
from multiravens.geometry import Array, Pose, planar_pose, tilt
from multiravens.sim.beads import LINK, add_beads
from multiravens.sim.motion import ArmMotion, GripperMotion, Motion
from multiravens.sim.shapes import slab
from multiravens.sim.world import World

MINUTE = 60 * 240  # ticks
BOX = (0.05, 0.04, 0.025)
RED = (0.8, 0.2, 0.2)


@pytest.fixture
def world() -> Iterator[World]:
    """A world of rigid bodies and beads, with a tip parked above it."""
    made = World()
    GripperMotion().attach(made)
    yield made
    made.close()


def moved(world: World, ticks: int) -> Array:
    """Distances (B,) that bodies move in a time [m]."""
    before = world.poses()[:, :3]
    world.step(ticks)
    return np.asarray(np.linalg.norm(world.poses()[:, :3] - before, axis=1))


def box_at(world: World, name: str, x: float, z: float) -> int:
    return world.add(name, slab(BOX, RED), planar_pose((x, 0.0), z), mass=0.06)


@pytest.mark.parametrize("problem", ["stacking", "placing", "routing-stacking"])
def test_what_an_expert_has_built_stands_for_a_minute(problem: str) -> None:
    env = make(problem)
    for seed in (300_000, 300_001):
        assert demonstrate(env, seed).success
        assert moved(env.world, MINUTE).max() < 1.5e-3
        assert env.problem.holds(env.world).all()
    env.close()


def test_towers_stand_while_other_things_are_moved() -> None:
    env = make("placing-stacking")
    env.reset(seed=300_002)
    stacking, placing = env.problem.modules["stacking"], env.problem.modules["placing"]
    for box in range(stacking.size):
        action = stacking.expert(env.world, box)
        assert action is not None
        env.step(action)
    built = stacking.holds(env.world)
    boxes = [body.id for body in env.world.bodies.values() if "box" in body.name]
    before = env.world.positions(boxes)
    for turn in range(12):
        action = placing.expert(env.world, turn % placing.size)
        if action is not None:
            env.step(action)
    assert built.any()
    assert (stacking.holds(env.world) == built).all()
    assert np.abs(env.world.positions(boxes) - before).max() < 1.5e-3
    env.close()


def test_a_belt_at_rest_does_not_move_at_all(world: World) -> None:
    angles = np.linspace(0, 2 * np.pi, 30, endpoint=False)
    circle = 30 * LINK / (2 * np.pi) * np.c_[np.cos(angles), np.sin(angles)] + [0.5, 0.0]
    add_beads(world, "belt", RED, circle, closed=True)
    assert world.settle()
    assert moved(world, MINUTE).max() == 0


def test_awake_a_cable_comes_to_rest_where_it_lies(world: World) -> None:
    cable = add_beads(world, "cable", RED, np.c_[0.4 + LINK * np.arange(20), np.zeros(20)], closed=False)
    world.settle()
    world.wake()
    assert moved(world, MINUTE // 10).max() < 1.5e-3
    assert cable.held.all()


def test_what_slides_into_a_cable_at_rest_moves_it(world: World) -> None:
    add_beads(world, "cable", RED, np.c_[0.4 + LINK * np.arange(20), np.zeros(20)], closed=False)
    world.settle()
    block = world.add("block", slab((0.03, 0.03, 0.03), RED), planar_pose((0.42, 0.05)), mass=0.5)
    world.push(block, [0.0, -1.0, 0.0])
    world.sleep()
    distances = moved(world, 120)[:20]
    assert distances.max() > 5e-3
    assert distances[-1] < 1e-3, "the far end stays"


def test_a_box_out_of_balance_falls(world: World) -> None:
    lower = box_at(world, "lower", 0.5, 0.0)
    world.settle()
    world.step(60)  # the lower one is anchored by now
    upper = box_at(world, "upper", 0.5 + 0.028, BOX[2] + 5e-4)
    world.settle()
    assert tilt(world.pose(lower).quaternion) < np.deg2rad(2)
    assert world.pose(upper).position[2] < BOX[2] - 5e-3 or tilt(world.pose(upper).quaternion) > np.deg2rad(8)


def test_a_tower_that_is_pushed_falls(world: World) -> None:
    tower = [box_at(world, f"box {level}", 0.5, level * BOX[2]) for level in range(3)]
    world.settle()
    assert moved(world, 240).max() < 1.5e-3
    world.push(tower[2], [0.6, 0.0, 0.0])
    world.settle()
    assert world.pose(tower[2]).position[2] < 2 * BOX[2] - 5e-3


def held(world: World, bodies: list[int]) -> list[bool]:
    """Tell which bodies are held by static friction: they have no mass."""
    return [pybullet.getDynamicsInfo(body, -1, physicsClientId=world.client)[0] == 0 for body in bodies]


def test_a_tower_that_kept_its_place_is_held_until_something_comes_near(world: World) -> None:
    tower = [box_at(world, f"box {level}", 0.5, level * BOX[2]) for level in range(3)]
    world.settle()
    assert held(world, tower) == [False] * 3
    world.step(480)
    assert held(world, tower) == [True] * 3
    assert moved(world, 240).max() == 0
    slider = world.add("slider", slab((0.03, 0.03, 0.03), RED), planar_pose((0.7, 0.0)), mass=0.5)
    world.step(480)
    assert held(world, [*tower, slider]) == [True] * 4
    world.push(slider, [-2.5, 0.0, 0.0])  # lets all go
    world._anchors.look(world.client)
    for body in tower:
        world._anchors._weigh(world.client, body, 0.0, pybullet.ACTIVATION_STATE_SLEEP)
        world._anchors._bodies[body].held = True
    assert moved(world, 240)[0] > 2e-3, "what slides into a held tower moves it"
    dynamics = pybullet.getDynamicsInfo(tower[0], -1, physicsClientId=world.client)
    assert dynamics[0] == pytest.approx(0.06) and min(dynamics[2]) > 0


def test_a_held_tower_falls_when_its_lowest_box_is_taken_away(world: World) -> None:
    tower = [box_at(world, f"box {level}", 0.5, level * BOX[2]) for level in range(3)]
    world.settle()
    world.step(480)
    assert all(held(world, tower))
    world.grip(tower[0])
    assert not any(held(world, tower[:2]))
    world.move(tower[0], planar_pose((0.6, 0.2), 0.0))
    world.release()
    world.settle()
    assert world.pose(tower[1]).position[2] < 2e-3
    assert world.pose(tower[2]).position[2] < BOX[2] + 2e-3


def test_a_box_that_stands_on_a_corner_is_never_held(world: World) -> None:
    turned = Pose(np.array([0.5, 0.0, 0.02]), np.array([0.0, np.sin(0.3), 0.0, np.cos(0.3)]))
    box = world.add("box", slab(BOX, RED), turned, mass=0.06)
    world.step(480)
    assert tilt(world.pose(box).quaternion) < np.deg2rad(2), "it fell on its side before it was held"


@pytest.mark.parametrize("kind", [GripperMotion, ArmMotion])
def test_every_motion_has_the_same_physics(world: World, kind: type[Motion]) -> None:
    def settings() -> tuple[object, ...]:
        found = pybullet.getPhysicsEngineParameters(physicsClientId=world.client)
        return tuple(found[name] for name in ("numSubSteps", "numSolverIterations", "fixedTimeStep"))

    alone = settings()
    world.reset()
    kind().attach(world)
    assert settings() == alone
