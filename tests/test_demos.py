"""The command that writes demonstrations: its options, its data set's identity, and what it says."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from multiravens import demos
from multiravens.data import Store, read_episode
from multiravens.options.compose import compose
from tests.fake_episodes import make_fake


@pytest.fixture(autouse=True)
def drawn_without_a_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demos, "make_oracle", lambda environment, gui: make_fake())


def test_episodes_lie_under_their_problem_and_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demos.main(["problem=placing-chaining", "split=test", "episodes=2", f"data={tmp_path}"]) == 0
    folder = tmp_path / "chaining-placing" / "test"
    assert str(folder) in capsys.readouterr().out
    assert [path.name for path in sorted(folder.glob("*.safetensors"))] == [
        "episode_100000.safetensors",
        "episode_100001.safetensors",
    ]
    assert read_episode(folder / "episode_100001.safetensors").seed == 100001


def test_the_data_set_records_what_decides_its_bytes_and_nothing_else(tmp_path: Path) -> None:
    assert demos.main(["problem=placing", "resolution=half", "episodes=1", f"data={tmp_path}"]) == 0
    content = json.loads((tmp_path / "placing" / "train" / "dataset.json").read_text())
    assert sorted(content["environment"]) == ["camera", "motion", "problem"]
    assert content["environment"] == demos.environment_config(compose("demos", ["problem=placing"]))
    assert content["seeds"] == [0, 100000]
    assert str(tmp_path) not in json.dumps(content)


def test_running_again_does_nothing_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["problem=placing", f"data={tmp_path}"]
    assert demos.main([*options, "episodes=4"]) == 0
    assert "4 of 4 episodes, 1 rejected" in capsys.readouterr().err
    assert demos.main([*options, "episodes=4", "workers=2"]) == 0
    assert "has 4 episodes already" in capsys.readouterr().out
    assert demos.main([*options, "episodes=2"]) == 0
    assert "4 episodes already, more than the 2 asked for; all stay" in capsys.readouterr().out
    assert len(Store.open(tmp_path / "placing" / "train").kept()) == 4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["episodes=-3"], "episodes must be"),
        (["episodes=0"], "episodes must be"),
        (["episodes=2.5"], "episodes"),
        (["episodes=many"], "episodes"),
        (["episodes=100001"], "episodes must be"),
        (["workers=0"], "workers must be"),
        (["workers=-1"], "workers must be"),
        (["workers=100000"], "workers must be"),
        (["gui=true", "workers=2"], "workers=1"),
        (["split=trian"], "train"),
        (["splits.test=[50,60]"], "splits train"),
        (["splits.test=[5]"], "split test"),
        (["splits.test=[60,50]"], "split test"),
        (["splits=[1,2]"], "splits"),
        (["split=other", "+splits.other=[400000,400001]", "episodes=2"], "episodes must be"),
        (["problem.name=../elsewhere"], "problem.name"),
        (["problem=palcing"], "placing"),
        (["data=/proc/none"], "/proc/none"),
        (["data=/dev/null/none"], "/dev/null/none"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    options: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demos.main([f"data={tmp_path}", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert not list(tmp_path.iterdir())


def test_other_options_for_a_data_set_that_exists_are_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["problem=placing", "episodes=1", f"data={tmp_path}"]
    assert demos.main(options) == 0
    for other, told in {
        "problem.order=shuffled": "problem.order",
        "camera=realsense": "camera.",
        "motion=arm": "motion.",
    }.items():
        capsys.readouterr()
        assert demos.main([*options, other]) == 2
        assert told in capsys.readouterr().err


def test_a_full_disk_is_told_and_the_next_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["problem=placing", "episodes=2", f"data={tmp_path}"]

    def refuse(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert demos.main(options) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert demos.main(options) == 0
