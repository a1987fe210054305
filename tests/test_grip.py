"""Tools hold what they can and no more, and the tip gets to it as it should."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiravens.actions import PICK_PLACE
from multiravens.data.collecting.disturbance import Disturbance
from multiravens.envs import Action, PickPlaceEnv, Problem, demonstrate, make
from multiravens.envs.primitive import DROPPED, OK, PickPlace
from multiravens.envs.seen import Seen
from multiravens.errors import UserError
from multiravens.geometry import PIXEL, SHAPE, Array, planar_pose
from multiravens.sim import suction
from multiravens.sim.beads import LINK, add_beads
from multiravens.sim.motion import NO_SEAL, NOTHING, TOO_WIDE, GripperMotion, Motion, ramped
from multiravens.sim.shapes import Shape, ball, slab
from multiravens.sim.world import World
from multiravens.tasks.parts import LIBRARY
from multiravens.tasks.placing import PART_MASS, Placing
from multiravens.tasks.stacking import DENSITY, HEIGHTS, LENGTHS, WIDTHS
from tests.test_parts import block
from tests.worlds import seen

RED = (0.8, 0.2, 0.2)
START, GOAL = np.array([0.45, -0.2]), np.array([0.5, 0.2])


@pytest.fixture
def table() -> Iterator[tuple[World, GripperMotion]]:
    world, motion = World(), GripperMotion()
    motion.attach(world)
    yield world, motion
    world.close()


def put(world: World, shape: Shape, mass: float = 0.08, z: float = 0.0) -> int:
    """Put a body at the start of every action here."""
    body = world.add("body", shape, planar_pose(START, z), mass)
    world.settle()
    return body


def carry(
    world: World, motion: Motion, offset: tuple[float, float] = (0.0, 0.0), turn: float = 0.0, sight: Seen | None = None
) -> str:
    """Pick at an offset from the start [m] and place at the goal, turned [rad]; returns how that ended."""
    action = Action(planar_pose(START + offset), planar_pose(GOAL + offset, 0.0, turn))
    return PickPlace()(world, motion, PICK_PLACE.check(action.to_dict()), sight or seen(world))


def expert(env: PickPlaceEnv) -> Action:
    """The expert's next action."""
    action = env.expert()
    assert action is not None
    return action


def moved(world: World, body: int) -> float:
    """Distance [m] of a body from the start."""
    return float(np.linalg.norm(world.pose(body).position[:2] - START))


@pytest.mark.parametrize(("aside", "held"), [(0.0, True), (0.003, True), (0.006, False), (0.015, False)])
def test_a_bar_is_held_where_the_whole_rim_lies_on_it(
    table: tuple[World, GripperMotion], aside: float, held: bool
) -> None:
    world, motion = table
    bar = put(world, slab((0.06, 0.02, 0.02), RED))
    assert carry(world, motion, (0.0, aside)) == (OK if held else NO_SEAL)
    assert (moved(world, bar) > 0.3) == held
    assert motion.vacuum == float(held)


@pytest.mark.parametrize("name", LIBRARY)
def test_every_part_of_the_library_seals_at_its_grasp(table: tuple[World, GripperMotion], name: str) -> None:
    (world, motion), part = table, LIBRARY[name]
    part.add(world, "part", planar_pose(START), RED, PART_MASS)
    world.settle()
    assert carry(world, motion, part.grasp, turn=2.0) == OK
    assert motion.vacuum == 1.0


@pytest.mark.parametrize("corner", [0, 1])
def test_the_smallest_and_the_largest_box_seal(table: tuple[World, GripperMotion], corner: int) -> None:
    world, motion = table
    size = [LENGTHS[corner], WIDTHS[corner], HEIGHTS[corner]]
    put(world, slab(size, RED), DENSITY * float(np.prod(size)))
    assert carry(world, motion) == OK
    assert motion.vacuum == 1.0


@pytest.mark.parametrize(("radius", "held"), [(0.016, True), (0.010, False)])
def test_a_ball_is_held_where_the_lip_follows_it(table: tuple[World, GripperMotion], radius: float, held: bool) -> None:
    drop = radius - np.sqrt(radius**2 - suction.RADIUS**2)
    assert (drop < suction.TOLERANCE) == held
    world, motion = table
    marble = put(world, ball(radius, RED), 0.03, radius)
    assert carry(world, motion) == (OK if held else NO_SEAL)
    assert (moved(world, marble) > 0.2) == held


def test_a_cup_is_pressed_on_by_the_air_alone() -> None:
    weight = 0.1 * 9.8
    assert suction.FORCE == pytest.approx(70e3 * np.pi * 0.006**2)
    assert suction.holds((0, 0, weight), (0, 0))
    assert suction.holds((0, 0, 0.99 * suction.FORCE), (0, 0)) and not suction.holds((0, 0, suction.FORCE), (0, 0))
    assert not suction.holds((0, 0, 0.99 * suction.FORCE), (0, 0), 0.9)
    pressed = suction.FORCE - weight
    for share, held in ((0.99, True), (1.01, False)):
        assert suction.holds((0, share * suction.FRICTION * pressed, weight), (0, 0)) == held
        assert suction.holds((0, 0, weight), (0, share * suction.RADIUS * pressed)) == held
    push = suction.SAFETY * suction.HEAVIEST * suction.ACCELERATION
    assert suction.holds((push, 0, suction.SAFETY * suction.HEAVIEST * 9.8), (0, 0))


@pytest.mark.parametrize(("mass", "held"), [(suction.HEAVIEST, True), (1.0, False), (2.0, False)])
def test_what_is_too_heavy_is_dropped_and_told(table: tuple[World, GripperMotion], mass: float, held: bool) -> None:
    world, motion = table
    body = put(world, slab((0.05, 0.05, 0.03), RED), mass)
    reason = carry(world, motion)
    assert reason == (OK if held else DROPPED)
    assert (moved(world, body) > 0.3) == held and motion.vacuum == float(held)
    assert held or moved(world, body) < 0.01


@pytest.mark.parametrize(("along", "held"), [(0.0, True), (0.07, False)])
def test_a_long_bar_tips_off_a_cup_at_its_end(table: tuple[World, GripperMotion], along: float, held: bool) -> None:
    world, motion = table
    body = put(world, slab((0.16, 0.03, 0.02), RED), 0.2)
    assert carry(world, motion, (along, 0.0)) == (OK if held else DROPPED)
    assert (moved(world, body) > 0.3) == held


def test_a_part_that_no_cup_holds_is_refused_when_the_problem_is_made(tmp_path: Path) -> None:
    choices: dict[str, Any] = {
        "problem.modules.placing.shapes": [{"urdf": block(tmp_path, mass="0.3")}],
        "problem.modules.placing.parts": 1,
    }
    with pytest.raises(UserError, match=r"mass 0\.3 kg, more than a suction cup holds: .* at most 0\.26") as raised:
        make("placing", **choices)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("tool", "reason"), [("fingers", OK), ("suction", NO_SEAL)])
def test_a_bead_is_held_by_fingers_and_not_by_a_cup(table: tuple[World, GripperMotion], tool: str, reason: str) -> None:
    world, motion = table
    cable = add_beads(world, "cable", RED, START + np.c_[LINK * np.arange(20), np.zeros(20)], closed=False)
    world.settle()
    motion.tools.update(dict.fromkeys(cable.beads, tool))
    assert carry(world, motion, (0.0, 0.0)) == reason
    assert (moved(world, cable.beads[0]) > 0.1) == (reason == OK)


@pytest.mark.parametrize(("width", "reason"), [(0.03, OK), (0.05, TOO_WIDE)])
def test_fingers_hold_what_fits_between_them(table: tuple[World, GripperMotion], width: float, reason: str) -> None:
    world, motion = table
    body = put(world, slab((0.08, width, 0.03), RED), 0.5)
    motion.tools[body] = "fingers"
    assert carry(world, motion) == reason
    assert motion.vacuum == float(reason == OK)


def test_each_module_of_a_problem_is_handled_with_its_tool() -> None:
    env = make("chaining-placing")
    env.reset(seed=300_000)
    tools = {env.world.bodies[body].name.split()[0]: tool for body, tool in env.motion.tools.items()}
    env.close()
    assert tools == {"belt": "fingers", "post": "fingers", "part": "suction", "plate": "suction"}


def test_an_unknown_tool_is_refused() -> None:
    module = Placing()
    module.tool = "claw"
    with pytest.raises(UserError, match="unknown tool of Placing 'claw': choose from suction, fingers"):
        Problem("placing", {"placing": module})


def test_info_tells_whether_something_was_held_to_the_end() -> None:
    env = make("placing")
    _, info = env.reset(seed=300_000)
    assert info["vacuum"] == 0.0
    *_, info = env.step(expert(env))
    assert info["motion"] == OK and info["vacuum"] == 1.0 and type(info["vacuum"]) is float
    _, again = env.set_state(env.get_state())
    assert again["vacuum"] == 1.0
    corner = Action(planar_pose((0.26, 0.49)), planar_pose((0.5, 0.0)))
    *_, info = env.step(corner)
    assert info["motion"] == NOTHING and info["vacuum"] == 0.0
    env.close()


def test_the_empty_head_travels_and_goes_up_first(table: tuple[World, GripperMotion]) -> None:
    world, motion = table
    motion.park(np.array([*START, 0.05]), 0.0)
    way: list[Array] = []
    world.on_tick.append(lambda _: way.append(motion.tip().position))
    goal = np.array([*GOAL, 0.15])
    motion.park(goal, 0.0)
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    assert steps.max() <= motion.fast and np.linalg.norm(way[-1] - goal) < 1e-3
    across = [place[2] for place in way if 0.05 < np.linalg.norm(place[:2] - START) < 0.35]
    assert len(across) > 10 and min(across) > 0.14


def test_the_tip_travels_over_what_the_map_shows_and_hits_what_it_does_not(
    table: tuple[World, GripperMotion],
) -> None:
    world, motion = table
    put(world, slab((0.04, 0.04, 0.02), RED))
    empty = seen(world)
    wall = world.add("wall", slab((0.20, 0.03, 0.12), RED), planar_pose((0.475, 0.0)), 0.3)
    world.settle()
    before = world.pose(wall)
    assert carry(world, motion) == OK
    np.testing.assert_allclose(world.pose(wall).position, before.position, atol=1e-3)
    world.move(next(iter(world.bodies)), planar_pose(START))
    world.settle()
    carry(world, motion, sight=empty)
    assert np.linalg.norm(world.pose(wall).position - before.position) > 5e-3


def test_a_map_tells_the_highest_thing_on_the_way_but_no_lone_pixel() -> None:
    height = np.zeros(SHAPE, np.float32)
    height[100:104, 40:44], height[200, 80], height[250, 40:60] = 0.05, 0.2, 0.01
    places = {"box": (41.5, 101.5), "left": (20, 101), "right": (70, 101), "pixel": (80, 200), "wall": (50, 250)}
    at = {name: np.array([0.25, -0.5]) + PIXEL * np.array(place) for name, place in places.items()}
    sight = Seen(height)
    assert sight.along(at["left"], at["right"], 0.006) == pytest.approx(0.05)
    assert sight.along(at["left"], at["left"], 0.006) == 0.0
    assert sight.along(at["pixel"], at["pixel"], 0.006) == 0.0
    assert sight.along(at["wall"], at["wall"], 0.006) == pytest.approx(0.01)
    assert sight.extent(at["box"], 0.05) == pytest.approx(1.5 * PIXEL * np.sqrt(2))


@pytest.mark.parametrize("motion", ["gripper", "arm"])
def test_every_action_is_planned_on_the_map_of_its_own_start(motion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[bool] = []

    execute = PickPlace.execute

    def check(self: PickPlace, world: World, motion: Motion, action: Mapping[str, Array], sight: Seen) -> str:
        given.append(np.array_equal(sight._height, seen(world)._height))
        return execute(self, world, motion, action, sight)

    monkeypatch.setattr(PickPlace, "execute", check)
    env = make("stacking", ["problem.modules.stacking.boxes=2"], motion=motion)
    demonstrate(env, 300_001, Disturbance(0.5, 0.03, 15.0))
    env.reset(seed=300_000)
    state = env.get_state()
    env.step(expert(env))
    env.set_state(state)
    env.step(expert(env))
    env.close()
    assert len(given) >= 4 and all(given)


@pytest.mark.parametrize(("ticks", "ramp"), [(60.0, 50.0), (20.0, 50.0), (30.0, 0.0), (0.4, 10.0)])
def test_a_ramped_way_is_whole_and_never_faster_than_asked(ticks: float, ramp: float) -> None:
    shares = np.concatenate([[0.0], ramped(ticks, ramp)])
    assert shares[-1] == pytest.approx(1.0)
    speeds = np.diff(shares) * ticks
    assert (speeds > 0).all() and speeds.max() <= 1 + 1e-9
    if ramp:
        assert np.abs(np.diff(speeds)).max() <= 1 / ramp + 1e-9
    assert not len(ramped(0.0, ramp))
