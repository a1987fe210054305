"""Sweeps: the runs of a table, what is missing of them, and what becomes of a sweep that is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.errors import UserError
from multiravens.experiments.sweep import Job, main, plan
from multiravens.options.compose import compose
from multiravens.support.files import locked
from multiravens.support.runs import STATE, WEIGHTS
from tests import synthetic

TRAIN = ["backbone=small", "backbone.network.width=16", "backbone.network.depth=1", "problems=[synthetic]", "demos=2"]
TRAIN += ["batch=2", "threads=1", "log_every=1", "checkpoint_every=1"]


def write_table(folder: Path, parts: list[dict[str, object]], train: list[str] = TRAIN) -> None:
    (folder / "table").mkdir(parents=True, exist_ok=True)
    table = {"name": "mine", "train": train, "evaluate": ["episodes=1", "workers=1"], "parts": parts}
    (folder / "table" / "mine.yaml").write_text(json.dumps(table))


def words(folder: Path, *more: str) -> list[str]:
    out = ["table=mine", f"out={folder / 'out'}", f"data={folder / 'data'}", "stages=[train]"]
    return [*out, *more, "--config-dir", str(folder)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    synthetic.write(tmp_path / "data", 2)
    return tmp_path


def plan_of(folder: Path, *overrides: str) -> dict[str, Job]:
    return plan(compose("sweep", ["table=mine", f"out={folder / 'out'}", *overrides], folder))


def planned(folder: Path, *overrides: str) -> dict[str, list[str]]:
    return {name: job.decides["train"] for name, job in plan_of(folder, *overrides).items()}


def test_a_table_is_the_products_of_its_parts_in_order(tmp_path: Path) -> None:
    sampling = {"plain": [], "weighted": ["task_sampling=adaptive", "step_sampling=prioritised"]}
    write_table(tmp_path, [{"agent": ["sctn"], "sampling": sampling}, {"agent": ["gctn", "sctn"], "demos": [10]}])
    assert planned(tmp_path) == {
        "sctn-plain": [*TRAIN, "agent=sctn"],
        "sctn-weighted": [*TRAIN, "agent=sctn", "task_sampling=adaptive", "step_sampling=prioritised"],
        "gctn-10": [*TRAIN, "agent=gctn", "demos=10"],
        "sctn-10": [*TRAIN, "agent=sctn", "demos=10"],
    }


@pytest.mark.parametrize("name", ["singles", "ten", "ten_half"])
def test_our_own_tables_can_be_met(name: str) -> None:
    assert len(plan(compose("sweep", [f"table={name}"]))) >= 8


@pytest.mark.parametrize(
    ("parts", "overrides", "message"),
    [
        ([{"agent": ["sctm"]}], [], "run sctm of table mine: unknown agent 'sctm': choose from sctn"),
        ([{"problems": ["[placing,stacking]"]}], [], "can't be a folder: give the axis names"),
        ([{"demos": [1]}, {"x": {"1": ["demos=2"]}}], [], "table mine has two runs called 1"),
        ([{"agent": []}], [], r"agent of table mine is \[\]: give a list of values"),
        ([{"agent": "sctn"}], [], "agent of table mine is 'sctn': give a list of values"),
        ([{"demos": 100}], [], "demos of table mine is 100: give a list of values"),
        ([{"sampling": {"plain": None}}], [], "sampling of table mine is .*: give a list of values"),
    ],
)
def test_a_table_that_cannot_be_met_says_why(
    parts: list[dict[str, object]], overrides: list[str], message: str, tmp_path: Path
) -> None:
    write_table(tmp_path, parts)
    with pytest.raises(UserError, match=message):
        planned(tmp_path, *overrides)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("stages=[tain]", "unknown stage 'tain': choose from train"),
        ("launcher=jobli", "unknown launcher 'jobli': choose from joblib"),
        ("launcher=ray", "launcher=ray is not installed: pip install 'multiravens[ray]'"),
        ("launcher_options=3", "launcher_options=3: give a group of options, such as {n_jobs: 2}, or null"),
        ("workers=0", "workers=0: give 1 or more"),
        ("out=null", "out=None, data="),
        ("table=min", "unknown table 'min': choose from mine"),
    ],
)
def test_bad_options_are_told_in_one_line(
    word: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_table(folder, [{"steps": [1]}])
    assert main(words(folder, word)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (folder / "out").exists()


def test_a_run_that_fails_is_told_and_the_others_are_done(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_table(folder, [{"demos": [9, 2], "steps": [1]}])
    assert main(words(folder)) == 1
    told = capfd.readouterr()
    assert "demos=9 asks for more" in told.err and "9-1 failed at train" in told.err
    assert (folder / "out" / "2-1" / WEIGHTS).exists()
    assert main(words(folder, "list=true")) == 0
    told = capfd.readouterr()
    assert "1 of 2 runs have something missing" in told.out and "9-1: train" in told.out


def test_nothing_is_measured_before_its_training_has_ended(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_table(folder, [{"steps": [1]}])
    assert main(words(folder, "stages=[evaluate]")) == 0
    assert "0 of 1 runs have something missing" in capfd.readouterr().out
    assert main(words(folder)) == 0
    done = folder / "out" / "1" / "stages.json"
    content = json.loads(done.read_text())
    content["stages"] = {"train": ["other"], "evaluate": plan_of(folder)["1"].decides["evaluate"]}
    done.write_text(json.dumps(content))
    assert main(words(folder)) == 0
    assert set(json.loads(done.read_text())["stages"]) == {"train"}  # what was measured was of other weights


def test_demonstrations_can_be_made_alone(tmp_path: Path) -> None:
    train = [word for word in TRAIN if not word.startswith("problems")]
    write_table(tmp_path, [{"problems": ["stacking"], "demos": [1]}], train)
    assert main(words(tmp_path, "stages=[demos]")) == 0
    assert len(list((tmp_path / "data" / "stacking" / "train").glob("episode_*"))) == 1
    assert not list((tmp_path / "out").glob("stacking*"))


def test_a_report_that_fails_fails_the_sweep(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_table(folder, [{"steps": [1]}])
    assert main(words(folder)) == 0
    done = folder / "out" / "1" / "stages.json"
    content = json.loads(done.read_text())
    content["stages"]["evaluate"] = plan_of(folder)["1"].decides["evaluate"]
    done.write_text(json.dumps(content))
    (folder / "out" / "1" / "metrics.jsonl").write_text("{")
    assert main(words(folder)) == 1
    assert "metrics.jsonl is damaged" in capfd.readouterr().err


def test_what_earlier_code_measured_is_reported_and_measured_again(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_table(folder, [{"steps": [1]}])
    assert main(words(folder)) == 0
    done = folder / "out" / "1" / "stages.json"
    content = json.loads(done.read_text())
    *options, source = plan_of(folder)["1"].decides["evaluate"]
    for earlier in (options, [*options, f"{source}0"]):
        content["stages"]["evaluate"] = earlier
        done.write_text(json.dumps(content))
        assert plan_of(folder)["1"].missing(["evaluate"]) == ["evaluate"]
        assert plan_of(folder)["1"].is_measured()
    capfd.readouterr()
    assert main(words(folder)) == 0
    assert "1 runs, 0 rows" in capfd.readouterr().out
    content["stages"]["evaluate"] = [*options[:-1], "episodes=2", source]
    done.write_text(json.dumps(content))
    assert not plan_of(folder)["1"].is_measured()


def test_runs_beside_one_another_are_those_of_one_after_the_other(folder: Path) -> None:
    write_table(folder, [{"agent": ["sctn", "gctn"], "steps": [2]}])
    assert main(words(folder)) == 0
    launched = [f"out={folder / 'launched'}", "launcher=joblib", "launcher_options={n_jobs:2}"]
    assert main(words(folder, *launched)) == 0
    for name in ("sctn-2", "gctn-2"):
        one, two = (folder / out / name / WEIGHTS for out in ("out", "launched"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("more", [[], ["launcher=joblib", "launcher_options={n_jobs:1}"]], ids=["sequential", "joblib"])
def test_a_killed_sweep_goes_on_and_leaves_no_process_behind(more: list[str], folder: Path) -> None:
    write_table(folder, [{"agent": ["sctn", "gctn"], "steps": [40]}])
    command = [sys.executable, "-m", "multiravens.sweep", *words(folder, *more)]
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first, second = (folder / "out" / f"{agent}-40" for agent in ("sctn", "gctn"))
    deadline = time.monotonic() + 240
    while not (second / STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (first / "stages.json").exists() and not (second / "stages.json").exists()
    done = (first / WEIGHTS).stat().st_mtime_ns
    while time.monotonic() < deadline:  # the run's process has it locked for as long as it lives
        try:
            with locked(second, "run"):
                break
        except UserError:
            time.sleep(0.05)
    assert read_tensors(second / STATE)[1]["step"] < 40
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert read_tensors(second / STATE)[1]["step"] == 40
    assert (first / WEIGHTS).stat().st_mtime_ns == done


def test_a_table_is_demonstrated_trained_measured_and_reported(tmp_path: Path) -> None:
    train = [word for word in TRAIN if not word.startswith("problems")]
    write_table(tmp_path, [{"steps": [1]}], [*train, "problems=[placing]"])
    assert main(words(tmp_path, "stages=[demos,train,evaluate]")) == 0
    told = (tmp_path / "out" / "report" / "report.md").read_text()
    assert "| placing | 1 | sctn | 2 | 1 |" in told and "| placing | oracle |" in told
