"""Suites: ours as they were, a user's with a module from outside in every command, mistakes in one line."""

import json
import sys
from pathlib import Path

import gymnasium
import pytest
import yaml

from multiravens import demos, train
from multiravens.data.__main__ import main as data
from multiravens.drawing import render
from multiravens.envs import PROBLEMS
from multiravens.errors import UserError
from multiravens.evaluation import evaluate
from multiravens.experiments.sweep import plan
from multiravens.options import search
from multiravens.options.compose import compose
from multiravens.options.problems import parse_problems
from multiravens.registration import read_suites
from tests.test_outsider import outside
from tests.test_own_name import TINY

__all__ = ["outside"]  # a fixture

MINE = ["--config-dir", "my_configs"]


@pytest.fixture(autouse=True)
def forget() -> None:
    search.look_in([])


def test_ours_are_the_combinations_of_the_four_modules() -> None:
    assert parse_problems("fifteen") == parse_problems("all") == list(PROBLEMS) and len(PROBLEMS) == 15
    assert parse_problems("ten") == [name for name in PROBLEMS if name.count("-") in (1, 2)]
    assert sum(name.startswith("multiravens/") for name in gymnasium.registry) == 15


def test_a_problems_modules_come_in_any_order_and_data_sets_of_ones_own_stay_as_they_are() -> None:
    names = ["stacking-placing", "placing-stacking", "placing-placing", "wood-placing", "synthetic"]
    assert parse_problems(names) == ["placing-stacking", "placing-placing", "wood-placing", "synthetic"]


def test_a_module_of_a_composed_problem_may_be_exchanged() -> None:
    config = compose(
        "environment", ["problem=placing-placing", "module@problem.modules.placing_2=stacking", "domain=null"]
    )
    assert [part._target_.rpartition(".")[2] for part in config.problem.modules.values()] == ["Placing", "Stacking"]


@pytest.fixture
def suite(outside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The suite of docs/environment.md with the README's module, both from outside."""
    (Path(outside) / "my_configs" / "suite").mkdir()
    told = (Path(__file__).parents[1] / "README.md").read_text()
    block = told[told.index("`my_configs/suite/mine.yaml`:") :].split("```yaml\n")[1].split("```")[0]
    (outside / "my_configs" / "suite" / "mine.yaml").write_text(block)
    monkeypatch.chdir(outside)
    monkeypatch.syspath_prepend(str(outside))
    monkeypatch.delitem(sys.modules, "sorting", raising=False)
    return outside


def test_a_users_suite_goes_through_every_command(suite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = ["sorting", "sorting-stacking"]
    assert demos.main(["problems=mine", "episodes=1", *MINE]) == 0
    assert sorted(path.name for path in Path("data").iterdir()) == expected
    assert train.main([*TINY, "problems=mine", "run=runs/mine", *MINE]) == 0
    assert yaml.safe_load(Path("runs/mine/config.yaml").read_text())["problems"] == expected
    assert evaluate.main(["agent=random", "problems=mine", "episodes=1", "beside=false", "out=random", *MINE]) == 0
    assert sorted(path.stem for path in Path("random").iterdir()) == expected
    assert json.loads(Path("random/sorting-stacking.json").read_text())["environment"]["problem"]["name"] == expected[1]
    table = {"name": "own", "train": [*TINY, "problems=mine"], "evaluate": [], "parts": [{"agent": ["sctn"]}]}
    Path("my_configs/table").mkdir()
    Path("my_configs/table/own.yaml").write_text(json.dumps(table))
    search.look_in(["my_configs"])
    assert plan(compose("sweep", ["table=own"]))["sctn"].problems == expected
    assert render.main(["problem=mine", "out=mine.png", "size=[160,160]", *MINE]) == 0
    assert "mine.png: 2 problems" in capsys.readouterr().out
    assert data(["pack", "data", "--problems", "ten", "--out", "no.safetensors"]) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "modules: [sortin, stacking]\ntogether: [2]",
            "module in the problem 'sortin-stacking', 'sortin': choose from sorting",
        ),
        ("problems: [placng]", "unknown problem 'placng': choose from placing"),
        ("modules: [sorting]\ntogether: [2]", r"mine.yaml has \[2\] for together: give numbers from 1 to 1"),
        ("modules: [sorting]\ntogther: [1]", "key in .*mine.yaml 'togther': choose from together"),
        ("modules: sorting", "has 'sorting' for modules: give a list of names"),
        ("problems: []", "mine.yaml has no problems: give 1 to 1000"),
        ("problems: [a, b", "mine.yaml is not valid YAML"),
        ("", "mine.yaml is no suite"),
    ],
)
def test_a_suite_that_is_none_is_one_line(content: str, message: str, suite: Path) -> None:
    (suite / "my_configs" / "suite" / "mine.yaml").write_text(content)
    search.look_in(["my_configs"])
    with pytest.raises(UserError, match=message) as error:
        parse_problems("mine")
    assert "\n" not in str(error.value)


def test_a_suite_of_too_many_problems_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "suite").mkdir()
    names = ", ".join(f"m{index}" for index in range(60))
    (tmp_path / "suite" / "all_of_them.yaml").write_text(f"modules: [{names}]\ntogether: [30]")
    with pytest.raises(UserError, match="has more than 1000 problems"):
        read_suites([tmp_path])


@pytest.mark.parametrize(
    ("main", "words", "message"),
    [
        (demos.main, ["problems=tne"], "unknown problem 'tne': choose from ten,"),
        (demos.main, ["problem=ten"], "ten is a suite, not a problem: give problems=ten"),
        (demos.main, ["problems=ten", "problem.order=shuffled"], "leave out problem= and problem.* options"),
        (evaluate.main, ["agent=random", "problems=fiften"], "unknown problem 'fiften': choose from fifteen,"),
        (train.main, ["problems=tne"], "unknown problem 'tne': choose from ten,"),
        (train.main, ["problems=[placng]"], "unknown problem 'placng': choose from placing,"),
        (train.main, ["problems=placing"], "make them with `python -m multiravens.demos problem=placing"),
        (render.main, ["problem=tne", "out=x.png"], "unknown problem 'tne': choose from ten,"),
        (render.main, ["problem=ten", "out=x.mp4"], ".png"),
    ],
)
def test_a_misspelt_name_is_one_line_the_nearest_first(
    main: object, words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [*words, f"data={tmp_path / 'data'}"] if main in (demos.main, train.main) else words
    assert main(given) == 2  # type: ignore[operator]
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
