"""Runs, environments and data sets from a stranger: one line, nothing run, nothing built that is large, no hang."""

import copy
import json
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf

import multiravens
from multiravens import cli
from multiravens.agents.acting.load import build, load_agent
from multiravens.agents.networks.checkpoint import write_tensors
from multiravens.data.storage.store import Store
from multiravens.errors import UserError
from multiravens.evaluation import evaluate
from multiravens.experiments.report import read_run
from multiravens.options import trust
from multiravens.options.compose import compose
from multiravens.options.plain import parse_yaml, plain
from multiravens.support.run_environment import environment_of
from multiravens.support.runs import CONFIG, EVALUATION, METRICS, WEIGHTS, read_config, write_config

TINY = ["backbone=small", "backbone.network.width=8", "backbone.network.depth=0", "backbone.network.fine=8"]
TINY += ["agent.features=1", "problems=[kit]", "inhibition=0", "patience=0"]
SECONDS = 4.0
"""The fuzz test stops making new cases after so long; on a slow machine it makes fewer of the same ones."""


def _plain(config: Any) -> dict[str, Any]:
    container = OmegaConf.to_container(config, resolve=True)
    assert isinstance(container, dict)
    return {str(key): value for key, value in container.items()}


def _environment() -> dict[str, Any]:
    composed = _plain(compose("environment", ["problem=placing", "problem.name=kit", "domain=wood"]))
    return {name: composed[name] for name in ("problem", "camera", "motion")}


AGENT = _plain(compose("train", TINY))
ENVIRONMENT = _environment()


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as training leaves it, with a network of random weights."""
    folder = tmp_path_factory.mktemp("honest")
    config = {name: value for name, value in AGENT.items() if name != "trainer"}
    torch.manual_seed(0)
    network, _ = build(config)
    write_config(folder, {**config, "environment": {"kit": ENVIRONMENT}})
    write_tensors(folder / WEIGHTS, network.state_dict(), {"step": 1})
    return folder


@pytest.fixture
def run(honest: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(honest, tmp_path / "run"))


def _set(node: Any, path: str, value: object) -> None:
    *steps, last = path.split(".")
    for step in steps:
        node = node[step]
    node[last] = value


def _change(run: Path, path: str, value: object) -> None:
    config = read_config(run)
    _set(config, path, value)
    (run / CONFIG).write_text(yaml.safe_dump(config))


def test_an_honest_run_is_loaded_and_its_environment_composed(run: Path) -> None:
    assert load_agent(run).name == "sctn"
    assert environment_of("kit", [], read_config(run)) == ENVIRONMENT


OURS = [
    "multiravens.load",
    "multiravens.drawing.video.Video",
    "multiravens.evaluation.workers.VectorEnv",
    "multiravens.data.storage.writer.EpisodeWriter",
]
OURS += ["multiravens.sim.domain.Domain", "multiravens.sim.motion.ArmMotion"]
OURS += ["multiravens.evaluation.evaluate.find_run"]
OURS += ["multiravens.envs.problem.Problem", "multiravens.envs.make", "multiravens.cli.os.system", "multiravens"]
FOREIGN = ["os.system", "subprocess.Popen", "builtins.exec", "numpy.load", "torch.load", "outsider.Sorting", "x"]


@pytest.mark.parametrize("target", [*OURS, *FOREIGN, "", "..", 5, None, ["os.system"], {"_target_": "os.system"}])
def test_a_place_builds_what_it_is_for_and_nothing_else_of_ours(target: object) -> None:
    for path in ("agent.conditioning", "backbone.network", "fusion", "task_sampling", "step_sampling"):
        parts = {name: AGENT[name] for name in ("agent", "backbone", "fusion", "task_sampling", "step_sampling")}
        parts = copy.deepcopy(parts)
        _set(parts, f"{path}._target_", target)
        with pytest.raises(UserError, match="only classes of") as error:
            trust.check_parts(parts, "a run")
        assert "\n" not in str(error.value)
    for path in ("problem", "problem.modules.placing", "camera", "camera.domain", "motion"):
        own = copy.deepcopy(ENVIRONMENT)
        if {"camera.domain": OURS[4], "motion": OURS[5]}.get(path) == target:
            continue  # which is what they are for
        _set(own, f"{path}._target_", target)
        with pytest.raises(UserError, match="not a class of multiravens") as error:
            environment_of("kit", [], {"environment": {"kit": own}})
        assert "\n" not in str(error.value)


def test_a_class_where_nothing_is_built_is_refused(run: Path) -> None:
    _change(run, "agent.features", {"_target_": "multiravens.sim.cameras.Orthographic"})
    with pytest.raises(UserError, match=r"for agent.features, .*Nothing is built there"):
        load_agent(run)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("camera._args_", [1], "only _target_ and _partial_ are taken"),
        ("camera._partial_", True, "_partial_=True"),
        ("motion._convert_", "all", "only _target_ and _partial_ are taken"),
        ("motion.slip", "${oc.env:HOME}", "values of a run are plain"),
        ("camera", {}, "builds nothing"),
        ("problem.modules", [], "it has no modules"),
    ],
)
def test_an_environment_is_plain_and_whole(path: str, value: object, message: str) -> None:
    own = copy.deepcopy(ENVIRONMENT)
    _set(own, path, value)
    with pytest.raises(UserError, match=message):
        environment_of("kit", [], {"environment": {"kit": own}})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("problem.max_steps", 1e12, "give an integer or null"),
        ("problem.max_steps", 10**12, "give 1 to 1000"),
        ("problem.modules.placing.parts", "4", "problem.modules.placing.parts|parts='?4'?: give an integer"),
        ("problem.modules.placing.parts", True, "give an integer"),
        ("problem.modules.placing", "placing", "modules=.*TaskModule, by its _target_ for each name"),
        ("camera.domain", "wood", "give a Domain, by its _target_ or null"),
        ("camera.domain.table", [0.1, 0.2], "give a list of 3 or null"),
        ("camera.domain.hue", "red", "give a number"),
        ("camera.domain.hues", 1, "unknown parameter"),
    ],
)
def test_values_are_of_the_types_that_constructors_declare(path: str, value: object, message: str) -> None:
    from multiravens.options.instantiate import instantiate

    own = copy.deepcopy(ENVIRONMENT)
    _set(own, path, value)
    found = environment_of("kit", [], {"environment": {"kit": own}})
    with pytest.raises(UserError, match=message):
        for part in found.values():
            instantiate(part)


def _sorting(run: Path) -> None:
    _change(run, "environment.kit.problem.modules.placing", {"_target_": "outsider.Sorting", "bins": 3})


def test_a_users_class_is_built_where_the_user_names_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _sorting(run)
    trained = read_config(run)
    with pytest.raises(
        UserError, match=r"--config-dir .*--allow outsider.Sorting.*multiravens.allow\('outsider.Sorting'"
    ):
        environment_of("kit", [], trained)
    monkeypatch.setattr(trust, "_of_the_program", set())
    multiravens.allow("outsider.Sorting")
    assert environment_of("kit", [], trained)["problem"]["modules"]["placing"]["bins"] == 3


@pytest.mark.parametrize("how", ["--allow", "--config-dir"])
def test_a_command_allows_what_its_user_names_and_forgets_it(how: str, run: Path, tmp_path: Path) -> None:
    _sorting(run)
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "sorting.yaml").write_text("_target_: outsider.Sorting\n")
    found = []

    def task(config: Any) -> None:
        found.append(environment_of("kit", [], read_config(run)))

    flag = [how, "outsider.Sorting" if how == "--allow" else str(tmp_path)]
    assert [cli.run(task, "evaluate", flag), cli.run(task, "evaluate", [])] == [0, 2]
    assert len(found) == 1


@pytest.mark.parametrize("name", ["multiravens.drawing.video.Video", "sorting", "a b.c", ""])
def test_only_classes_of_others_can_be_allowed(name: str) -> None:
    with pytest.raises(UserError, match="allow "):
        multiravens.allow(name)


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {k: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "more than 200000 values, its aliases written out"),
        (MERGES, "merge keys"),
        ("a: &a [*a]", "nested more than 32 deep"),
        ("a: &a {b: *a}", "nested more than 32 deep"),
        ("[" * 1500, "not valid YAML"),
        ("a: 1.0e+400", "a: numbers are finite"),
        ("a: .nan", "a: numbers are finite"),
        ("a: 99999999999999999999", "whole numbers are below"),
        ("a: 2026-01-01", "values are texts, numbers"),
        ("1: a", "names are texts"),
        ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_yaml_from_a_stranger_is_counted_before_it_is_looked_at(text: str, message: str, run: Path) -> None:
    (run / CONFIG).write_text(text)
    with pytest.raises(UserError, match=message) as error:
        read_config(run)
    assert "\n" not in str(error.value)


def test_aliases_that_are_few_are_values_of_their_own() -> None:
    found = parse_yaml("a: &a [1]\nb: *a", "it")
    assert found == {"a": [1], "b": [1]} and found["a"] is not found["b"]
    assert plain({"a": (1 << 62)}, "it") == {"a": 1 << 62}


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path), os.mkdir])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS, METRICS, f"{EVALUATION}/kit.json"])
def test_what_is_no_regular_file_is_not_read(make: Callable[[Path], None], name: str, run: Path) -> None:
    (run / EVALUATION).mkdir()
    (run / name).unlink(missing_ok=True)
    make(run / name)
    with pytest.raises(UserError):
        load_agent(run)
        read_run(run, "run")


def test_a_file_that_is_too_large_is_not_read(run: Path) -> None:
    os.truncate(run / CONFIG, 2**40)
    with pytest.raises(UserError, match="too large to be ours"):
        read_config(run)


@pytest.mark.parametrize("size", [2**40, 100])
def test_weights_of_another_size_than_the_network_are_not_read(size: int, run: Path) -> None:
    os.truncate(run / WEIGHTS, size)
    with pytest.raises(UserError, match="cut short, or of another network"):
        load_agent(run)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(value: float, run: Path) -> None:
    network, _ = build(read_config(run))
    tensors = network.state_dict()
    next(iter(tensors.values())).flatten()[0] = value
    write_tensors(run / WEIGHTS, tensors, {"step": 1})
    with pytest.raises(UserError, match="not finite"):
        load_agent(run)


def test_weights_whose_scores_are_not_finite_choose_no_action(run: Path) -> None:
    network, _ = build(read_config(run))
    write_tensors(run / WEIGHTS, {name: each * 0 + 1e30 for name, each in network.state_dict().items()}, {"step": 1})
    picture = np.full((320, 160, 3), 90, np.uint8), np.zeros((320, 160), np.float32)
    with pytest.raises(UserError, match="scores of sctn are not finite"):
        multiravens.load(str(run)).act(*picture, [picture])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("agent.features", 10**9),
        ("agent.features", 1000),  # no limit of ours, but not what the weights are of
        ("agent.rotations", 10**6),
        ("agent.crop", 100.0),
        ("agent.conditioning.ahead", 10**9),
        ("backbone.network.depth", 10**9),
        ("backbone.network.width", 10**9),
        ("problems", [f"p{index}" for index in range(3000)]),
    ],
)
def test_a_network_larger_than_its_weights_is_not_built(path: str, value: object, run: Path) -> None:
    _change(run, path, value)
    with pytest.raises(UserError):
        load_agent(run)


@pytest.mark.parametrize("name", ["../../outside", "/tmp/x", "a/b", "", "a\nb", ".hidden"])
def test_a_problems_name_can_not_lead_out_of_a_folder(name: str, run: Path) -> None:
    config = read_config(run)
    for changed in ({"problems": [name]}, {"environment": {name: ENVIRONMENT}}):
        (run / CONFIG).write_text(yaml.safe_dump(config | changed))
        with pytest.raises(UserError, match="names a problem"):
            read_config(run)


VALUES: list[object] = [None, True, 0, -1, 1, 7, 10**9, 10**30, 0.0, -0.5, 1e12, 1e300, float("nan"), float("inf"), ""]
VALUES += ["x", "../../x", "/dev/zero", "${oc.env:HOME}", "???", "a" * 70_000, [], [[]], [1] * 9, {}, {"a": {}}]
VALUES += [{"_target_": target} for target in (*OURS, *FOREIGN)]
VALUES += [{"_target_": "multiravens.sim.cameras.RealSense"}, {"_args_": []}, {"mesh": "/dev/zero"}, {1: 2}, b"x"]


def _places(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
        yield from _places(node[key], (*path, key))


def _mutated(text: str, rng: random.Random) -> str:
    """A configuration with one to three values changed, removed, added or moved, or its text damaged."""
    if rng.random() < 0.15:
        at, size = rng.randrange(len(text)), rng.randrange(1, 40)
        return (
            text[:at]
            + rng.choice(["", "&a [*a]", "{", "\x00", "\t", "!!python/name:os.system", "- "])
            + text[at + size :]
        )
    config = yaml.safe_load(text)
    for _ in range(rng.randint(1, 3)):
        *steps, last = rng.choice([each for each in _places(config) if each[-1] != "version"])
        node = config
        for step in steps:
            node = node[step]
        kind = rng.random()
        if kind < 0.7:
            node[last] = rng.choice(VALUES)
        elif kind < 0.8 or not isinstance(node, dict):
            del node[last]
        else:
            node[rng.choice(["_target_", "_partial_", "_args_", "domain", "x.y", "goals", "adapters"])] = node[last]
    return yaml.dump(config)


def test_a_thousand_hostile_runs_are_built_or_refused_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multiravens.options.instantiate import instantiate

    honest, rng, refused = (run / CONFIG).read_text(), random.Random(0), 0
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    started = time.monotonic()
    for count in range(1, 1001):
        (run / CONFIG).write_text(_mutated(honest, rng), encoding="utf-8", errors="replace")
        try:
            agent = load_agent(run)
            trained = read_config(run)
            for problem in trained.get("environment", {}):
                for part in environment_of(problem, [], trained).values():
                    instantiate(part)
            assert agent.name
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and len(str(error)) < 2000
        if time.monotonic() - started > SECONDS and count >= 100:
            break
    assert refused > count // 2
    assert sorted(tmp_path.rglob("*")) == before


def test_results_are_not_written_through_a_link_out_of_the_run(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (run / EVALUATION).symlink_to(tmp_path / "elsewhere")
    assert evaluate.main([f"run={run}", "episodes=1"]) == 2
    assert "is a link" in capsys.readouterr().err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_data_from_a_stranger_names_a_plain_environment(tmp_path: Path) -> None:
    folder = tmp_path / "kit" / "train"
    folder.mkdir(parents=True)
    content = {"format": "multiravens-dataset", "version": 1, "seeds": [0, 9], "environment": {"problem": float("inf")}}
    (folder / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="numbers are finite"):
        Store.open(folder)
