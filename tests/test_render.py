"""Videos and sheets: they show the run that would have taken place without them, and mistakes take one line."""

import os
from pathlib import Path
from typing import Any

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from multiravens.actions import Mark
from multiravens.drawing import render
from multiravens.drawing.film import Film, before_and_after, goals_of, status_of
from multiravens.drawing.pictures import contact_sheet, draw_action, png, turned, wrap, write
from multiravens.drawing.video import SUFFIXES, VIEW, Board, Goals, Status, frame_size, open_video
from multiravens.envs import demonstrate, make
from multiravens.geometry import BOUNDS, planar_pose
from multiravens.sim.studio import Studio
from multiravens.sim.world import World

FRAME = frame_size()
SHORT = ["problem=stacking", "problem.max_steps=1", "seed=3", "speed=8"]
"""One action, filmed as coarsely as is allowed."""


class Reel:
    """Takes frames as a video does, and keeps them."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray] = []

    def write(self, frame: np.ndarray, repeat: int = 1) -> None:
        self.frames += [frame.copy()] * repeat


class SmallStudio(Studio):
    """Draws small and enlarges, which is quick."""

    def __init__(self) -> None:
        super().__init__((112, 144))

    def picture(self, world: World) -> np.ndarray:
        return np.asarray(cv2.resize(super().picture(world), VIEW[::-1]))


@pytest.fixture(scope="module")
def studio() -> Any:
    made = SmallStudio()
    yield made
    made.close()


def read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]]:
    reader = imageio_ffmpeg.read_frames(str(path))
    about = next(reader)
    width, height = about["size"]
    return about, [np.frombuffer(raw, np.uint8).reshape(height, width, 3) for raw in reader]


def test_a_video_has_the_rate_size_and_frames_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "run.mp4"
    assert render.main([*SHORT, "fps=20", f"out={out}"]) == 0
    about, frames = read(out)
    assert about["fps"] == 20
    assert about["codec"] == "h264"
    assert frames[0].shape == (*FRAME, 3)
    assert f"{len(frames) / 20:.1f} s" in capsys.readouterr().out
    assert len(frames) > 60
    view = np.s_[60 : 60 + VIEW[0] - 60, 20 : 20 + VIEW[1] - 40]
    assert all(frame[view].std() > 30 for frame in frames)
    assert abs(frames[0].astype(int) - frames[len(frames) // 2])[view].max() > 100
    assert os.listdir(out.parent) == ["run.mp4"]


def test_a_gif_is_smaller_and_moves(tmp_path: Path) -> None:
    out = tmp_path / "run.gif"
    with open_video(out, 25) as video:
        for shade in (60, 120, 200):
            video.write(np.full((*FRAME, 3), shade, np.uint8), 2)
    about, frames = read(out)
    assert about["codec"].startswith("gif")
    assert about["fps"] == 25
    assert frames[0].shape[0] < FRAME[0]
    assert frames[0].mean() < frames[-1].mean() - 100
    assert os.listdir(tmp_path) == ["run.gif"]


def test_the_cameras_pose_and_the_size_are_options(tmp_path: Path) -> None:
    sheets: dict[str, Any] = {}
    for name, lens in {
        "front": [],
        "side": ["lens.eye=[0.5,-1.6,1.2]", "lens.target=[0.5,0,0]"],
        "above": ["lens.eye=[0.5,0,2]", "lens.target=[0.5,0,0]", "lens.field=30"],
        "behind": ["lens.eye=[-0.9,0.4,1]"],
    }.items():
        out = tmp_path / f"{name}.png"
        assert render.main([*SHORT, "size=[168,216]", *lens, f"out={out}"]) == 0
        sheets[name] = cv2.imread(str(out))
        assert sheets[name].std() > 20
    assert len({sheet.shape for sheet in sheets.values()}) == 1 and sheets["front"].shape[1] < 3 * 216
    first, *others = (sheet[34:202].astype(int) for sheet in sheets.values())
    assert all(abs(first - other).mean() > 10 for other in others)
    out = tmp_path / "run.mp4"
    assert render.main([*SHORT, "fps=20", "size=[240,320]", f"out={out}"]) == 0
    assert read(out)[1][0].shape == (*frame_size((240, 320)), 3) == (400, 560, 3)
    assert frame_size((560, 720)) == (720, 1280)


def test_filming_does_not_change_the_run(studio: Studio) -> None:
    with_camera, without = make("placing-stacking"), make("placing-stacking")
    demonstration, reel = demonstrate(without, 5), Reel()
    seen: list[bytes] = []
    step = with_camera.step

    def stepped(action: Any) -> Any:
        result = step(action)
        seen.append(result[4]["poses"].tobytes() + result[0]["color"].tobytes() + result[0]["height"].tobytes())
        return result

    with_camera.step = stepped  # type: ignore[method-assign]
    Film(with_camera, studio, reel, 20, 8.0).shoot(demonstration, lambda share: None)  # type: ignore[arg-type]
    without.reset(seed=5)
    for index in range(len(demonstration.rewards)):
        observation, _, _, _, info = without.step({key: value[index] for key, value in demonstration.actions.items()})
        plain = info["poses"].tobytes() + observation["color"].tobytes() + observation["height"].tobytes()
        assert seen[index] == plain, f"step {index} differs"
    assert len(seen) == len(demonstration.rewards) == demonstration.pointer[-1]


def test_the_shown_arm_never_jumps(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    env, places = make("stacking", ["problem.max_steps=2"]), []
    picture = studio.picture

    def watched(world: World) -> np.ndarray:
        places.append(studio.position)
        return picture(world)

    monkeypatch.setattr(studio, "picture", watched)
    Film(env, studio, Reel(), 20, 1.0).shoot(demonstrate(env, 3), lambda share: None)  # type: ignore[arg-type]
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    # Empty, 4 cm a frame and a tick's 12 mm; loaded, 5 mm a tick at 12 ticks a frame.
    assert steps.max() < 0.065


def test_a_view_shows_bodies_arm_and_shadow_where_they_are() -> None:
    world, small = World(), Studio((280, 360))
    empty = small.picture(world).astype(int)
    from multiravens.sim.shapes import slab

    world.add("box", slab((0.12, 0.12, 0.08), (1.0, 0.0, 0.0)), planar_pose((0.5, 0.2)))
    with_box = small.picture(world).astype(int)
    red = (with_box[..., 0] > 150) & (with_box[..., 1] < 60)
    rows, columns = np.nonzero(red)
    assert red.sum() > 50
    assert columns.mean() > 180, "+y is to the right"
    assert ((empty - with_box).min(-1) > 15).sum() > 40, "a shadow"
    small.place(np.array([0.7, -0.4, 0.05]), 0.0)
    assert (abs(small.picture(world) - with_box).max(-1) > 40).sum() > 300, "the arm has moved"
    small.place(np.array([5.0, 0.0, 0.0]), 0.0)
    small.close()
    world.close()


def test_a_picture_in_the_heightmap_points_the_same_way_as_the_view() -> None:
    heightmap = np.zeros((320, 160, 3), np.uint8)
    heightmap[300:, :20] = 255  # far along +y, near the robot
    panel = turned(heightmap, (256, 512))
    assert panel[:20, -20:].mean() > 250
    assert panel[-100:].max() == 0
    corner, middle = np.append(BOUNDS[:2, 1] - 0.02, 0.0), np.append(BOUNDS[:2].mean(1), 0.0)
    draw_action(panel, [Mark(corner, 0.0), Mark(middle, np.pi / 2)])
    assert panel[-20:, -20:].max() > 200
    assert panel[118:138, 246:290].max() == 255


def test_goals_are_marked_as_they_stand() -> None:
    images = [np.full((320, 160, 3), 90, np.uint8), None, np.full((320, 160, 3), 90, np.uint8)]
    board = Board("title", Goals(["m/a", "m/b with a rather long name to wrap", "m/c"], images))
    color, height = np.full((320, 160, 3), 90, np.uint8), np.zeros((320, 160), np.float32)
    blank = np.zeros((*VIEW, 3), np.uint8)
    frames = []
    for pointer in (0, 1, 3):
        holds = np.arange(3) < pointer
        board.update(Status(color, height, holds, pointer, pointer, 3))
        frames.append(board.frame(blank).copy())
    green = [int(((frame[..., 1] > 120) & (frame[..., 0] < 60)).sum()) for frame in frames]
    orange = [int(((frame[610:, :, 0] > 220) & (frame[610:, :, 2] < 60)).sum()) for frame in frames]
    assert green[0] == 0 < green[1] < green[2]
    assert orange[0] > 0 < orange[1]
    assert orange[2] == 0


def test_many_goals_show_those_around_the_current_one() -> None:
    color, height = np.full((320, 160, 3), 90, np.uint8), np.zeros((320, 160), np.float32)
    board = Board("title", Goals([f"m/{index}" for index in range(200)], [color] * 200))
    for pointer in (0, 100, 199):
        board.update(Status(color, height, np.arange(200) < pointer, pointer, 0, 1))
        strip = board.frame(np.zeros((*VIEW, 3), np.uint8))[610:]
        assert ((strip[..., 0] > 220) & (strip[..., 2] < 60)).any()


def test_an_unreached_goal_has_no_image_but_a_place() -> None:
    env = make("stacking", ["problem.max_steps=1"])
    demonstration = demonstrate(env, 3)
    goals = goals_of(demonstration)
    assert [image is None for image in goals.images] == [False] + [True] * 4
    assert len(status_of(demonstration, 0, acting=True).marks) == 2
    last = status_of(demonstration, 1, acting=False)
    assert (last.marks, last.step, last.steps, last.aim) == ((), 1, 1, 1)
    assert status_of(demonstration, 0, acting=True, aims=[3, 4]).aim == 3


def test_sheets_of_an_episode_and_of_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "steps.png"
    assert render.main([*SHORT, f"out={out}"]) == 0
    assert "1 steps, not solved" in capsys.readouterr().out
    sheet = cv2.imread(str(out))
    assert sheet is not None and sheet.shape[1] > 2 * 540 and sheet.std() > 20
    from multiravens.options.compose import compose

    small = Studio((112, 144))
    pair = before_and_after(compose("environment", ["problem=stacking"]), 3, small)
    assert pair.shape == (230, 144, 3)
    assert abs(pair[:112].astype(int) - pair[118:]).max() > 60
    small.close()


def test_the_sheet_of_problems_shows_all_fifteen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def fake(config: Any, seed: int, studio: Studio) -> np.ndarray:
        drawn.append(config.problem.name)
        return np.zeros((20, 40, 3), np.uint8)

    monkeypatch.setattr("multiravens.drawing.film.before_and_after", fake)
    assert render.main(["problem=all", f"out={tmp_path / 'all.png'}"]) == 0
    assert len(set(drawn)) == 15
    assert (tmp_path / "all.png").is_file()


def test_a_contact_sheet_needs_a_title_for_each_image() -> None:
    image = np.zeros((10, 20, 3), np.uint8)
    assert contact_sheet([image] * 5, ["a"] * 5, 2).shape[1] < contact_sheet([image] * 5, ["a"] * 5, 3).shape[1]
    assert png(image)[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="0 images"):
        contact_sheet([], [], 3)
    with pytest.raises(ValueError, match="2 titles"):
        contact_sheet([image], ["a", "b"], 3)


def test_text_stays_inside_and_wraps() -> None:
    image = np.full((30, 60, 3), 255, np.uint8)
    write(image, "much too long for this picture", (4, 20), 0.5, (0, 0, 0))
    assert image.min() < 100
    assert len(wrap("several words of a name", 60, 0.4)) > 1
    assert wrap("", 60, 0.4) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["out=run.avi"], ".mp4"),
        (["out=run"], ".mp4"),
        (["out=."], ".mp4"),
        (["fps=5"], "20 to 60"),
        (["fps=quick"], "fps"),
        (["speed=0"], "0.05 to 10"),
        (["speed=.nan"], "give a number"),
        (["seed=-1"], "0 or more"),
        (["size=[240]"], "give height and width"),
        (["size=[241,320]"], "even numbers"),
        (["size=[0,99999]"], "160 to 2160"),
        (["lens.eye=[1,2]"], "lens.eye=[1, 2]: give x, y and z in metres"),
        (["lens.eye=[a,b,c]"], "give x, y and z in metres"),
        (["lens.eye=[0.5,0,-1]"], "at least 0.1 m above the table"),
        (["lens.eye=[9,0,9]"], "0.7 to 3.0 m away"),
        (["lens.field=170"], "lens.field=170.0: give 2 to 120"),
        (["lens=close"], "lens"),
        (["problem=all", "out=run.mp4"], ".png"),
        (["problem=all", "problem.order=shuffled", "out=run.png"], "problem.*"),
        (["problem=stackin"], "stacking"),
    ],
)
def test_a_mistake_takes_one_line(
    options: list[str], told: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert render.main(options) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_takes_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    for out in (tmp_path / "file" / "run.mp4", tmp_path / "folder.mp4", Path("/proc/run.mp4")):
        assert render.main([*SHORT, f"out={out}"]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_video_is_written_where_a_tilde_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert render.main([*SHORT, "size=[160,160]", "out=~/new/sheet.png"]) == 0
    assert (tmp_path / "new" / "sheet.png").is_file()


def test_a_run_that_fails_leaves_no_file_behind(tmp_path: Path) -> None:
    out = tmp_path / "run.mp4"
    out.write_bytes(b"older")
    with pytest.raises(RuntimeError, match="on purpose"), open_video(out, 20) as video:
        video.write(np.zeros((*FRAME, 3), np.uint8))
        raise RuntimeError("on purpose")
    assert out.read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["run.mp4"]
    assert set(SUFFIXES) == {".mp4", ".gif"}
