"""An agent on a robot: pictures that can't be right are refused, and a goal-less agent needs no goals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multiravens
from multiravens.agents.acting.load import Deployed, build
from multiravens.agents.networks.checkpoint import write_tensors
from multiravens.envs import Action
from multiravens.geometry import BOUNDS, pixel_to_xy
from multiravens.heightmap import depth_to_points, fuse
from multiravens.support.runs import WEIGHTS, write_config
from tests.synthetic import configured

TINY = ["backbone=small", "backbone.network.width=8", "backbone.network.depth=0", "backbone.network.fine=8"]


def _deployed(folder: Path, agent: str) -> Deployed:
    config = {name: value for name, value in configured(*TINY, f"agent={agent}").items() if name != "trainer"}
    torch.manual_seed(0)
    write_config(folder, config)
    write_tensors(folder / WEIGHTS, build(config)[0].state_dict(), {"step": 1})
    robot = multiravens.load(str(folder))
    assert isinstance(robot, Deployed)
    return robot


@pytest.fixture(scope="module")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    return _deployed(tmp_path_factory.mktemp("run"), "sctn")


def _table() -> tuple[np.ndarray, np.ndarray]:
    """A grey table with a block of 4 cm on it."""
    color, height = np.full((320, 160, 3), 90, np.uint8), np.zeros((320, 160), np.float32)
    color[100:120, 60:80], height[100:120, 60:80] = (220, 60, 40), 0.04
    return color, height


COLOR, HEIGHT = _table()
HOLES = HEIGHT.copy()
HOLES[5, 7] = np.nan

WRONG: list[tuple[Any, Any, str]] = [
    (COLOR, HEIGHT * 1000, r"height\[100, 60\] is 40 m; .*in metres, not millimetres"),
    (COLOR, 1 - HEIGHT, r"height\[0, 0\] is 1 m; .*nor the distance from the camera"),
    (COLOR, 0.5 - HEIGHT, "half of .*height is 0.5 m or more; a table"),
    (COLOR, HOLES, r"height\[5, 7\] is nan m; .*fill what the camera did not see with 0"),
    (COLOR, HEIGHT - 0.01, r"height\[0, 0\] is -0.01 m; .*np.clip"),
    (COLOR, (HEIGHT * 1000).astype(np.uint16), "height is uint16; it must be floating-point metres"),
    (COLOR, HEIGHT.T, r"height has shape \(160, 320\); it must be \(320, 160\)"),
    (COLOR / 255, HEIGHT, r"color is float64 up to 0.8.*\(255 \* color\)"),
    ((COLOR / 255).round().astype(np.uint8), HEIGHT, "color is at most 1 of 255"),
    (COLOR[::2, ::2], HEIGHT, r"color has shape \(160, 80, 3\); it must be \(320, 160, 3\).*3.125 mm"),
    (COLOR[None], HEIGHT, r"color has shape \(1, 320, 160, 3\)"),
    (COLOR.astype(object), HEIGHT, "color is object"),
    ([[1, 2], [3]], HEIGHT, "color is not an array of numbers"),
]


@pytest.mark.parametrize(("color", "height", "message"), WRONG)
def test_a_picture_that_can_not_be_right_is_refused_now_and_as_a_goal(
    color: Any, height: Any, message: str, robot: Deployed
) -> None:
    robot.reset()
    for now, goals in (((color, height), [(COLOR, HEIGHT)]), ((COLOR, HEIGHT), [(COLOR, HEIGHT), (color, height)])):
        with pytest.raises(ValueError, match=message) as error:
            robot.act(now[0], now[1], goals)
        assert "\n" not in str(error.value)
        assert str(error.value).startswith("goals[1] ") == (len(goals) == 2) or "half of goals[1]" in str(error.value)


@pytest.mark.parametrize(
    "goals", [[COLOR], [(COLOR,)], [(COLOR, HEIGHT, HEIGHT)], (COLOR[None], HEIGHT[None]), [5], ["ab c"]]
)
def test_goals_are_pairs(goals: Any, robot: Deployed) -> None:
    with pytest.raises(ValueError, match=r"goals\[0\]"):
        robot.act(COLOR, HEIGHT, goals)
    with pytest.raises(ValueError, match="goals is empty"):
        robot.act(COLOR, HEIGHT)


def test_tables_of_the_world_are_taken(robot: Deployed) -> None:
    rng = np.random.default_rng(0)
    tray = np.maximum(HEIGHT, 0.06)  # that covers the table
    arm = HEIGHT.copy()
    arm[:, :70] = 0.6  # in the picture
    noisy = np.clip(HEIGHT + rng.normal(0, 0.005, HEIGHT.shape), 0, None)  # float64
    dark = (COLOR * 0.05).astype(np.uint8)
    for color, height in ((COLOR, tray), (COLOR, arm), (COLOR, noisy), (dark, HEIGHT), (COLOR * 0, HEIGHT * 0)):
        robot.reset()
        assert np.isfinite(robot.act(color, height, [(color, height)])["pick_position"]).all()


def test_a_failed_act_leaves_the_episode_as_it_was(robot: Deployed) -> None:
    robot.reset()
    expected = [robot.act(COLOR, HEIGHT, [(COLOR, HEIGHT)]) for _ in range(2)]
    robot.reset()
    other = np.roll(COLOR, 40, axis=0), np.roll(HEIGHT, 40, axis=0)
    found = []
    for _ in range(2):
        with pytest.raises(ValueError, match="goals"):
            robot.act(*other, [(COLOR, HOLES)])
        with pytest.raises(ValueError, match="height"):
            robot.act(COLOR, HOLES, [(COLOR, HEIGHT)])
        found.append(robot.act(COLOR, HEIGHT, [(COLOR, HEIGHT)]))
    assert robot._start is not None and np.array_equal(robot._start[0], robot._picture("", COLOR, HEIGHT)[0])
    for one, two in zip(expected, found, strict=True):
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_an_agent_that_fails_leaves_no_start(robot: Deployed, monkeypatch: pytest.MonkeyPatch) -> None:
    robot.reset()
    with monkeypatch.context() as patch:
        patch.setattr(robot.agent, "best", lambda scores: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            robot.act(COLOR, HEIGHT, [(COLOR, HEIGHT)])
    assert robot._start is None and robot._steps == 0


def test_an_agent_without_goals_acts_without_them(tmp_path: Path) -> None:
    robot = _deployed(tmp_path, "transporter")
    first = robot.act(COLOR, HEIGHT)
    robot.reset()
    second = robot.act(COLOR, HEIGHT, [(COLOR, HEIGHT)])
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert (first["pick_position"] >= BOUNDS[:, 0] - 1e-6).all() and len(first) == 4
    with pytest.raises(ValueError, match="height"):
        robot.act(COLOR, HOLES)


FUSE: Any = fuse
POSE = np.array([[1, 0, 0, 0.5], [0, -1, 0, 0], [0, 0, -1, 0.8], [0, 0, 0, 1.0]])
"""A camera that looks straight down from 80 cm over the table's middle."""


def _seen(depth: Any = None, pose: Any = POSE, focal: float = 300.0) -> tuple[np.ndarray, np.ndarray]:
    depth = np.full((120, 160), 0.8) if depth is None else depth
    points = depth_to_points(depth, focal, (80.0, 60.0), pose)
    return fuse(points, np.full((len(points), 3), 200, np.uint8), (90, 90, 90))


def test_a_table_is_seen_where_it_is() -> None:
    depth = np.full((120, 160), 0.8, np.float32)
    depth[60, 80], depth[0, :50], depth[1, 0] = 0.75, np.nan, 65.0
    color, height = _seen(depth)
    row, column = np.argwhere(height > 0.04)[0]
    assert np.allclose(pixel_to_xy([row, column]), [0.5, 0.0], atol=0.002) and (color == 200).all(-1).sum() > 1000


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (lambda: _seen(np.full((120, 160), 800.0)), "half of depth is 800 m or more; .*depth . 0.001"),
        (lambda: _seen(np.full((120, 160), 800, np.uint16)), "depth is uint16; .*depth . 0.001"),
        (lambda: _seen(np.full((120, 160, 1), 0.8)), r"depth has shape \(120, 160, 1\)"),
        (lambda: _seen(np.full((120, 160), -0.8)), "depth is -0.8 m somewhere"),
        (lambda: _seen(np.full((120, 160), np.nan)), "none of 0 points lies in the workspace"),
        (lambda: _seen(pose=np.eye(4)), "none of 19200 points lies in the workspace.*camera to world"),
        (lambda: _seen(pose=np.linalg.inv(POSE) + np.eye(4, k=3) * 9), "none of 19200 points"),
        (lambda: _seen(pose=POSE[:3]), r"pose has shape \(3, 4\); it must be \(4, 4\)"),
        (lambda: _seen(pose=POSE * 1000), "it must be a rotation"),
        (lambda: _seen(pose=POSE * [[1], [1], [-1], [1]]), "it must be a rotation"),
        (lambda: _seen(pose=POSE.T), r"pose\[3\] is .*it must be \[0, 0, 0, 1\]"),
        (lambda: _seen(pose=np.full((4, 4), np.nan)), "pose.* is nan"),
        (lambda: _seen(focal=0.0), "focal is 0"),
        (lambda: FUSE([[0.5, 0, 0]], [[0.5, 0.5, 0.5]], (0, 0, 0)), r"colors is float64 up to 0.5; .*255 \* color"),
        (lambda: FUSE([[0.5, 0, 0]] * 2, np.zeros((1, 3), np.uint8), (0, 0, 0)), r"colors has shape \(1, 3\)"),
        (lambda: FUSE([[0.5, 0, np.nan]], np.zeros((1, 3), np.uint8), (0, 0, 0)), r"points\[0, 2\] is nan m"),
        (lambda: FUSE([0.5, 0, 0], np.zeros(3, np.uint8), (0, 0, 0)), r"points has shape \(3,\)"),
    ],
)
def test_a_depth_picture_that_shows_no_table_is_refused(seen: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        seen()
    assert "\n" not in str(error.value)


def test_a_quaternion_with_w_first_is_refused_where_it_can_be_told() -> None:
    action = Action.from_dict(_action([0, 0, 0.6, 0.8])).to_dict()
    assert action["place_quaternion"].tolist() == pytest.approx([0, 0, 0.6, 0.8])
    for quaternion in ([0.8, 0, 0, 0.6], [1, 0, 0, 0]):
        with pytest.raises(ValueError, match="as if w came first; quaternions are xyzw"):
            Action.from_dict(_action(quaternion))


def _action(quaternion: Any) -> dict[str, Any]:
    still = {"pick_quaternion": [0, 0, 0, 1], "place_quaternion": quaternion}
    return {"pick_position": [0.5, 0, 0], "place_position": [0.5, 0.1, 0], **still}
