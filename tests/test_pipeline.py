"""From demonstrations to a report, with a network too small to be any good."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from multiravens import demos, train
from multiravens.agents.acting.load import load_agent
from multiravens.agents.acting.policy import NetworkAgent
from multiravens.drawing import render
from multiravens.evaluation import evaluate
from multiravens.experiments import report
from multiravens.options.compose import compose
from multiravens.support.runs import read_config, write_config

TINY = ["backbone=small", "backbone.network.width=16", "backbone.network.depth=1", "backbone.network.fine=8"]
TINY += ["demos=2", "steps=4", "batch=2", "log_every=2", "checkpoint_every=4", "threads=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    data, out = folder / "data", folder / "run"
    for problem in ("placing", "stacking"):
        assert demos.main([f"problem={problem}", "episodes=2", f"data={data}"]) == 0
    words = ["problems=[placing,stacking]", "task_sampling=horizon", f"data={data}", f"run={out}"]
    assert train.main([*TINY, *words]) == 0
    assert evaluate.main([f"run={out}", "episodes=2", "workers=2"]) == 0
    return out


def test_evaluation_measures_the_problems_of_the_run(run: Path) -> None:
    for problem in ("placing", "stacking"):
        content = json.loads((run / "evaluation" / f"{problem}.json").read_text())
        assert content["agent"] == "sctn" and content["summary"]["episodes"] == 2
        assert set(content["beside"]) == {"oracle", "random"}


def test_the_report_is_one_page_with_its_pictures_inside(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted: list[tuple[float | None, int | None]] = []

    def loaded(inhibition: float | None = None, patience: int | None = None, **others: Any) -> NetworkAgent:
        acted.append((inhibition, patience))
        return load_agent(inhibition=inhibition, patience=patience, **others)

    monkeypatch.setattr("multiravens.agents.acting.load.load_agent", loaded)
    assert report.main([f"runs=[{run}]", "gallery=1", f"out={tmp_path}"]) == 0
    measured = report.read_run(run, "run").evaluations.values()
    assert acted == [(content["inhibition"], content["patience"]) for content in measured]
    page = (tmp_path / "report.html").read_text()
    pictures = {path.stem for path in tmp_path.glob("*.png")}
    figures = {
        f"{name}_by_{what}" for name in ("mean_return", "full_success") for what in ("problem", "demonstrations")
    }
    assert {*figures, "learning", "drawn_run"} <= pictures
    assert any("episode" in name for name in pictures) and any("failure" in name for name in pictures)
    assert page.count("data:image/png;base64,") == len(pictures)
    assert "http" not in page.replace("http-equiv", "")
    told = (tmp_path / "report.md").read_text()
    assert "| placing | run | sctn | 2 | 4 | horizon uniform |" in told
    assert "| all 2 | oracle | oracle |  |  |  | 1.000 [1.000, 1.000] | 1.000 [0.510, 1.000] | 4 |" in told


def test_a_report_of_figures_by_different_code_says_so(run: Path, tmp_path: Path) -> None:
    for name in ("new", "older"):
        shutil.copytree(run, tmp_path / name)
    out, runs = tmp_path / "out", f"runs=[{tmp_path / 'new'},{tmp_path / 'older'}]"
    assert report.main([runs, "gallery=0", f"out={out}"]) == 0
    assert "by the same code" not in (out / "report.html").read_text() + (out / "report.md").read_text()
    path = tmp_path / "older" / "evaluation" / "placing.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != "source"}))
    assert report.main([runs, "gallery=0", f"out={out}"]) == 0
    source = report.read_run(run, "run").evaluations["placing"]["source"][:8]
    told = f"Not all were measured by the same code: new by {source}, older by code not noted and {source}."
    assert told in (out / "report.md").read_text() and told in (out / "report.html").read_text()


def test_what_was_never_learned_is_not_counted_among_all(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "evaluation", tmp_path / "run" / "evaluation")
    write_config(tmp_path / "run", {**read_config(run), "problems": ["placing"]})
    rows = list(report.table_rows([report.read_run(tmp_path / "run", "run")]))
    assert {"placing", "stacking"} == {row["problem"] for row in rows}


@pytest.mark.parametrize(
    ("words", "name"), [(["backbone=small"], "small"), (["backbone=modular"], "modular"), (TINY[:2], "isometric")]
)
def test_a_network_is_named_as_it_is_asked_for(words: list[str], name: str, run: Path, tmp_path: Path) -> None:
    shutil.copytree(run / "evaluation", tmp_path / "run" / "evaluation")
    backbone = OmegaConf.to_container(compose("train", words).backbone)
    config = {name: value for name, value in read_config(run).items() if name != "chosen"}  # as of an older run
    write_config(tmp_path / "run", {**config, "backbone": backbone})
    row = next(report.table_rows([report.read_run(tmp_path / "run", "run")]))
    assert row["network"] == name
    assert row["way"] == f"sctn, {name}, horizon uniform, inhibition 3.0, patience 3"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metrics.jsonl", "5", "is damaged"),
        ("metrics.jsonl", "{", "is damaged"),
        ("evaluation/placing.json", '{"format": "multiravens-evaluation", "version": 1}', "is damaged"),
        (
            "evaluation/placing.json",
            ('"mean_return": 0.0', '"mean_return": "much"'),
            "is damaged: remove it and measure again",
        ),
        ("evaluation/placing.json", ('"weights"', '"height"'), "is damaged (weights): remove it and measure again"),
    ],
)
def test_a_damaged_run_is_one_line(
    name: str,
    content: str | tuple[str, str],
    message: str,
    run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    before = (damaged / name).read_text()
    (damaged / name).write_text(content if isinstance(content, str) else before.replace(*content))
    assert (damaged / name).read_text() != before
    assert report.main([f"runs=[{damaged}]", "gallery=0", f"out={tmp_path / 'report'}"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_run_against_itself_is_level(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([f"run={run}", "problems=[stacking]", "episodes=2", "beside=false", f"against={run}"]) == 0
    assert "is level with sctn" in capsys.readouterr().out


def test_an_agent_is_filmed(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert render.main([f"run={run}", "problem=stacking", "seed=100000", f"out={tmp_path / 'agent.png'}"]) == 0
    assert (tmp_path / "agent.png").stat().st_size > 10_000
    assert "not solved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "runs=[] names no run"), (["runs=[nowhere]"], "nowhere is not a run folder"), (["gallery=-1"], "gallery=-1")],
)
def test_a_report_of_nothing_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main([*words, *(["runs=[x]"] if words == ["gallery=-1"] else [])]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
