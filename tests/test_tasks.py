"""Placing and stacking: the criteria of success, and experts that recover."""

from collections.abc import Iterator

import numpy as np
import pytest

from multiravens.envs import PickPlaceEnv, make
from multiravens.geometry import Pose, multiply, planar_pose, yaw_quaternion
from multiravens.tasks.parts import PLATE_HEIGHT
from multiravens.tasks.placing import Placing
from multiravens.tasks.stacking import PAD_HEIGHT, Stacking


@pytest.fixture
def kitting() -> Iterator[PickPlaceEnv]:
    env = make("placing", overrides=["problem.modules.placing.shapes=[bar]", "problem.modules.placing.parts=1"])
    env.reset(seed=0)
    yield env
    env.close()


@pytest.fixture
def towers() -> Iterator[PickPlaceEnv]:
    env = make("stacking", overrides=["problem.modules.stacking.boxes=3", "problem.modules.stacking.towers=1"])
    env.reset(seed=0)
    yield env
    env.close()


def module(env: PickPlaceEnv) -> Placing | Stacking:
    found = next(iter(env.problem.modules.values()))
    assert isinstance(found, Placing | Stacking)
    return found


@pytest.mark.parametrize(
    ("dx", "turn", "dz", "tip", "stands"),
    [
        (0.0, 0.0, 0.0, 0.0, True),
        (0.009, 0.0, 0.0, 0.0, True),
        (0.011, 0.0, 0.0, 0.0, False),
        (0.0, np.deg2rad(14), 0.0, 0.0, True),
        (0.0, np.deg2rad(16), 0.0, 0.0, False),
        (0.0, np.pi, 0.0, 0.0, True),  # a bar looks the same after half a turn
        (0.0, np.pi / 2, 0.0, 0.0, False),
        (0.0, 0.0, 0.006, 0.0, False),  # held above its plate
        (0.0, 0.0, 0.0, np.pi / 2, False),  # on its side
    ],
)
def test_a_part_stands_only_where_as_and_how_it_should(
    kitting: PickPlaceEnv, dx: float, turn: float, dz: float, tip: float, stands: bool
) -> None:
    placing = module(kitting)
    assert isinstance(placing, Placing)
    upright = planar_pose(placing._plates[placing._goals[0]] + [dx, 0], PLATE_HEIGHT + dz, placing._yaws[0] + turn)
    tipped = multiply(upright, Pose(np.zeros(3), np.array([np.sin(tip / 2), 0, 0, np.cos(tip / 2)])))
    kitting.world.move(placing._bodies[0], tipped)
    assert placing.holds(kitting.world).tolist() == [stands]


def test_a_part_on_another_plate_does_not_count(kitting: PickPlaceEnv) -> None:
    placing = module(kitting)
    assert isinstance(placing, Placing)
    wrong = next(index for index in range(len(placing._plates)) if index != placing._goals[0])
    kitting.world.move(placing._bodies[0], planar_pose(placing._plates[wrong], PLATE_HEIGHT, placing._yaws[0]))
    assert not placing.holds(kitting.world).any()


def build_tower(env: PickPlaceEnv, order: list[int], shift: float = 0.0) -> list[bool]:
    """Put the boxes on the only pad in an order, each shifted from the one below; returns which hold."""
    stacking = module(env)
    assert isinstance(stacking, Stacking)
    pad, z = stacking._pads[0], PAD_HEIGHT
    for level, box in enumerate(order):
        env.world.move(stacking._bodies[box], Pose(pad.position + [shift * level, 0, z], pad.quaternion))
        z += stacking._sizes[box, 2]
    return [bool(flag) for flag in stacking.holds(env.world)]


def test_a_tower_counts_from_the_ground_up_in_its_order(towers: PickPlaceEnv) -> None:
    stacking = module(towers)
    assert isinstance(stacking, Stacking)
    right = sorted(range(3), key=stacking._level)
    assert build_tower(towers, right) == [True, True, True]
    assert sum(build_tower(towers, [right[0], right[2], right[1]])) == 1
    assert sum(build_tower(towers, [right[1], right[0], right[2]])) == 0
    assert sum(build_tower(towers, right, shift=0.03)) < 3


def test_a_toppled_tower_is_not_a_tower(towers: PickPlaceEnv) -> None:
    stacking = module(towers)
    assert isinstance(stacking, Stacking)
    right = sorted(range(3), key=stacking._level)
    build_tower(towers, right)
    towers.world.push(stacking._bodies[right[2]], [1.5, 0, 0])
    towers.world.settle()
    assert not stacking.holds(towers.world)[right[2]] and stacking.holds(towers.world)[right[0]]


def solve(env: PickPlaceEnv) -> bool:
    ended = False
    while not ended:
        action = env.expert()
        assert action is not None
        *_, terminated, truncated, info = env.step(action)
        ended = terminated or truncated
    return bool(info["ended"] == "success")


def test_the_expert_rebuilds_a_tower_stacked_in_the_wrong_order(towers: PickPlaceEnv) -> None:
    stacking = module(towers)
    assert isinstance(stacking, Stacking)
    right = sorted(range(3), key=stacking._level)
    build_tower(towers, [right[2], right[1], right[0]])
    towers.world.settle()
    assert solve(towers)


def test_the_expert_clears_a_plate_that_another_part_lies_on() -> None:
    env = make("placing", overrides=["problem.modules.placing.parts=2", "problem.max_steps=6"])
    env.reset(seed=1)
    placing = module(env)
    assert isinstance(placing, Placing)
    for index in (0, 1):  # each on the other's plate
        env.world.move(placing._bodies[index], planar_pose(placing._plates[placing._goals[1 - index]], PLATE_HEIGHT))
    env.world.settle()
    assert solve(env)
    env.close()


def test_the_expert_picks_up_again_what_was_knocked_away() -> None:
    env = make("placing")
    env.reset(seed=3)
    placing = module(env)
    assert isinstance(placing, Placing)
    action = env.expert()
    assert action is not None
    env.step(action)
    pose = env.world.pose(placing._bodies[0])
    env.world.move(placing._bodies[0], Pose(pose.position + [0.02, 0.01, 0], yaw_quaternion(1.0)))
    assert not placing.holds(env.world)[0]
    assert solve(env)
    env.close()


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (Placing, {"parts": 0}, "parts=0: give 1 to 8"),
        (Placing, {"decoys": 9}, "decoys=9"),
        (Stacking, {"boxes": 1}, "boxes=1: give 2 to 8"),
        (Stacking, {"towers": 4}, "towers=4"),
        (Stacking, {"boxes": 6, "towers": 1}, "each tower 1 to 4"),
    ],
)
def test_a_parameter_out_of_range_is_refused(kind: type, parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**parameters)


def test_same_colour_leaves_shape_alone_to_tell_parts_apart() -> None:
    env = make("placing", overrides=["problem.modules.placing.same_color=true"])
    observation, _ = env.reset(seed=2)
    tops = observation["color"][np.isclose(observation["height"], 0.02, atol=5e-4)]
    assert np.ptp(tops.astype(int), axis=0).max() <= 1  # the renderer rounds
    env.close()
