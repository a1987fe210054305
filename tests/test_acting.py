"""Options of how an agent acts: one object, whose options a command, a run and an evaluation share."""

from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from multiravens import train
from multiravens.agents.acting.load import load_agent
from multiravens.agents.acting.options import PLAIN, Acting
from multiravens.errors import UserError
from multiravens.evaluation.evaluate import main as evaluate
from multiravens.options.compose import compose
from multiravens.options.defaults import choices
from multiravens.support.runs import ACTING, CONFIG, read_config
from tests import synthetic
from tests.test_own_name import TINY

NAMES = [each.name for each in fields(Acting)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("acting")
    synthetic.write(folder / "data", 1)
    words = [*TINY, "problems=[synthetic]", f"data={folder / 'data'}", f"run={folder / 'run'}", "patience=2"]
    assert train.main(words) == 0
    return folder / "run"


def test_every_choice_and_command_has_the_objects_options() -> None:
    files = choices("acting")
    assert all(list(content) == NAMES for content in files.values())
    assert Acting(**files["plain"]) == PLAIN and ["pointer", *ACTING] == NAMES
    assert set(files["as_trained"].values()) == {None}
    for command, choice in (("train", "standard"), ("evaluate", "as_trained"), ("render", "as_trained")):
        assert {name: compose(command)[name] for name in NAMES} == files[choice]


def test_what_is_given_goes_before_what_the_run_says(run: Path) -> None:
    assert load_agent(run).acting == Acting("reward", 3.0, 2)
    assert load_agent(run, patience=0, pointer="visual", inhibition=None).acting == Acting("visual", 3.0, 0)
    config = compose("evaluate", ["agent=oracle", "acting=plain", "patience=5"])
    assert load_agent(run, **{name: config[name] for name in NAMES}).acting == Acting("reward", 0.0, 5)


def test_a_run_that_is_older_than_an_option_acts_without_it(run: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((run / CONFIG).read_text())
    (tmp_path / CONFIG).write_text(yaml.safe_dump({name: config[name] for name in config if name not in ACTING}))
    assert Acting.of(read_config(tmp_path)) == PLAIN


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("patienc=3", "unknown option 'patienc': choose from patience"),
        ("acting=plane", "unknown acting 'plane': choose from plain"),
        ("pointer=visal", "unknown pointer 'visal': choose from visual"),
        ("pointer=3", "unknown pointer '3': choose from reward, visual"),
        ("inhibition=[1]", "give a number, such as 3.0"),
    ],
)
def test_a_misspelt_option_is_one_line(word: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate([f"run={run}", word]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_option_that_there_is_not_is_refused_in_python(run: Path) -> None:
    with pytest.raises(UserError, match="unknown option of acting 'patienc': choose from patience"):
        load_agent(run, patienc=3)
