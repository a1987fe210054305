"""Transfer: what is frozen stays to the bit, known problems are acted on as before, mistakes are one line."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from multiravens.agents.acting.agent import View
from multiravens.agents.acting.load import load_agent
from multiravens.agents.adaptation.transfer import transfer
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.training.session import train
from multiravens.data.storage.episode import write_episode
from multiravens.data.storage.store import Store
from multiravens.errors import UserError
from multiravens.experiments import report
from multiravens.options.compose import compose
from multiravens.support.runs import CONFIG, METRICS, STATE, WEIGHTS, read_config
from multiravens.transfer import main
from tests import synthetic

TINY = ["backbone=modular", "backbone.network.width=16", "backbone.network.fine=8", "demos=4", "batch=4", "threads=1"]
TINY += ["backbone.streams.blocks=2", "backbone.streams.depth=3", "checkpoint_every=2"]
SHORT = ["demos=3", "steps=3", "batch=2", "threads=1"]


def plain(name: str, *words: str) -> dict[str, Any]:
    config = OmegaConf.to_container(compose(name, words), resolve=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for problem in ("one", "two", "new"):
        synthetic.write(folder, 4, problem)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "two"
    train(plain("train", *TINY, "problems=[one,two]", "steps=4", f"data={data}", f"run={folder}"))
    return folder


def weights(run: Path) -> dict[str, Tensor]:
    return read_tensors(run / WEIGHTS)[0]


def view(problem: str) -> View:
    episode = synthetic.episode(7)
    color, height = episode.color[:, ::2, ::2], episode.height[:, ::2, ::2]
    return View(color[0], height[0], color[0], height[0], color[1:], height[1:], 0, 0, 7, problem)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("order", {"logits"}), ("patch", {"scale", "bias"}), ("order+patch", {"logits", "scale", "bias"})]
    + [("adapter", {"down", "up", "scale", "bias"})],
)
def test_what_is_frozen_stays_to_the_bit(kind: str, fields: set[str], run: Path, data: Path, tmp_path: Path) -> None:
    before, source = weights(run), (run / WEIGHTS).read_bytes()
    words = [f"run={run}", "problem=new", f"train={kind}", f"data={data}", f"out={tmp_path / 'new'}", *SHORT]
    figures = transfer(plain("transfer", *words, "start=distinct"))
    after = weights(tmp_path / "new")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=0, msg=name)
    added = {name: tensor for name, tensor in after.items() if name not in before}
    assert all(re.search(r"\b(programs|own)\.2\.", name) for name in added)
    own = sum(tensor.numel() for name, tensor in added.items() if name.rpartition(".")[2] in fields)
    assert figures["trained"] == own < 0.05 * figures["parameters"]
    assert (run / WEIGHTS).read_bytes() == source
    old, new = load_agent(run), load_agent(tmp_path / "new")
    for problem in ("one", "two"):
        for found, expected in zip(new.act([view(problem)]), old.act([view(problem)]), strict=True):
            for key in expected:
                np.testing.assert_array_equal(found[key], expected[key])
    assert new.act([view("new")])[0]["pick_position"].shape == (3,)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("order", {"logits"}), ("patch", {"scale", "bias"}), ("adapter", {"down", "up", "scale", "bias"})],
)
def test_only_what_is_named_is_trained(kind: str, fields: set[str], run: Path, data: Path, tmp_path: Path) -> None:
    ends = []
    for steps in (1, 4):
        out = tmp_path / str(steps)
        words = [f"run={run}", "problem=new", f"train={kind}", f"data={data}", f"out={out}", *SHORT]
        transfer(plain("transfer", *words, "start=distinct", f"steps={steps}"))
        ends.append(weights(out))
    changed = {name.rpartition(".")[2] for name, tensor in ends[0].items() if not torch.equal(tensor, ends[1][name])}
    assert changed == fields


def test_a_new_problem_starts_from_the_nearest_known_one(run: Path, data: Path, tmp_path: Path) -> None:
    words = [f"run={run}", "problem=new", "train=patch", f"data={data}", f"out={tmp_path / 'new'}", *SHORT]
    transfer(plain("transfer", *words))
    after = weights(tmp_path / "new")
    orders = [after[f"streams.programs.{index}.pick.order.logits"] for index in range(3)]
    assert any(torch.equal(orders[2], known) for known in orders[:2]) and not torch.equal(orders[0], orders[1])


@pytest.mark.parametrize("kind", ["full", "scratch"])
def test_what_changes_everything_knows_the_new_problem_alone(kind: str, run: Path, data: Path, tmp_path: Path) -> None:
    source = (run / WEIGHTS).read_bytes()
    words = [f"run={run}", "problem=new", f"train={kind}", f"data={data}", f"out={tmp_path / 'new'}", *SHORT]
    figures = transfer(plain("transfer", *words))
    assert figures["trained"] == figures["parameters"] and (run / WEIGHTS).read_bytes() == source
    agent = load_agent(tmp_path / "new")
    assert agent.network.streams.problems == ["new"]
    with pytest.raises(UserError, match="unknown problem 'one'"):
        agent.act([view("one")])


def test_the_report_draws_programs(run: Path, data: Path, tmp_path: Path) -> None:
    words = [f"run={run}", "problem=new", "train=order", f"data={data}", f"run_out={tmp_path / 'new'}", "log_every=1"]
    assert main([*words, *SHORT]) == 0
    assert report.main([f"runs=[{run},{tmp_path / 'new'}]", "gallery=0", f"out={tmp_path / 'report'}"]) == 0
    drawn = {path.stem for path in (tmp_path / "report").glob("*.png")}
    assert {f"{kind}_{name}" for kind in ("programs", "forming", "distances") for name in ("two", "new")} <= drawn
    assert "transfer_new" in drawn and "transfer_two" not in drawn
    shares = json.loads((tmp_path / "new" / METRICS).read_text().splitlines()[-1])["programs"]
    assert list(shares) == ["one", "two", "new"] and np.shape(shares["new"]["pick"]) == (3, 2)
    np.testing.assert_allclose(np.sum(shares["new"]["key"], axis=1), 1, atol=0.01)
    first, *rest = [json.loads(line) for line in (tmp_path / "new" / METRICS).read_text().splitlines()]
    assert "started" in first and not any("started" in line for line in rest)
    names = ("one", "two", "new")
    assert [first["started"][name] == first["programs"][name] for name in names] == [True, True, False]


def test_hardened_programs_run_their_blocks_alone(run: Path, tmp_path: Path) -> None:
    assert main([f"run={run}", "train=harden", f"out={tmp_path / 'hard'}"]) == 0
    soft, hard = load_agent(run).network.streams, load_agent(tmp_path / "hard").network.streams
    assert isinstance(soft, ModularStreams) and isinstance(hard, ModularStreams)
    for before, after in zip(soft.choices(), hard.choices(), strict=True):
        assert before.order is None and after.order == before.logits.argmax(1).tolist()


def test_a_hardened_program_can_be_taught_an_order_again(run: Path, data: Path, tmp_path: Path) -> None:
    assert main([f"run={run}", "train=harden", f"out={tmp_path / 'hard'}"]) == 0
    words = [f"run={tmp_path / 'hard'}", "problem=new", "train=order", f"data={data}", f"out={tmp_path / 'new'}"]
    assert main([*words, *SHORT]) == 0
    logits = weights(tmp_path / "new")["streams.programs.2.pick.order.logits"]
    assert bool(logits.isfinite().all()) and logits.unique().numel() > 2
    for name, tensor in weights(tmp_path / "hard").items():
        assert torch.equal(weights(tmp_path / "new")[name], tensor), name


def test_a_hardened_order_stays_where_only_the_patch_is_trained(run: Path, data: Path, tmp_path: Path) -> None:
    assert main([f"run={run}", "train=harden", f"out={tmp_path / 'hard'}"]) == 0
    words = [f"run={tmp_path / 'hard'}", "problem=new", "train=patch", f"data={data}", f"out={tmp_path / 'new'}"]
    assert main([*words, *SHORT]) == 0
    streams = load_agent(tmp_path / "new").network.streams
    assert isinstance(streams, ModularStreams)
    assert all(choice.order is not None for choice in streams.choices())


def test_new_programs_start_as_they_are_told(run: Path, data: Path, tmp_path: Path) -> None:
    for start, even in (("uniform", True), ("distinct", False)):
        words = [f"run={run}", "problem=new", "train=patch", f"start={start}", f"data={data}"]
        assert main([*words, f"out={tmp_path / start}", *SHORT]) == 0
        logits = weights(tmp_path / start)["streams.programs.2.key.order.logits"]
        assert bool((logits == 0).all()) == even, start


def test_orders_learn_at_the_pace_of_what_they_stand_for(run: Path, data: Path, tmp_path: Path) -> None:
    ends = []
    for rate in (1e-12, 0.05):
        words = [f"run={run}", "problem=new", "train=order", f"learning_rate={rate}", f"data={data}", *SHORT]
        transfer(plain("transfer", *words, f"out={tmp_path / str(rate)}"))
        ends.append(weights(tmp_path / str(rate))["streams.programs.2.key.order.logits"])
    # At the last temperature, 0.1, a logit counts fifty times: three whole steps would lock a program for good.
    assert 0 < (ends[1] - ends[0]).abs().max() < 3 * 0.05 / 50


def test_a_user_may_give_the_order(run: Path, data: Path, tmp_path: Path) -> None:
    words = [f"run={run}", "problem=new", "train=patch", "order=[1,1,0]", f"data={data}"]
    assert main([*words, f"out={tmp_path / 'new'}", *SHORT]) == 0
    streams = load_agent(tmp_path / "new").network.streams
    assert isinstance(streams, ModularStreams)
    assert [choice.order for choice in streams.choices("new")] == [[1, 1, 0]] * 3
    known = load_agent(run).network.streams
    assert isinstance(known, ModularStreams)
    assert [choice.order for choice in streams.choices("one")] == [choice.order for choice in known.choices("one")]


def test_a_problem_taught_with_an_adapter_keeps_it_when_adapted(run: Path, data: Path, tmp_path: Path) -> None:
    words = [f"run={run}", "problem=new", "train=adapter", "rank=3", f"data={data}", f"out={tmp_path / 'new'}"]
    assert main([*words, *SHORT]) == 0
    words = [f"run={tmp_path / 'new'}", "problem=new", "train=order", "labels=none", f"data={data}"]
    assert main([*words, f"out={tmp_path / 'adapted'}", *SHORT]) == 0
    name = "streams.programs.2.pick.adapter.up"
    assert torch.equal(weights(tmp_path / "adapted")[name], weights(tmp_path / "new")[name])


def test_a_stopped_transfer_ends_with_the_same_bytes(run: Path, data: Path, tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(step: int, _: object) -> None:
        if step == 3:
            raise Stopped

    for name, update in (("whole", None), ("stopped", stop)):
        words = [f"run={run}", "problem=new", f"data={data}", f"out={tmp_path / name}", *SHORT, "steps=5"]
        config = plain("transfer", *words, "checkpoint_every=2", "log_every=1")
        if update:
            with pytest.raises(Stopped):
                transfer(config, update)
            assert read_tensors(tmp_path / name / STATE)[1]["step"] == 2
        transfer(config)
    for name in (WEIGHTS, STATE, METRICS):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "stopped" / name).read_bytes(), name


@pytest.mark.parametrize("objective", ["entropy", "consistency"])
def test_a_known_problem_is_adapted_without_looking_at_actions(objective: str, run: Path, tmp_path: Path) -> None:
    ends = []
    for name, wrong in (("right", 0.0), ("wrong", 0.1)):
        store = Store.create(tmp_path / name, "one", "train", range(100_000), synthetic.ENVIRONMENT)
        with store.writing():
            for seed in range(3):
                episode = synthetic.episode(seed, "one")
                actions = {key: value + np.float32(wrong) for key, value in episode.actions.items()}
                write_episode(store.path(seed), replace(episode, actions=actions), store.fingerprint)
        words = [f"run={run}", "problem=one", "train=order+patch", "labels=none", f"objective={objective}"]
        transfer(plain("transfer", *words, f"data={tmp_path / name}", f"out={tmp_path / f'{name}-out'}", *SHORT))
        ends.append(weights(tmp_path / f"{name}-out"))
    before = weights(run)
    for name, tensor in ends[0].items():
        assert torch.equal(tensor, ends[1][name]), name
        at = re.search(r"\b(?:programs|own)\.(\d)\.", name)
        own = at is not None and at[1] == "1"
        # The adapted problem was the first of two, and is the last now.
        old = name if at is None else name[: at.start(1)] + str(1 - int(at[1])) + name[at.end(1) :]
        assert torch.equal(tensor, before[old]) != own, name


@pytest.mark.parametrize("start", ["nearest", "two"])
def test_a_domain_of_another_name_gets_programs_of_its_own(start: str, run: Path, data: Path, tmp_path: Path) -> None:
    words = [f"run={run}", "problem=new", "train=patch", "labels=none", f"start={start}", f"data={data}"]
    assert main([*words, f"out={tmp_path / 'new'}", *SHORT]) == 0
    assert read_config(tmp_path / "new")["problems"] == ["one", "two", "new"]
    before, after = weights(run), weights(tmp_path / "new")
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    orders = [
        after["streams.programs.2.pick.order.logits"],
        *(before[f"streams.programs.{at}.pick.order.logits"] for at in (0, 1)),
    ]
    assert any(torch.equal(orders[0], order) for order in orders[1:])
    if start == "two":
        assert torch.equal(orders[0], orders[2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["problem=new", "labels=none", "train=order", "start=distinct"], "labels=none starts from a known problem"),
        (["problem=one", "labels=none", "train=full"], "labels=none adapts a known problem's programs"),
        (["problem=one", "labels=some"], "unknown labels 'some'"),
        (["problem=new", "train=ordr"], "unknown train 'ordr': choose from order"),
        (["train=order"], "give the name of the new problem"),
        (["problem=one"], "knows one already: give replace=true"),
        (["problem=new", "start=far"], "unknown start 'far'"),
        (["problem=new", "order=[0,1,2]"], "order=[0, 1, 2] names block 2: the bank has 2, 0 to 1"),
        (["problem=new", "order=[0,1]"], "order=[0, 1] has 2 blocks: give one for each of the 3 steps"),
        (["problem=new", "order=five"], "order=five: give a list, such as [0, 2, 1, 1, 3, 4], or null"),
        (["problem=new", "rank=0", "train=adapter"], "rank=0: give 1 or more"),
        (["problem=new", "order=[0,1,0]", "train=scratch"], "train=scratch forgets them: give one of the two"),
        (["problem=new", "demos=9"], "has 4 demonstrations and demos=9"),
        (["problem=new", "run=nowhere"], "nowhere is not a run folder"),
        (["problem=new", "steps=0"], "steps=0: give 1 or more"),
        (["problem=new", "learning_rate=0"], "learning_rate=0: give more than 0"),
        (["problem=new", "run=5"], "5 is not a run folder"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], message: str, run: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={run}", f"data={data}", f"out={tmp_path / 'new'}", *SHORT, *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "new" / WEIGHTS).exists()


def test_a_plain_network_has_no_programs(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = [
        "backbone=small",
        "backbone.network.width=16",
        "backbone.network.depth=1",
        "backbone.network.fine=8",
        "demos=2",
        "threads=1",
    ]
    train(plain("train", *tiny, "problems=[one]", "steps=1", f"data={data}", f"run={tmp_path / 'plain'}"))
    words = [f"run={tmp_path / 'plain'}", "problem=new", f"data={data}", f"out={tmp_path / 'new'}", *SHORT]
    assert main([*words, "train=order"]) == 2 and "has no programs" in capsys.readouterr().err
    assert main([*words, "train=full"]) == 0


def test_a_bank_that_does_not_fit_its_configuration_is_told(run: Path, tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes())
    (tmp_path / CONFIG).write_text((run / CONFIG).read_text().replace("blocks: 2", "blocks: 3"))
    with pytest.raises(UserError, match="another network"):
        load_agent(tmp_path)
