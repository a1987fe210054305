"""Making environments from Python: values are Python's, threads do not disturb each other, pictures are drawn."""

import contextlib
import os
import socket
import threading
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pybullet
import pytest
import trimesh

from multiravens.envs import PROBLEMS, PickPlaceEnv, make
from multiravens.errors import UserError
from multiravens.registration import environment_id
from multiravens.tasks.placing import Placing

SHAPES = "problem.modules.placing.shapes"


def test_environments_are_made_in_threads() -> None:
    problems = [PROBLEMS[index % len(PROBLEMS)] for index in range(24)]
    made: dict[int, str] = {}

    def build(index: int) -> None:
        env = make(problems[index], **({"camera": "realsense"} if index % 2 else {"domain": "wood"}))
        made[index] = env.problem.name
        env.close()

    threads = [threading.Thread(target=build, args=(index,)) for index in range(len(problems))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == dict(enumerate(problems))


def test_values_from_python_are_taken_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "it's a [part], {really}.stl"
    trimesh.creation.box((0.03, 0.03, 0.02)).export(path)
    choices: dict[str, Any] = {
        "domain": None,
        SHAPES: [{"mesh": path, "grasp": np.array([0.0, 0.001]), "symmetry": np.float32(90)}, "disc"],
        "problem.modules.placing": {"parts": np.int64(2), "decoys": 0},
        "problem.max_steps": None,
        "resolution": "half",
    }
    env = make("placing", **choices)
    kit = env.problem.modules["placing"]
    assert isinstance(kit, Placing) and kit.parts == 2 and kit.decoys == 0
    assert kit.library[0].name == path.stem and kit.library[0].grasp == (0.0, 0.001)
    assert env.problem.max_steps == 4 and env.resolution == "half"
    env.close()
    made = gymnasium.make(environment_id("placing"), **choices)
    assert made.unwrapped.problem.modules["placing"].parts == 2  # type: ignore[attr-defined]
    made.close()


LOOP: list[Any] = []
LOOP.append(LOOP)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"camera": None}, "give one name, out of orthographic, realsense"),
        ({"camera": 3}, "camera=3: give one name"),
        ({"domain": "wod"}, "unknown domain 'wod': choose from wood"),
        ({"resolution": np.arange(2)}, r"resolution=\[0, 1\]: give a text"),
        ({"resolution": "${gui}"}, "hold"),
        ({"gui": 1}, "gui=1: give true or false"),
        ({"gui": True, "render_mode": "rgb_array"}, "give one of them"),
        ({"render_mode": "ansi"}, "unknown render mode 'ansi': choose from human, rgb_array"),
        ({"problem.modul": 3}, "unknown option 'problem.modul': choose from problem"),
        ({"problem.modules.placing": {"part": 3}}, "unknown option 'problem.modules.placing.part'"),
        ({"problem._target_": "os.getcwd"}, "unknown option 'problem._target_'"),
        ({SHAPES: object()}, "give a number, a text, a path, None"),
        ({SHAPES: "disc"}, "give a list, such as"),
        ({SHAPES: LOOP}, "nested more than"),
        ({"problem.max_steps": float("nan")}, "give a finite number|give an integer"),
        ({"overrides": "problem.max_steps=x"}, "problem.max_steps=x: give an integer"),
        ({"problem": ["placing"]}, "give one name"),
    ],
)
def test_a_wrong_value_from_python_is_one_line(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        make(**({"problem": "placing"} | choices))
    assert "\n" not in str(raised.value)


def test_gymnasiums_own_keywords_and_render_modes_work() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        modes: list[str | None] = [None, "rgb_array", "rgb_array_list"]
        for mode in modes:
            env = gymnasium.make(
                environment_id("stacking"), render_mode=mode, max_episode_steps=1, disable_env_checker=mode is None
            )
            env.reset(seed=3)
            *_, truncated, _ = env.step(env.unwrapped.expert().to_dict())  # type: ignore[attr-defined]
            assert truncated
            pictures: Any = [] if mode is None else env.render()
            if mode == "rgb_array_list":
                assert len(pictures) == 2 and (pictures[0] != pictures[1]).mean() > 0.01
            elif mode:
                assert pictures.shape == (560, 720, 3) and pictures.dtype == np.uint8 and pictures.std() > 30
            env.close()
    env = gymnasium.make(environment_id("stacking"))
    env.reset(seed=3)
    with pytest.warns(UserWarning, match="render_mode"):
        assert env.unwrapped.render() is None
    env.close()


def test_a_picture_changes_nothing_in_the_episode() -> None:
    drawn, plain = make("stacking", render_mode="rgb_array"), make("stacking")
    for env in (drawn, plain):
        env.reset(seed=3)
    for _ in range(2):
        drawn.render()
        action = plain.expert()
        assert action is not None
        np.testing.assert_array_equal(drawn.step(action)[0]["height"], plain.step(action)[0]["height"])
        assert drawn.poses().tobytes() == plain.poses().tobytes()
    drawn.close()
    plain.close()


@pytest.mark.parametrize("display", ["", ":99", "nonsense", "/nowhere/socket:0", ":0.0.0", "localhost:99"])
def test_a_viewer_without_a_display_is_one_line(display: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", display)
    for choices in ({"render_mode": "human"}, {"gui": True}):
        with pytest.raises(UserError, match="the viewer cannot be opened") as raised:
            gymnasium.make(environment_id("placing"), **choices)
        assert "\n" not in str(raised.value)
    env = make("placing", render_mode="rgb_array")
    assert env.metadata["render_modes"] == ["rgb_array"]
    env.close()


def test_a_display_that_answers_and_opens_no_window_does_not_end_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    number = 1000 + os.getpid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(f"\0/tmp/.X11-unix/X{number}")
        server.listen()

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        monkeypatch.setenv("DISPLAY", f":{number}")
        with pytest.raises(UserError, match=f"viewer does not open on DISPLAY=':{number}'"):
            make("placing", render_mode="human")


def test_the_viewer_opens_where_there_is_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    direct, opened = pybullet.connect, []

    def connect(mode: int) -> int:
        opened.append(mode)
        return direct(pybullet.DIRECT)

    monkeypatch.setattr("multiravens.sim.connection.pybullet.connect", connect)
    monkeypatch.setattr("multiravens.sim.connection._display_fault", lambda name: "")
    monkeypatch.setattr("multiravens.envs.environment.has_display", lambda: True)
    monkeypatch.setattr("multiravens.sim.connection._viewer_fault", lambda name: "")
    for choices in ({"render_mode": "human"}, {"gui": True}):
        env = make("placing", **choices)
        assert isinstance(env, PickPlaceEnv) and env.render_mode == "human"
        assert env.metadata["render_modes"] == ["human", "rgb_array"]
        env.reset(seed=1)
        assert env.render() is None
        env.close()
    assert opened == [pybullet.GUI] * 2
