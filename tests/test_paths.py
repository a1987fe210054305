"""Paths as users write them: a tilde is the user's home wherever a path is taken."""

from pathlib import Path

import pytest

from multiravens import demos, doctor, train
from multiravens.data import read_episode
from multiravens.data.__main__ import main as data_main
from multiravens.data.storage.store import Store
from multiravens.envs import make
from multiravens.errors import UserError
from multiravens.options.paths import user_path

TINY = ["backbone=small", "backbone.network.width=16", "backbone.network.depth=1", "backbone.network.fine=8"]
TINY += ["batch=1", "threads=1"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_every_command_and_reader_takes_a_tilde(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "configs" / "module").mkdir(parents=True)
    (home / "configs" / "module" / "kit.yaml").write_text("_target_: multiravens.tasks.placing.Placing\nparts: 1\n")
    made = ["problem=kit", "episodes=1", "data=~/data", "--config-dir", "~/configs"]
    assert demos.main(made) == 0
    folder = home / "data" / "kit" / "train"
    assert data_main(["inspect", "~/data", "--out", "~/sheet.png"]) == 0
    assert data_main(["verify", "~/data/kit/train"]) == 0
    assert data_main(["pack", "~/data", "--out", "~/pack.safetensors"]) == 0
    (episode,) = folder.glob("episode_*")
    assert data_main(["inspect", f"~/data/kit/train/{episode.name}"]) == 0
    assert train.main([*TINY, "problems=[kit]", "demos=1", "steps=1", "data=~/pack.safetensors", "run=~/run"]) == 0
    assert (home / "sheet.png").is_file() and (home / "pack.safetensors").is_file() and (home / "run").is_dir()
    assert read_episode(f"~/data/kit/train/{episode.name}").success
    assert Store.open("~/data/kit/train").kept()
    make("kit", config_dirs="~/configs").close()
    doctor.main(["data=~/data"])
    assert not list(Path.cwd().iterdir())
    capsys.readouterr()


def test_a_user_that_there_is_not_is_one_line() -> None:
    with pytest.raises(UserError, match="no such user; write ./~NAME"):
        user_path("~nobody-of-this-name/data")
    with pytest.raises(UserError, match="no such user"):
        make("placing", config_dirs=["~nobody-of-this-name"])
