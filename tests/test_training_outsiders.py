"""The guide's loss, augmentation and agent, as an outsider adds them: one class, one YAML, outside the package."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import multiravens
from multiravens import demos, export, train, transfer
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.agents.training.trainer import Trainer
from multiravens.drawing import render
from multiravens.errors import UserError
from multiravens.evaluation import evaluate
from multiravens.experiments import report
from multiravens.options import trust
from multiravens.support.runs import METRICS, STATE, WEIGHTS, read_config
from tests import synthetic
from tests.test_outsider import ROOT, block
from tests.test_training import Asked, _Killed
from tests.tiny_training import MODULAR, TINY

GUIDE = "docs/agents.md"
MINE = ["--config-dir", "my_configs"]


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the guide's classes and YAMLs, in which the commands are given."""
    for name in ("counting", "brightness", "nearest"):
        (tmp_path / f"{name}.py").write_text(block(GUIDE, "python", f"`{name}.py`:"))
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("loss/holding", "augmentation/bright", "agent/nearest"):
        path = tmp_path / "my_configs" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block(GUIDE, "yaml", f"`my_configs/{name}.yaml`"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(trust, "_of_the_program", set())
    for problem in ("synthetic", "other"):
        synthetic.write(tmp_path / "data", 4, problem)
    return tmp_path


def lines(run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, METRICS).read_text().splitlines()]


def acts(run: str, problem: str = "") -> dict[str, np.ndarray]:
    episode = synthetic.episode(1)
    goals = list(zip(episode.color[1:], episode.height[1:], strict=True))
    return multiravens.load(run, problem).act(episode.color[0], episode.height[0], goals)


@pytest.mark.parametrize(
    "extra",
    [[], MODULAR, ["compile=eager"], ["precision=bf16-mixed"]],
    ids=["plain", "modular", "compiled", "in 16 bits"],
)
def test_a_loss_with_a_head_is_trained_told_saved_and_taken_up(
    extra: list[str], outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, *extra, *MINE, "loss=holding", "steps=7"]
    score = Trainer.score

    def watched(self: Trainer, inputs: Any) -> Any:
        if self.step == 3 and "killed" in str(self.folder) and not Path("killed/again").exists():
            raise _Killed
        with Asked() as asked:
            terms = score(self, inputs)
        assert asked.counted == 0
        return terms

    monkeypatch.setattr(Trainer, "score", watched)
    assert train.main([*words, "run=whole"]) == 0
    assert "loss holding" in capsys.readouterr().out
    with pytest.raises(_Killed):
        train.main([*words, "run=killed"])
    Path("killed/again").touch()
    assert train.main([*words, "run=killed"]) == 0
    for name in (WEIGHTS, STATE, METRICS):
        assert Path("whole", name).read_bytes() == Path("killed", name).read_bytes(), name
    told = lines("whole")
    assert all(0 <= line["holding_right"] <= 1 and line["loss_holding"] >= 0 for line in told)
    state, weights = (read_tensors(Path("whole", name))[0] for name in (STATE, WEIGHTS))
    assert not [name for name in weights if "holding" in name]
    heads = [name for name in state if name.startswith("losses.")]
    assert len(heads) == 2 and all(state[f"optimizer.exp_avg.{name}"].any() for name in heads)
    problem = "synthetic" if extra is MODULAR else ""
    assert acts("whole", problem)["pick_position"].shape == (3,)  # and needs nothing of the loss
    assert report.main(["runs=[whole]", "out=report"]) == 0
    assert "loss_holding" in Path("report/report.html").read_text()


def test_a_loss_of_weight_0_changes_nothing_and_one_of_1_does(outside: Path) -> None:
    for name, words in {
        "none": [],
        "zero": ["loss=holding", "loss.holding.weight=0.0"],
        "one": ["loss=holding"],
    }.items():
        assert train.main([*TINY, *MINE, *words, "steps=3", f"run={name}"]) == 0
    none, zero, one = (read_tensors(Path(name, WEIGHTS))[0] for name in ("none", "zero", "one"))
    for name, tensor in none.items():
        torch.testing.assert_close(zero[name], tensor)
    assert any(not torch.equal(one[name], tensor) for name, tensor in none.items())


def test_two_processes_train_a_head_as_one_does(outside: Path) -> None:
    command = [sys.executable, "-m", "multiravens.train", *TINY, *MINE, "loss=holding", "steps=3", "checkpoint_every=3"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{outside}"}
    for name in ("devices=1", "devices=2"):
        words = [*command, name, f"run={name[-1]}"]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    one, two = (read_tensors(Path(name, STATE))[0] for name in ("1", "2"))
    for name, tensor in one.items():
        if "exp_avg." in name:
            torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0)


def test_a_run_with_a_loss_of_ones_own_is_taught_more_where_its_user_allows_it(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([*TINY, *MODULAR, *MINE, "problems=[synthetic]", "loss=holding", "steps=1", "run=one"]) == 0
    words = ["run=one", "problem=other", "train=patch", "demos=2", "steps=1", "batch=2", "threads=1", "out=two"]
    assert transfer.main(words) == 2
    assert "names 'counting.Holding' for loss.holding, which is not a class of multi" in capsys.readouterr().err
    assert transfer.main([*words, *MINE, "log_every=1"]) == 0
    assert "loss_holding" in lines("two")[0]


def test_an_objective_is_named_by_the_agents_yaml(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (outside / "picks.py").write_text(
        "from multiravens.agents.training.objectives import Imitation\n\n\n"
        "class Picks(Imitation):\n"
        "    def __call__(self, model, batch, tasks):\n"
        "        terms = super().__call__(model, batch, tasks)\n"
        "        return terms._replace(losses={'pick': terms.losses['pick']})\n"
    )
    path = outside / "my_configs" / "agent" / "picking.yaml"
    path.write_text("defaults:\n  - sctn\n  - _self_\nname: picking\nobjective:\n  _target_: picks.Picks\n")
    assert train.main([*TINY, *MODULAR, *MINE, "agent=picking", "problems=[synthetic]", "steps=1", "run=picks"]) == 0
    assert "loss_pick" in lines("picks")[0] and "loss_place" not in lines("picks")[0]
    assert report.main(["runs=[picks]", "out=report"]) == 0  # and neither it nor acting needs the class
    assert acts("picks")["pick_position"].shape == (3,)
    words = ["run=picks", "problem=other", "train=patch", "demos=2", "steps=1", "batch=2", "threads=1", "out=two"]
    assert transfer.main(words) == 2 and "names 'picks.Picks' for agent.objective" in capsys.readouterr().err
    assert transfer.main([*words, *MINE]) == 0


def test_a_policy_is_named_by_the_agents_yaml(outside: Path) -> None:
    (outside / "halving.py").write_text(
        "from multiravens.agents.acting.policy import TransporterAgent\n\n\n"
        "class Halving(TransporterAgent):\n"
        "    def best(self, scores):\n"
        "        return super().best(scores._replace(turn=scores.turn / 2))\n"
    )
    path = outside / "my_configs" / "agent" / "halving.yaml"
    path.write_text("defaults:\n  - sctn\n  - _self_\npolicy:\n  _target_: halving.Halving\n")
    assert train.main([*TINY, *MINE, "agent=halving", "steps=1", "run=run"]) == 0
    robot = multiravens.load("run")  # of a folder that the command's user named
    assert type(robot.agent).__name__ == "Halving" and acts("run")["pick_position"].shape == (3,)


def test_an_augmentation_changes_colours_alike_in_observation_and_goals(
    outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    augment = Trainer.augment

    def noted(self: Trainer, batch: Any, drawn: Any) -> Any:
        before = self.augmentations["se2"].apply(batch, drawn["se2"])
        after = augment(self, batch, drawn)
        seen.append((before.images, after.images))
        return after

    monkeypatch.setattr(Trainer, "augment", noted)
    words = [*TINY, *MINE, "augmentation=bright", "steps=2"]
    assert train.main([*words, "run=bright"]) == 0
    for before, after in seen:
        change = (after - before).unflatten(1, (2, 4))
        assert (change[:, :, 3] == 0).all()
        colors = change[:, :, :3].flatten(1)
        assert (colors.amax(1) - colors.amin(1)).max() < 1e-5 and colors.abs().mean() > 0.02
        assert len(colors[:, 0].unique()) == 4  # each sample has its own
    drawn = [read_tensors(Path("bright", STATE))[0]["sampler.drawn"]]
    assert train.main([*TINY, "steps=2", "run=plain"]) == 0
    drawn.append(read_tensors(Path("plain", STATE))[0]["sampler.drawn"])
    assert torch.equal(*drawn)
    assert not torch.equal(*(next(iter(read_tensors(Path(run, WEIGHTS))[0].values())) for run in ("bright", "plain")))
    seen.clear()
    monkeypatch.setattr(Trainer, "augment", augment)
    assert train.main([*words, "augmentation.brightness=null", "run=without"]) == 0
    assert Path("without", WEIGHTS).read_bytes() == Path("plain", WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "words", "message"),
    [
        ("brightness.Brightness", "brightness.Brigthness", ["augmentation=bright"], "choose from Brightness"),
        ("brightness.Brightness", "brightnes.Brightness", ["augmentation=bright"], "augmentation.brightness._target_="),
        ("brightness.Brightness", "collections.Counter", ["augmentation=bright"], "give a class of .*Augmentation"),
        ("spread: 0.2", "spred: 0.2", ["augmentation=bright"], "unknown parameter of augmentation.brightness 'spred'"),
        ("", "", ["augmentation=brigth"], "unknown augmentation 'brigth': choose from bright"),
        ("", "", ["loss=holdin"], "unknown loss 'holdin': choose from holding"),
        ("_partial_: true", "", ["loss=holding"], "loss.holding needs a value for 'network'"),
        ("weight: 0.1", "weight: .nan", ["loss=holding"], "loss.holding.weight=nan: give a finite number"),
        ("holding:", "pick:", ["loss=holding"], "two figures of a step are called loss_pick: call"),
        ("_partial_: true", "", ["agent=nearest"], "needs a value for 'spec'"),
        ("nearest.Nearest", "torch.nn.Identity", ["agent=nearest"], "agent.network makes a Identity: give a class of"),
    ],
)
def test_what_is_misspelt_is_one_line(
    old: str, new: str, words: list[str], message: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    group, _, name = words[0].partition("=")
    if old:
        path = outside / "my_configs" / group / f"{name}.yaml"
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))
    own = [word for word in TINY if not word.startswith("backbone") or group != "agent"]
    assert train.main([*own, *MINE, *words, "run=run"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and len(error.strip().splitlines()) == 1, error
    assert not Path("run", WEIGHTS).exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("** 2, {", ".mean(), {", r"holding has shape \[\]: give one number for each sample, \[4\]"),
        ("[:-1]", "", r"the labels of loss holding are float32 of shape \(3,\) for a demonstration of 2 steps"),
    ],
)
def test_a_loss_of_the_wrong_shape_is_one_line(
    old: str, new: str, message: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = outside / "counting.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    assert train.main([*TINY, *MINE, "loss=holding", "run=run"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"row"', '"step"', "two figures of a step are called step: call the one of your own by another name"),
        ("at.float()", "at", ""),  # numbers of any kind
        ('figures={"row": at.float()}', "figures={}", "the agent gives neither losses nor figures of its samples"),
        (
            "self.factor = factor",
            "self.factor, self.bias = factor, torch.nn.Parameter(torch.zeros(1))",
            "gives no loss",
        ),
    ],
)
def test_an_agent_that_says_too_little_is_one_line(
    old: str, new: str, message: str, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = outside / "nearest.py"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    own = [word for word in TINY if not word.startswith("backbone")]
    assert train.main([*own, *MINE, "agent=nearest", "run=run"]) == (2 if message else 0)
    assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_agent_that_is_no_transporter_goes_the_whole_way(
    outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = ["problem=placing", "problem.modules.placing.parts=1"]
    assert demos.main([*problem, "split=test", "episodes=3", "data=data"]) == 0
    few = ["split=test", "demos=3", "steps=40", "batch=2", "log_every=10", "checkpoint_every=20", "threads=1"]
    words = [*MINE, "agent=nearest", "augmentation=none", "problems=[placing]", *few]
    assert train.main([*words, "run=run"]) == 0
    assert "row" in lines("run")[-1] and "0 parameters" in capsys.readouterr().out
    assert train.main([*words, "run=half", "minutes=0.000001"]) == 0  # stopped after a step
    assert train.main([*words, "run=half"]) == 0
    for name in (WEIGHTS, STATE):
        assert Path("run", name).read_bytes() == Path("half", name).read_bytes(), name
    # In the episodes of its demonstrations it does what was done there.
    assert evaluate.main([*MINE, "run=run", "episodes=3", "data=data"]) == 0
    found = json.loads(Path("run/evaluation/placing.json").read_text())
    assert found["summary"]["full_success"] == 1 and found["beside"]["random"]["summary"]["full_success"] < 1
    capsys.readouterr()
    assert evaluate.main(["run=run", "episodes=1"]) == 2  # without a word of whose class it is
    assert "names 'nearest.Nearest' for agent.network, which is not a class of multi" in capsys.readouterr().err
    with pytest.raises(UserError, match="names 'nearest.Nearest' for agent.network"):
        acts("run")
    multiravens.allow("nearest.Nearest")
    assert acts("run")["place_position"].shape == (3,)
    assert report.main([*MINE, "runs=[run]", "gallery=1", "out=report"]) == 0
    assert "nearest" in Path("report/report.md").read_text() and list(Path("report").glob("*episode*.png"))
    film = ["run=run", "problem=placing", "problem.modules.placing.parts=1", "seed=100000", "out=nearest.png"]
    assert render.main([*MINE, *film]) == 0 and Path("nearest.png").stat().st_size > 10_000
    assert export.main([*MINE, "run=run", "out=agent"]) == 0
    assert "`Nearest` (rows=1000)" in Path("agent/README.md").read_text()
    assert transfer.main([*MINE, "run=run", "problem=stacking", "data=data"]) == 2
    assert "error: nearest is no Transporter, which alone is taught more" in capsys.readouterr().err
    assert read_config(Path("run"))["chosen"]["backbone"] == "nearest"
