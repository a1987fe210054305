"""Copies, states and ends of environments: nothing is shared, nothing is lost, nothing stays behind."""

import copy
import gc
import io
import json
from multiprocessing.reduction import ForkingPickler  # as worker processes are handed environments
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest

from multiravens.envs import PROBLEMS, PickPlaceEnv, demonstrate, goal_sequence, make
from multiravens.errors import UserError
from multiravens.geometry import planar_pose
from multiravens.registration import environment_id
from multiravens.sim.studio import Studio
from multiravens.sim.world import World
from tests.test_tasks import module

CHANGES = {
    "beads and parts": ("chaining-placing", {}),
    "slipping picks": ("stacking", {"motion": "slipping"}),
    "the arm": ("placing", {"motion": "arm"}),
    "noisy cameras": ("stacking", {"camera": "realsense"}),
    "a noisy domain": ("placing", {"domain": "grainy", "resolution": "half"}),
}


def started(problem: str = "placing", steps: int = 1, **choices: Any) -> PickPlaceEnv:
    env = make(problem, **choices)
    env.reset(seed=5)
    for _ in range(steps):
        act(env)
    return env


def act(env: PickPlaceEnv) -> bytes:
    """One action of the expert; every byte of what comes of it."""
    action = env.expert()
    assert action is not None
    observation, reward, terminated, truncated, info = env.step(action)
    plain = repr([reward, terminated, truncated, info["motion"], info["ended"], info["holds"]])
    return b"".join(observation[key].tobytes() for key in observation) + info["poses"].tobytes() + plain.encode()


def as_json(state: dict[str, Any]) -> dict[str, Any]:
    plain = {key: value.tolist() if isinstance(value, np.ndarray) else value for key, value in state.items()}
    read: dict[str, Any] = json.loads(json.dumps(plain))
    return read


def as_npz(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    np.savez(file, **state)
    file.seek(0)
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


@pytest.mark.parametrize(("problem", "choices"), CHANGES.values(), ids=CHANGES)
def test_copies_and_states_go_on_to_the_same_bytes(problem: str, choices: dict[str, Any]) -> None:
    env, other = started(problem, **choices), make(problem, **choices)
    state = env.get_state()
    ways = [copy.deepcopy(env), copy.copy(env), ForkingPickler.loads(ForkingPickler.dumps(env)), other]
    observation, info = other.set_state(as_json(state))
    np.testing.assert_array_equal(observation["color"], env._observation["color"])
    assert info["credit"] == env.credit and info["seed"] == 5
    expected = [act(env), act(env)]
    for way in ways:
        assert [act(way), act(way)] == expected
        way.close()
    env.set_state(as_npz(state))
    assert [act(env), act(env)] == expected
    env.close()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_every_registered_environment_is_copied_restored_and_closed(problem: str) -> None:
    wrapped = gymnasium.make(environment_id(problem))
    wrapped.reset(seed=5)
    env: Any = wrapped.unwrapped
    twin, state = copy.deepcopy(env), as_json(env.get_state())
    expected = act(env)
    assert act(twin) == expected
    twin.set_state(state)
    assert act(twin) == expected
    for each in (wrapped, twin):
        each.close()
    for call in (env.expert, env.get_state, lambda: twin.step({}), twin.render):
        with pytest.raises(gymnasium.error.ClosedEnvironmentError):
            call()


def test_a_state_of_the_start_and_of_the_end_are_restored() -> None:
    env = started("stacking", steps=0)
    start = env.get_state()
    assert start["pick_position"].shape == (0, 3)
    run = demonstrate(env, 5)
    with pytest.raises(gymnasium.error.ResetNeeded, match="played by `demonstrate`"):
        env.step(env.action_space.sample())
    end = env.get_state()
    env.reset(seed=6)
    assert env.set_state(end)[1]["ended"] == "success"
    assert env.set_state(as_npz(start))[1]["ended"] == ""
    act(env)
    np.testing.assert_array_equal(env.poses().astype(np.float32), run.poses[1])
    env.close()


def test_a_copy_leaves_the_original_as_it_is() -> None:
    env = started("stacking")
    twin, control = copy.deepcopy(env), started("stacking")
    assert env.np_random.integers(2**40) == twin.np_random.integers(2**40) == control.np_random.integers(2**40)
    act(twin)
    twin.reset(seed=9)
    twin.close()
    assert act(env) == act(control)
    env.close()
    control.close()


def test_copies_before_a_reset_and_in_wrappers_work_and_of_a_closed_environment_are_refused() -> None:
    wrapped = gymnasium.make(environment_id("stacking"))
    fresh = copy.deepcopy(wrapped)
    wrapped.reset(seed=5)
    twin = copy.deepcopy(wrapped)
    for env in (fresh, twin):
        assert isinstance(env.unwrapped, PickPlaceEnv) and env.unwrapped.world is not wrapped.unwrapped.world  # type: ignore[attr-defined]
    with pytest.raises(gymnasium.error.ResetNeeded):
        fresh.unwrapped.expert()  # type: ignore[attr-defined]
    assert act(twin.unwrapped) == act(wrapped.unwrapped)  # type: ignore[arg-type]
    for env in (fresh, twin, wrapped):
        env.close()
    for refused in (copy.deepcopy, copy.copy, ForkingPickler.dumps):
        with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="the environment is closed"):
            refused(wrapped.unwrapped)


def test_bodies_moved_by_hand_are_no_state_that_can_be_restored() -> None:
    env = started()
    parts = module(env)
    env.world.move(parts._bodies[0], planar_pose((0.3, 0.0)))
    with pytest.raises(UserError, match="comes to other poses .*moved by other means") as raised:
        env.set_state(env.get_state())
    assert "\n" not in str(raised.value)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.get_state()
    env.reset(seed=5)
    env.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"problem": "chaining"}, "is of 'chaining', and this environment's problem is 'stacking'"),
        ({"seed": -1}, "seed is -1: give an integer"),
        ({"seed": 1.5}, "seed is 1.5: give an integer"),
        ({"seed": [1, 2]}, "give an integer of 0 or more"),
        ({"poses": None}, "the state's poses"),
        ({"poses": np.zeros((3, 6))}, r"poses has shape \(3, 6\); it must be \(N, 7\)"),
        ({"pick_position": [[0, 0, np.nan]]}, "pick_position holds a number that is not finite"),
        ({"pick_position": "text"}, "pick_position is 'text': give an array"),
        ({"pick_quaternion": np.zeros((1, 4))}, "pick_quaternion is zero"),
        ({"pick_quaternion": np.ones((2, 4))}, "fields are of .* actions"),
        ({"sed": 3}, "unknown key of a state 'sed': choose from seed"),
        (None, "lacks 'poses'"),
        ("text", "a state is what get_state"),
    ],
)
def test_a_damaged_state_is_one_line_and_the_episode_goes_on(change: Any, message: str, towers: PickPlaceEnv) -> None:
    state: Any = towers.get_state()
    if change is None:
        del state["poses"]
    else:
        state = state | change if isinstance(change, dict) else change
    before = towers.poses()
    with pytest.raises(UserError, match=message) as raised:
        towers.set_state(state)
    assert "\n" not in str(raised.value)
    np.testing.assert_array_equal(towers.poses(), before)


@pytest.fixture(scope="module")
def towers() -> Any:
    env = started("stacking")
    yield env
    env.close()


def test_a_goal_sequence_leaves_the_episode_as_it_is() -> None:
    env, control = started("placing", steps=0), started("placing", steps=0)
    goals = goal_sequence(env, 5)
    assert env.credit == 0 and goals.color.shape == (4, 320, 160, 3)
    assert [act(env), act(env)] == [act(control), act(control)]
    fresh = make("placing")  # and needs no reset
    np.testing.assert_array_equal(goal_sequence(fresh, 5).color, goals.color)
    wrapped = gymnasium.make(environment_id("placing"))
    np.testing.assert_array_equal(goal_sequence(wrapped, 5).poses, goals.poses)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="is no environment of multiravens"):
        goal_sequence(gymnasium.make("CartPole-v1"), 5)  # type: ignore[arg-type]
    for each in (env, control, fresh, wrapped):
        each.close()


def test_what_nothing_uses_is_freed_without_close() -> None:
    def connected() -> int:
        gc.collect()
        return sum(pybullet.isConnected(client) for client in range(64))

    before = connected()
    env = started("stacking", steps=0, render_mode="rgb_array")
    env.render()
    others = [copy.deepcopy(env), World(), Studio((28, 36))]
    assert connected() == before + 5
    del env, others
    assert connected() == before


def test_a_closed_environment_says_so() -> None:
    env = started("stacking", steps=0)
    action = env.action_space.sample()
    env.close()
    env.close()
    calls = (
        lambda: env.step(action),
        lambda: env.reset(seed=1),
        env.render,
        env.expert,
        env.poses,
        env.get_state,
        lambda: env.set_state({}),
        lambda: goal_sequence(env, 5),
        lambda: demonstrate(env, 5),
    )
    for call in calls:
        with pytest.raises(gymnasium.error.ClosedEnvironmentError, match="the environment is closed: make a new one"):
            call()
