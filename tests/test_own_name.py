"""A problem under a name of one's own goes the whole way: demonstrations, training, evaluation, video, export."""

import json
import sys
from pathlib import Path

import pytest

from multiravens import demos, export, train
from multiravens.drawing import render
from multiravens.evaluation import evaluate
from tests.test_outsider import outside

TINY = ["backbone=small", "backbone.network.width=8", "backbone.network.depth=0", "backbone.network.fine=8"]
TINY += ["demos=1", "steps=1", "batch=1", "log_every=1", "checkpoint_every=1", "threads=1"]

__all__ = ["outside"]  # a fixture


def test_a_problem_in_a_domain_is_trained_measured_and_filmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["problem=placing", "domain=wood", "problem.name=placing-wood", "problem.modules.placing.parts=1"]
    assert demos.main([*words, "episodes=1"]) == 0
    assert train.main([*TINY, "problems=[placing-wood]", "run=runs/wood"]) == 0
    assert evaluate.main(["run=runs/wood", "episodes=1", "beside=false"]) == 0
    found = json.loads(Path("runs/wood/evaluation/placing-wood.json").read_text())
    assert found["environment"]["camera"]["domain"]["texture"] == "wood"
    words = ["run=runs/wood", "problem=placing-wood", "seed=100000", "problem.max_steps=1"]
    assert render.main([*words, "out=wood.png"]) == 0
    assert "wood.png: placing-wood, seed 100000, 1 steps" in capsys.readouterr().out
    assert export.main(["run=runs/wood", "out=agent"]) == 0
    assert render.main(["run=runs/wood", "problem=placing-wod", "out=no.png"]) == 2
    assert "unknown" in capsys.readouterr().err


def test_the_readmes_module_is_trained_measured_and_filmed(
    outside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(outside)
    monkeypatch.syspath_prepend(str(outside))
    monkeypatch.delitem(sys.modules, "sorting", raising=False)
    mine = ["--config-dir", "my_configs"]
    assert demos.main(["problem=sorting", "problem.modules.sorting.cubes=1", "episodes=1", *mine]) == 0
    assert train.main([*TINY, "problems=[sorting]", "run=runs/sorting"]) == 0
    words = ["run=runs/sorting", "episodes=1", "beside=false"]
    assert evaluate.main(words) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "'sorting.Sorting'" in error and "--config-dir" in error
    assert evaluate.main([*words, *mine]) == 0
    words = ["run=runs/sorting", "problem=sorting", "seed=100000", "out=sorting.png"]
    assert render.main(words) == 2
    assert render.main([*words, "--allow", "sorting.Sorting"]) == 0
    assert Path("sorting.png").stat().st_size > 10_000
