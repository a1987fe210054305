"""Runs that are older than an option or than a default: what they are taken to have, and what they are called."""

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from multiravens import train, transfer
from multiravens.experiments import report
from multiravens.options import search as configuration
from multiravens.options.defaults import chosen_names, defaults_of, differing_options
from multiravens.options.search import CONFIGS
from multiravens.support.runs import CONFIG, WEIGHTS, read_config, write_config
from tests import synthetic

WORDS = ["backbone=small", "agent=sctn", "problems=[synthetic]", "demos=2", "steps=1", "batch=2", "threads=1"]
NAMES = {"backbone": "small", "task_sampling": "uniform", "step_sampling": "uniform"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data` and a trained `run`."""
    folder = tmp_path_factory.mktemp("defaults")
    synthetic.write(folder / "data", 2)
    assert train.main([*WORDS, f"data={folder / 'data'}", f"run={folder / 'run'}"]) == 0
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """The run, to be changed."""
    return shutil.copytree(made / "run", tmp_path / "run")


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Our configurations, to be changed."""
    copied = shutil.copytree(CONFIGS, tmp_path / "configs")
    monkeypatch.setattr(configuration, "CONFIGS", copied)
    return copied


def without(config: dict[str, Any], *names: str) -> dict[str, Any]:
    """As a run's configuration would be if it had been made before these options existed."""
    config = copy.deepcopy(config)
    for name in names:
        *groups, last = name.split(".")
        node = config
        for group in groups:
            node = node[group]
        del node[last]
    return config


def test_options_that_a_run_is_older_than_have_their_defaults(made: Path, run: Path) -> None:
    config, weights = read_config(run), (run / WEIGHTS).read_bytes()
    later = ("ema", "augmentation.se2.shift", "loss", "agent.reach", "backbone.network.fine", "step_sampling", "chosen")
    write_config(run, without(config, *later))
    assert train.main([*WORDS, f"data={made / 'data'}", f"run={run}"]) == 0
    assert (run / WEIGHTS).read_bytes() == weights
    assert read_config(run) == {**config, "run": str(run)}


def test_options_other_than_the_defaults_that_a_run_had_are_refused(
    made: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_config(run, without(read_config(run), "ema"))
    before = (run / CONFIG).read_bytes()
    assert train.main([*WORDS, f"data={made / 'data'}", f"run={run}", "ema=0.5"]) == 2
    assert "holds a run with other options (ema: None there, 0.5 now)" in capsys.readouterr().err
    assert (run / CONFIG).read_bytes() == before


@pytest.mark.parametrize(
    ("later", "words", "expected"),
    [
        ([], [], []),
        (["ema"], ["ema=0.5"], ["ema"]),
        (["compile"], [], []),
        (["backbone.network.fine"], ["backbone.network.fine=8"], ["backbone.network.fine"]),
        (["step_sampling"], ["step_sampling=subgoal"], ["step_sampling._target_"]),
        (["warmup"], ["backbone=base"], ["backbone.network.width"]),
        ([], ["backbone=resnet43", "agent=gctn"], None),
        (["warmup"], ["backbone=modular", "backbone.network.depth=6"], None),
        (["agent.conditioning.ahead"], ["agent=transporter"], ["agent.conditioning._target_", "agent.name"]),
    ],
)
def test_what_differs_is_told_of_options_that_are_there_and_of_later_ones(
    later: list[str], words: list[str], expected: list[str] | None
) -> None:
    before, now = synthetic.configured(*WORDS), synthetic.configured(*WORDS, *words)
    found = differing_options(without(before, *later), now)
    assert found == expected if expected is not None else found


def test_an_older_run_of_transfer_has_the_defaults_of_transfer() -> None:
    now = {"transfer": {"problem": "placing", "labels": defaults_of("transfer")["labels"]}}
    assert differing_options({"transfer": {"problem": "placing"}}, now) == []
    assert differing_options({"transfer": {"problem": "placing"}}, {"transfer": {"labels": "none"}}) == [
        "transfer.labels",
        "transfer.problem",
    ]


def test_a_run_keeps_the_names_of_its_choices_when_defaults_change(run: Path, configs: Path) -> None:
    path = configs / "backbone" / "small.yaml"
    path.write_text(path.read_text().replace("width: 32", "width: 48"))
    assert chosen_names(read_config(run)) == NAMES
    assert chosen_names(without(read_config(run), "chosen")) == {**NAMES, "backbone": "isometric"}


def test_an_older_run_is_named_by_todays_choices_that_have_its_values(run: Path) -> None:
    older = without(read_config(run), "chosen")
    assert chosen_names(older) == NAMES
    assert chosen_names(without(older, "backbone.network.fine")) == NAMES
    wider = copy.deepcopy(older)
    wider["backbone"]["network"]["width"] = 48
    assert chosen_names(wider) == {**NAMES, "backbone": "isometric"}


def test_a_users_own_choice_is_named_as_its_file(made: Path, tmp_path: Path) -> None:
    small = yaml.safe_load((CONFIGS / "backbone" / "small.yaml").read_text())
    small["network"] |= {"width": 16, "depth": 1}
    for group, content in {
        "backbone": small,
        "task_sampling": {"_target_": "multiravens.data.training.sampling.AdaptiveTasks", "temperature": 3.0},
    }.items():
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / f"my_{group}.yaml").write_text(yaml.safe_dump(content))
    words = [f"data={made / 'data'}", f"run={tmp_path / 'run'}", "--config-dir", str(tmp_path / "mine")]
    assert train.main([*WORDS, "backbone=my_backbone", "task_sampling=my_task_sampling", *words]) == 0
    configuration.look_in([])
    assert chosen_names(read_config(tmp_path / "run")) == {
        "backbone": "my_backbone",
        "task_sampling": "my_task_sampling",
        "step_sampling": "uniform",
    }


def test_damaged_names_are_told(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_config(run, {**read_config(run), "chosen": {"backbone": 5}})
    assert report.main([f"runs=[{run}]", "gallery=0", f"out={run / 'report'}"]) == 2
    assert "its configuration has no valid chosen" in capsys.readouterr().err


def test_an_agent_older_than_an_option_can_be_taught(made: Path, run: Path) -> None:
    synthetic.write(made / "data", 2, "other")
    config = read_config(run)
    write_config(run, without(config, "ema", "augmentation", "chosen"))
    words = [f"run={run}", "problem=other", "train=full", "demos=2", "steps=1", "batch=2", f"data={made / 'data'}"]
    assert transfer.main([*words, f"out={run.parent / 'taught'}"]) == 0
    taught = read_config(run.parent / "taught")
    assert (taught["ema"], taught["augmentation"]) == (config["ema"], config["augmentation"])
    assert taught["chosen"] == NAMES


@pytest.mark.parametrize("backbone", ["small", "modular"])
def test_a_run_from_before_the_classes_moved_is_read_as_today(backbone: str, tmp_path: Path) -> None:
    config = synthetic.configured(f"backbone={backbone}", "task_sampling=adaptive")
    today: Any = {key: value for key, value in config.items() if key not in ("trainer", "run", "loss")}
    older = without(today, "agent.network", "agent.objective", "agent.policy", "augmentation.se2._target_")
    older["augmentation"] = older["augmentation"]["se2"]
    if backbone == "modular":
        modular = "multiravens.agents.networks.modular.parts.adapter.Adapter"
        today["backbone"]["streams"]["added"] = {"one": {"adapter": {"_target_": modular, "rank": 3}}}
        parts = older["backbone"]["streams"].pop("parts")
        del parts["order"]["_target_"]
        older["backbone"]["streams"] |= {**parts["order"], "adapters": {"one": 3}}
    write_config(tmp_path, older)
    written = (tmp_path / CONFIG).read_text()
    before = written
    for rooms in ("agents.acting", "agents.networks"):
        before = before.replace(f"multiravens.{rooms}.", "multiravens.agents.")
    before = before.replace("agents.modular.streams.", "agents.modular.").replace(
        "data.training.sampling", "data.sampling"
    )
    assert before.count("_target_") == written.count("_target_") and "acting" not in before.replace("# acting", "")
    (tmp_path / CONFIG).write_text(before)
    assert read_config(tmp_path) == {**today, "version": 1}
