"""The expert of a problem: what it goes for first, and what it does when it tries in vain."""

import copy
from typing import Any

import numpy as np

from multiravens.envs import PickPlaceEnv, make
from multiravens.envs.problem import PATIENCE
from multiravens.geometry import Pose, multiply
from multiravens.tasks.placing import Placing
from multiravens.tasks.stacking import Stacking

NOTHING_HOLDS: dict[str, Any] = {"motion": "slipping", "motion.slip": 1.0}  # every pick fails


def placing(env: PickPlaceEnv) -> Placing:
    found = env.problem.modules["placing"]
    assert isinstance(found, Placing)
    return found


def picked(env: PickPlaceEnv, bodies: list[int]) -> int:
    """The body that the expert's next action picks, after it is carried out."""
    action, again = env.expert(), env.expert()
    assert action is not None and again is not None
    for name, value in action.to_dict().items():
        np.testing.assert_array_equal(value, again.to_dict()[name])
    at = np.array([env.world.pose(body).position[:2] for body in bodies])
    env.step(action)
    return int(np.linalg.norm(at - action.pick.position[:2], axis=1).argmin())


def test_after_two_vain_tries_the_expert_goes_for_the_next_and_comes_back() -> None:
    env = make("placing", **NOTHING_HOLDS)
    env.reset(seed=0)
    module = placing(env)
    order = [picked(env, module._bodies) for _ in range(8)]
    assert order == [part for part in range(4) for _ in range(PATIENCE)]
    assert picked(env, module._bodies) == 0
    env.close()


def test_copies_and_states_remember_what_was_tried_in_vain() -> None:
    env = make("placing", **NOTHING_HOLDS)
    env.reset(seed=0)
    module = placing(env)
    for _ in range(PATIENCE):
        assert picked(env, module._bodies) == 0
    twin, other = copy.deepcopy(env), make("placing", **NOTHING_HOLDS)
    other.set_state(env.get_state())
    for each in (env, twin, other):
        assert picked(each, placing(each)._bodies) == 1
    env.reset(seed=0)
    assert picked(env, module._bodies) == 0
    for each in (env, twin, other):
        each.close()


def test_actions_of_others_are_no_tries_of_the_expert() -> None:
    env = make("placing")
    env.reset(seed=0)
    env.action_space.seed(1)
    for _ in range(2 * PATIENCE):
        action = env.action_space.sample() | {
            "pick_position": np.array([0.26, 0.49, 0.1], np.float32)
        }  # an empty corner
        env.step(action)
    assert picked(env, placing(env)._bodies) == 0
    env.close()


def test_a_box_is_not_stacked_before_what_it_stands_on() -> None:
    env = make("stacking", **NOTHING_HOLDS)
    env.reset(seed=0)
    module = env.problem.modules["stacking"]
    assert isinstance(module, Stacking)
    lowest = {box for box in range(module.boxes) if module._below[box] is None}
    assert {picked(env, module._bodies) for _ in range(3 * PATIENCE)} == lowest
    env.close()


def test_a_part_that_cannot_be_put_right_keeps_no_other_from_its_place() -> None:
    choices: dict[str, Any] = {"problem.modules.placing.shapes": ["zed", "square"], "problem.modules.placing.parts": 2}
    env = make("placing", **choices)
    seed = 0
    env.reset(seed=seed)
    module = placing(env)
    while module._kinds[0].name != "zed":
        seed += 1
        env.reset(seed=seed)
    turn = Pose(np.array([0.0, 0.0, module._kinds[0].height]), np.array([1.0, 0.0, 0.0, 0.0]))
    env.world.move(module._bodies[0], multiply(env.world.pose(module._bodies[0]), turn))
    env.world.settle()
    assert [picked(env, module._bodies) for _ in range(4)] == [0, 0, 1, 0]
    assert module.holds(env.world).tolist() == [False, True]
    env.close()
