"""Mistakes of users: one line that says so, status 2, and nothing lost."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from omegaconf import OmegaConf

from multiravens import export, train, transfer
from multiravens.agents.networks.checkpoint import write_tensors
from multiravens.agents.training.trainer import Trainer
from multiravens.cli import INTERRUPTED
from multiravens.data.__main__ import main as data_main
from multiravens.data.storage.episode import Episode, write_episode
from multiravens.drawing import render
from multiravens.errors import UserError
from multiravens.evaluation import evaluate
from multiravens.experiments import report, sweep
from multiravens.options.compose import changed, compose
from multiravens.support.runs import CONFIG, METRICS, STATE, WEIGHTS
from tests import synthetic

Main = Callable[[Sequence[str]], int]
TINY = ["backbone=small", "backbone.network.width=16", "backbone.network.depth=1", "backbone.network.fine=8"]
TINY += ["problems=[synthetic]", "demos=4", "steps=2", "batch=4", "checkpoint_every=2", "log_every=1", "threads=1"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a trained `run`."""
    folder = tmp_path_factory.mktemp("mistakes")
    synthetic.write(folder / "data", 4)
    assert train.main([*TINY, f"data={folder / 'data'}", f"run={folder / 'run'}"]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """The run, to be damaged."""
    return shutil.copytree(made / "run", tmp_path / "run")


def refused(main: Main, words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line that a command answers with, after those of its progress."""
    capsys.readouterr()
    assert main(words) == 2
    *before, error = capsys.readouterr().err.splitlines()
    assert error.startswith("error: ") and not any("error" in line or "Traceback" in line for line in before)
    return error


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (transfer.main, ["learning_rate=abc"], "learning_rate=abc: give a number, such as 0.001, or null"),
        (transfer.main, ["order=2"], "order=2: give a list, such as [0, 2, 1, 1, 3, 4], or null"),
        (transfer.main, ["problem=[placing]"], "problem=[placing]: give a text, such as NAME, or null"),
        (report.main, ["runs=5"], "runs=5: give a list or a text, such as [FOLDER], or null"),
        (train.main, ["compile=false"], "compile=false: give a text, such as inductor, or null"),
        (sweep.main, ["out="], "out= is empty: give a text"),
        (evaluate.main, ["inhibition=much"], "inhibition=much: give a number"),
        (evaluate.main, ["run=~nobody.here/run", "episodes=1"], "~nobody.here/run: there is no such user"),
        (evaluate.main, ["agent=random", "out=", "episodes=1"], "out='': give a text, such as FOLDER, or null"),
        (render.main, ["problem.max_steps=abc"], "problem.max_steps=abc: give an integer, such as 20, or null"),
        (render.main, ["problem=placing", "problem.modules.placing.shapes=[disc,bar,5]"], "5 is no part: give a name"),
        (train.main, ["run="], "run= is empty: give a text, such as its default"),
        (train.main, [*TINY, f"batch={10**18}"], f"batch={10**18}: give at most 1048576"),
        (train.main, [*TINY, "backbone.network.width=-8"], "width=-8: give 1 or more"),
        (train.main, [*TINY, "backbone.network.depth=-1"], "depth=-1: give 0 or more"),
        (data_main, ["inspect", "x" * 300], "File name too long"),
    ],
)
def test_a_value_that_can_not_be_is_told(
    main: Main,
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in refused(main, words, capsys)
    assert not any(path.suffix in (".safetensors", ".json") for path in tmp_path.rglob("*"))


def test_a_folder_may_be_called_by_a_number(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(run.parent)
    assert export.main(["run=run", "out=2024"]) == 0
    assert (run.parent / "2024" / WEIGHTS).exists()


def test_folders_called_like_options_change_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("runs", "demos"):
        (tmp_path / name).mkdir()
    words = ["--config-dir", str(tmp_path)]
    assert report.main([*words, f"runs=[{made / 'run'}]", "gallery=0", f"out={tmp_path / 'out'}"]) == 0
    assert "demos=0: give 1 or more" in refused(train.main, [*words, *TINY, "demos=0"], capsys)
    assert "demos=abc: give an integer" in refused(train.main, [*words, *TINY, "demos=abc"], capsys)


def test_parts_may_be_replaced_by_other_parts() -> None:
    words = ["problem=placing", "problem.modules.placing.shapes=[bar,disc]"]
    composed = OmegaConf.to_container(compose("environment", words))
    assert isinstance(composed, dict)
    environment = {str(key): value for key, value in composed.items()}
    shapes = "problem.modules.placing.shapes"
    assert changed(environment, [f"{shapes}=[disc]"])["problem"]["modules"]["placing"]["shapes"] == ["disc"]
    with pytest.raises(UserError, match=f"{shapes}=disc: give a list, such as its default"):
        changed(environment, [f"{shapes}=disc"])


def test_a_table_of_lists_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table").mkdir()
    table = {"name": "nested", "train": [], "evaluate": [], "parts": [["agent", ["sctn"]]]}
    (tmp_path / "table" / "nested.yaml").write_text(yaml.safe_dump(table))
    words = ["--config-dir", str(tmp_path), "table=nested", f"out={tmp_path / 'out'}"]
    assert "a part of table nested is ['agent', ['sctn']]: give axes" in refused(sweep.main, words, capsys)


def test_a_run_that_diverges_is_stopped(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, f"data={made / 'data'}", f"run={tmp_path / 'run'}", "warmup=0", "steps=8", "learning_rate=1e30"]
    error = refused(train.main, words, capsys)
    assert "is no number any more at step" in error and "lower learning_rate=1e+30; nothing was saved" in error
    assert not (tmp_path / "run" / WEIGHTS).exists()


def test_a_checkpoint_holds_numbers(
    made: Path, run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (run / STATE).read_bytes()
    monkeypatch.setattr(Trainer, "take_step", _spoil)
    changed = yaml.safe_load((run / CONFIG).read_text()) | {"steps": 4}
    (run / CONFIG).write_text(yaml.safe_dump(changed))
    words = [*TINY, f"data={made / 'data'}", f"run={run}", "steps=4"]
    error = refused(train.main, words, capsys)
    assert "a weight is no number any more at step 4: lower learning_rate=" in error
    assert f"{run} is as at its last checkpoint" in error
    assert (run / STATE).read_bytes() == before


def _spoil(self: Trainer) -> None:
    self.step = 4
    self._figures._recent = [np.zeros(0, np.float32)]
    self.averaged[self._moving[0]].fill_(float("nan"))


def test_another_agents_weights_are_not_trained_over(made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / STATE).unlink()
    before = (run / WEIGHTS).read_bytes()
    words = [*TINY, f"data={made / 'data'}", f"run={run}"]
    assert "holds a run with other options (seed: 0 there, 1 now)" in refused(train.main, [*words, "seed=1"], capsys)
    assert (run / WEIGHTS).read_bytes() == before
    assert train.main(words) == 0
    assert (run / WEIGHTS).read_bytes() == before  # and its own are trained anew


def test_how_a_run_acts_may_be_changed(made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TINY, f"data={made / 'data'}", f"run={run}"]
    assert train.main([*words, "inhibition=0.5"]) == 0
    assert yaml.safe_load((run / CONFIG).read_text())["inhibition"] == 0.5
    (run / CONFIG).unlink()
    assert f"holds weights and no {CONFIG}" in refused(train.main, words, capsys)


def test_weights_that_are_gone_are_written_again(made: Path, run: Path) -> None:
    before = (run / WEIGHTS).read_bytes()
    (run / WEIGHTS).unlink()
    assert train.main([*TINY, f"data={made / 'data'}", f"run={run}"]) == 0
    assert (run / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("content", ["{", "5", '{"loss": 1}'])
def test_damaged_curves_are_told(content: str, made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run / METRICS).write_text(content)
    error = refused(train.main, [*TINY, f"data={made / 'data'}", f"run={run}"], capsys)
    assert "metrics.jsonl is damaged: remove it" in error


def test_a_pack_replaces_nothing_but_a_pack(made: Path, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (run / WEIGHTS).read_bytes()
    words = ["pack", str(made / "data"), "--out"]
    assert "is no whole pack: remove it, or give another name" in refused(
        data_main, [*words, str(run / WEIGHTS)], capsys
    )
    assert (run / WEIGHTS).read_bytes() == before
    left = run / ".p-00001-of-00002.safetensors.1.tmp"
    other = run / ".pq.safetensors.1.tmp"
    for path in (left, other):
        path.write_bytes(b"")
    for _ in range(2):
        assert data_main([*words, str(run / "p.safetensors")]) == 0
    assert not left.exists() and other.exists()


def test_an_export_that_was_stopped_is_taken_up(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"run={run}", f"out={tmp_path / 'out'}"]
    refused(export.main, [*words, "shard_size=1KB"], capsys)
    with monkeypatch.context() as patch:
        patch.setattr("multiravens.agents.adaptation.export.write_tensors", _killed_on_the_way)
        assert export.main([*words, "shard_size=100KB"]) == INTERRUPTED
    assert list((tmp_path / "out").glob("weights-00001-*"))
    (tmp_path / "out" / CONFIG).rename(tmp_path / "out" / f".{CONFIG}.1.tmp")
    for path in (tmp_path / "out").glob("weights*"):
        path.unlink()
    assert export.main([*words, "shard_size=100KB"]) == 0
    assert (tmp_path / "out" / "README.md").exists()


def _killed_on_the_way(path: Path, *content: Any) -> None:
    write_tensors(path, *content)[-1].unlink()
    raise KeyboardInterrupt


@pytest.mark.parametrize(("name", "value"), [("goal_frames", 16385), ("goal_frames", -1), ("pointer", 3)])
def test_an_episode_counts_only_what_it_has(
    name: str, value: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    episode: Episode = synthetic.episode(0)
    getattr(episode, name)[1] = value
    path = tmp_path / "episode_000000.safetensors"
    write_episode(path, episode, "")
    assert f"its {name} are not all from 0 to 2" in refused(data_main, ["inspect", str(path)], capsys)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": None}, "its environment is None, not one for each problem"),
        ({"task_sampling": "uniform"}, "its configuration has no valid task_sampling"),
        ({"backbone": "small"}, "its configuration has no valid backbone"),
    ],
)
def test_a_damaged_configuration_is_told(
    changes: dict[str, object], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / CONFIG).write_text(yaml.safe_dump(yaml.safe_load((run / CONFIG).read_text()) | changes))
    assert message in refused(report.main, [f"runs=[{run}]", "gallery=0", f"out={run / 'report'}"], capsys)


def test_a_date_that_is_none_is_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (run / CONFIG).open("a") as file:
        file.write("created: 2024-13-45\n")
    assert "is not valid YAML: month must be in 1..12" in refused(evaluate.main, [f"run={run}"], capsys)
