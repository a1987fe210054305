"""Chaining: the criterion of a belt drive, and the behaviour of belts."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from multiravens.envs import PickPlaceEnv, demonstrate, make
from multiravens.geometry import Array
from multiravens.sim.beads import LINK
from multiravens.tasks.chaining import POST_HEIGHT, SIDES, Chaining, drives, winding

POSTS = np.array([[0.0, 0.0], [0.2, 0.0], [0.0, 0.2]])
LOW = 0.006


def loop(*corners: tuple[float, float], z: float = LOW) -> Array:
    """Beads (N, 3) along a closed polygon, 20 a side."""
    points = np.array([*corners, corners[0]])
    shares = np.linspace(0, 1, 20, endpoint=False)[:, None]
    line = np.concatenate([a + shares * (b - a) for a, b in zip(points[:-1], points[1:], strict=True)])
    return np.c_[line, np.full(len(line), z)]


AROUND_TWO = loop((-0.03, -0.03), (0.23, -0.03), (0.23, 0.03), (-0.03, 0.03))
FIGURE_OF_EIGHT = loop((-0.03, -0.03), (0.23, 0.03), (0.23, -0.03), (-0.03, 0.03))
AROUND_ALL = loop((-0.03, -0.03), (0.4, -0.03), (-0.03, 0.4))
AROUND_ONE = loop((-0.03, -0.03), (0.03, -0.03), (0.03, 0.03), (-0.03, 0.03))


@pytest.mark.parametrize(
    ("beads", "expected"),
    [
        (AROUND_TWO, [True, True]),
        (AROUND_TWO[::-1], [True, True]),
        (FIGURE_OF_EIGHT, [True, False]),
        (AROUND_ALL, [False, False]),
        (AROUND_ONE, [True, False]),
        (np.concatenate([AROUND_TWO, AROUND_TWO]), [False, False]),  # twice round
    ],
    ids=["belt", "reversed", "figure of eight", "round an unwanted post", "one post", "twice"],
)
def test_a_belt_drive_goes_once_the_same_way_round_the_wanted_posts_alone(beads: Array, expected: list[bool]) -> None:
    assert sorted(drives(beads, POSTS, [0, 1]).tolist()) == sorted(expected)


def test_a_bead_over_a_post_keeps_it_from_counting() -> None:
    beads = AROUND_TWO.copy()
    beads[0] = [0.2, 0.004, POST_HEIGHT + LOW]
    assert drives(beads, POSTS, [0, 1]).tolist() == [True, False]


def test_winding_counts_turns_with_their_sense() -> None:
    np.testing.assert_array_equal(winding(AROUND_TWO[:, :2], POSTS), [1, 1, 0])
    np.testing.assert_array_equal(winding(FIGURE_OF_EIGHT[:, :2], POSTS)[:2].sum(), 0)


@pytest.fixture(scope="module")
def belt() -> Iterator[PickPlaceEnv]:
    env = make("chaining")
    yield env
    env.close()


def chaining(env: PickPlaceEnv) -> Chaining:
    found = env.problem.modules["chaining"]
    assert isinstance(found, Chaining)
    return found


def test_wanted_posts_are_further_apart_than_the_slack_belt_is_wide(belt: PickPlaceEnv) -> None:
    for seed in range(20):
        belt.reset(seed=seed)
        module = chaining(belt)
        first, second = module._places[module._goals]
        assert np.linalg.norm(first - second) > module.beads * LINK / np.pi
    for wanted, side in SIDES.items():
        assert Chaining(wanted=wanted).beads * LINK / np.pi < side * (1 if wanted == 2 else np.sqrt(2))


def test_the_belt_rests_and_does_not_stretch_after_the_experts_run(belt: PickPlaceEnv) -> None:
    world = belt.world
    for seed in range(100_001, 100_004):
        assert demonstrate(belt, seed).success
        beads = world.chains[0].beads
        before = world.positions(beads)
        world.wake()  # contact alone must hold it, not sleep
        world.step(960)
        assert np.linalg.norm(world.positions(beads) - before, axis=1).max() < 1e-3
        assert world.stretch() < 1.3


def test_the_belt_cannot_be_pulled_through_a_post(belt: PickPlaceEnv) -> None:
    belt.reset(seed=3)
    world, module = belt.world, chaining(belt)
    beads = world.positions(module._belt.beads)
    post = module._places[0]
    nearest = int(np.linalg.norm(beads[:, :2] - post, axis=1).argmin())
    away = (post - module._centre) / np.linalg.norm(post - module._centre)
    belt.motion.park(beads[nearest] + [0, 0, 0.02], 0.0)
    belt.motion.command(beads[nearest] + [0, 0, 0.005], 0.0)
    world.step(20)
    assert belt.motion.grip()
    start = belt.motion.tip().position
    for tick in range(120):  # straight at the post and beyond, at table height
        belt.motion.command(start + [*(0.002 * tick * away), 0.0], 0.0)
        world.step()
    belt.motion.release()
    world.settle()
    after = world.positions(module._belt.beads)
    if after[:, 2].max() < POST_HEIGHT:
        assert not winding(after[:, :2], module._places).any()
    assert world.stretch() < 1.3


def test_the_expert_takes_the_belt_off_a_wrong_post(belt: PickPlaceEnv) -> None:
    belt.reset(seed=100_002)
    module = chaining(belt)
    wrong = next(post for post in range(4) if post not in module._goals)
    beads = belt.world.positions(module._belt.beads)
    belt.step(module._carry(beads, module._facing(beads, wrong), module._outside(wrong)))
    assert winding(belt.world.positions(module._belt.beads)[:, :2], module._places)[wrong] != 0
    for _ in range(7):
        action = belt.expert()
        assert action is not None
        *_, terminated, _, _ = belt.step(action)
        if terminated:
            break
    assert terminated


@pytest.mark.parametrize("moved", [1, 2])
def test_the_expert_moves_a_belt_from_two_wrong_posts(belt: PickPlaceEnv, moved: int) -> None:
    recovered = 0
    for seed in range(3):
        belt.reset(seed=seed)
        module = chaining(belt)
        for _ in range(8):
            action = belt.problem.expert(belt.world)
            assert action is not None
            belt.step(action)
            if module.holds(belt.world).all():
                break
        module._goals = [(post + moved) % 4 for post in module._goals]
        assert not module.holds(belt.world).any()
        for _ in range(8):
            action = belt.problem.expert(belt.world)
            assert action is not None
            belt.step(action)
            if module.holds(belt.world).all():
                recovered += 1
                break
    assert recovered == 3  # 60 of 60 in eight actions when last counted


def laid(*corners: tuple[float, float]) -> tuple[Chaining, Array]:
    """A belt along a closed polygon, amid posts of which the first two, on the x axis 16 cm apart, are wanted."""
    module = Chaining()
    module._places = np.array([[0.0, 0.0], [0.16, 0.0], [0.16, 0.16], [0.0, 0.16]])
    module._centre, module._goals = np.array([0.08, 0.08]), [0, 1]
    return module, loop(*corners)


NEAR_STRAND, FAR_STRAND = (0.14, 0.02), (0.13, 0.05)
OPEN = [(-0.03, -0.03), (0.03, -0.03), NEAR_STRAND, (0.15, 0.04), (0.14, 0.06), FAR_STRAND, (0.0, 0.03)]
TWISTED = [
    (-0.03, -0.03),
    (0.03, -0.03),
    (0.06, 0.02),
    FAR_STRAND,
    (0.15, 0.05),
    NEAR_STRAND,
    (0.10, 0.01),
    (0.0, 0.05),
]


@pytest.mark.parametrize("corners", [OPEN, TWISTED], ids=["open", "twisted"])
def test_the_strand_that_is_looped_closes_the_belt_in_the_sense_of_the_other_post(corners: Any) -> None:
    module, beads = laid(*corners)
    sense = int(winding(beads[:, :2], module._places)[0])
    assert abs(sense) == 1
    bead = module._facing(beads, 1, sense)
    beads[bead, :2] = module._outside(1)
    assert winding(beads[:, :2], module._places).tolist() == [sense, sense, 0, 0]
    if corners is TWISTED:
        _, beads = laid(*corners)
        beads[module._facing(beads, 1), :2] = module._outside(1)  # the nearer strand
        assert winding(beads[:, :2], module._places)[1] != sense


def test_a_strand_outside_of_a_post_is_looped_over_it_inwards() -> None:
    module, beads = laid((-0.03, -0.03), (0.14, -0.06), (0.19, -0.03), (0.19, 0.01), (0.13, -0.03), (0.0, 0.03))
    sense = int(winding(beads[:, :2], module._places)[0])
    assert winding(beads[:, :2], module._places)[1] == 0 and module._passes_outside(beads, 1)
    action = module._loop_inwards(beads, 1, sense)
    bead = np.linalg.norm(beads[:, :2] - action.pick.position[:2], axis=1).argmin()
    beads[bead, :2] = action.place.position[:2]
    assert winding(beads[:, :2], module._places).tolist() == [sense, sense, 0, 0]


def test_a_strand_taken_off_a_post_is_put_where_the_belt_is_widest() -> None:
    module, beads = laid((-0.03, -0.02), (0.16, -0.02), (0.19, 0.0), (0.16, 0.02), (0.10, 0.06), (-0.03, 0.02))
    action = module._take_off(beads, 1)
    assert np.linalg.norm(action.pick.position[:2] - [0.19, 0.0]) < 0.01
    assert np.linalg.norm(beads[:, :2] - action.place.position[:2], axis=1).min() > 0.03


def test_three_posts_can_be_wanted() -> None:
    env = make("chaining", overrides=["problem.modules.chaining.wanted=3"])
    runs = [demonstrate(env, seed) for seed in range(3)]
    env.close()
    assert sum(run.success for run in runs) >= 2, [run.reason for run in runs]
    assert runs[0].holds.shape[1] == 3


@pytest.mark.parametrize(("parameters", "message"), [({"posts": 3}, "posts=3"), ({"wanted": 4}, "wanted=4")])
def test_a_count_out_of_range_is_refused(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chaining(**parameters)
