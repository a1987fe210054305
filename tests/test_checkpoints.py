"""The trained agents that come with the program: small, described, measured as they are, and able."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from multiravens.agents.acting.agent import View
from multiravens.agents.acting.load import Deployed, load_agent
from multiravens.agents.acting.policy import NetworkAgent
from multiravens.agents.adaptation.export import export
from multiravens.agents.networks.checkpoint import read_tensors, write_tensors
from multiravens.drawing.rollout import rollout
from multiravens.envs import from_config
from multiravens.evaluation.evaluate import main as evaluate
from multiravens.evaluation.measure import measure
from multiravens.options.compose import compose
from multiravens.support.run_environment import environment_of
from multiravens.support.runs import EVALUATION, WEIGHTS, find_run, hash_weights, read_config, read_evaluation

FOLDERS = sorted((Path(__file__).parents[1] / "assets" / "checkpoints").iterdir())


@pytest.fixture(params=[folder.name for folder in FOLDERS])
def run(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As a user names it, from wherever the user is."""
    monkeypatch.chdir(tmp_path)
    return Path("assets/checkpoints") / request.param


def test_it_fits_and_its_card_has_what_was_measured_with_these_weights(run: Path) -> None:
    folder = find_run(run)
    assert sum(path.stat().st_size for path in folder.glob("weights*")) <= 16 * 2**20
    card, config = (folder / "README.md").read_text(), read_config(folder)
    for problem in config["problems"]:
        content = read_evaluation(folder / EVALUATION / f"{problem}.json")
        assert content["weights"] == hash_weights(folder)
        assert f"| {problem} | {content['summary']['mean_return']:.3f} [" in card
    assert not {"run", "data"} & set(config)


def test_it_does_what_was_measured(run: Path) -> None:
    problem = read_config(find_run(run))["problems"][0]
    known = read_evaluation(find_run(run) / EVALUATION / f"{problem}.json")["episodes"][:8]
    agent = load_agent(run)
    environment = environment_of(problem, [], read_config(find_run(run)))
    seeds = range(known[0]["seed"], known[0]["seed"] + 100)
    (measured,) = measure([agent], View, environment, len(known), seeds, workers=2)
    assert [record.seed for record in measured.records] == [row["seed"] for row in known]
    # Another processor may round otherwise, and so decide otherwise now and then.
    same = sum(record.returned == row["returned"] for record, row in zip(measured.records, known, strict=True))
    assert same >= 6


def noise(run: Path) -> View:
    """A picture of nothing, with two goals."""
    rng = np.random.default_rng(0)
    color = rng.integers(256, size=(4, 160, 80, 3), dtype=np.uint8)
    height = rng.uniform(0, 0.1, (4, 160, 80)).astype(np.float32)
    problem = read_config(find_run(run))["problems"][0]
    return View(color[0], height[0], color[1], height[1], color[2:], height[2:], 0, 0, 0, problem)


def test_it_answers_to_the_bit_on_any_number_of_cores(run: Path) -> None:
    agent, view = load_agent(run), noise(run)
    threads = torch.get_num_threads()
    odds = []
    for count in (1, 4):
        torch.set_num_threads(count)
        odds.append(agent.score([view])[0].pick)
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert np.array_equal(odds[0], odds[1])


def tried(agent: NetworkAgent, view: View, pointers: Sequence[int], memory: dict[int, Any]) -> list[np.ndarray]:
    """Picks in a picture that nothing changes."""
    views = [replace(view, step=step, pointer=pointer, memory=memory) for step, pointer in enumerate(pointers)]
    return [agent.act([each])[0]["pick_position"] for each in views]


def test_what_was_tried_in_vain_is_shunned_until_pointer_or_picture_change(run: Path) -> None:
    agent, view, memory = load_agent(run, inhibition=3, patience=0), noise(run), dict[int, Any]()
    first, *others = tried(agent, view, [0] * 8, memory)
    assert max(np.linalg.norm(pick - first) for pick in others) > 0.01
    assert np.array_equal(tried(agent, view, [0] * 8, memory)[-1], others[-1])  # asked again, it answers alike
    moved = replace(view, step=8, pointer=1, memory=memory)
    changed = replace(view, step=8, pointer=0, memory=memory, color=255 - view.color)
    for each in (moved, changed):
        (pick,), (unburdened,) = (agent.act([one]) for one in (each, replace(each, memory={})))
        assert np.array_equal(pick["pick_position"], unburdened["pick_position"])
    stubborn = tried(load_agent(run, inhibition=0, patience=0), view, [0] * 8, {})
    assert all(np.array_equal(pick, first) for pick in stubborn)


@pytest.mark.parametrize("inhibition", [0, 3])
def test_out_of_patience_it_goes_for_later_sub_goals_and_undoes_nothing(inhibition: float, run: Path) -> None:
    view, memory = noise(run), dict[int, Any]()
    view = replace(view, goal_color=view.goal_color.repeat(2, 0), goal_height=view.goal_height.repeat(2, 0))

    def aims(patience: int, pointers: Sequence[int], pointer: str = "reward") -> list[int | None]:
        agent = load_agent(run, pointer=pointer, inhibition=inhibition, patience=patience)
        views = [replace(view, step=step, pointer=each, memory=memory) for step, each in enumerate(pointers)]
        return [agent.score([each])[0].aim for each in views]

    assert aims(2, [1] * 6) == [1, 1, 2, 3, 3, 3]
    assert aims(1, [0, 0, 1, 2, 3]) == [0, 1, 1, 2, 3]  # what was put off did not hold, and is done in turn
    assert aims(1, [0, 0, 0, 1, 3]) == [0, 1, 2, 2, 3]  # 2 may hold by now
    assert aims(2, [0, 1, 2, 3, 0, 0, 0, 0]) == [0, 1, 2, 3, 2, 2, 3, 3]  # 1 and 2 still hold
    assert aims(0, [0, 1, 2, 3, 0, 0, 0, 0]) == [0, 1, 2, 3, 0, 0, 0, 0]
    assert aims(2, [0] * 5, "visual") == [0, 0, 1, 2, 3]


def test_a_robot_s_agent_remembers_until_it_is_reset(run: Path) -> None:
    problem = read_config(find_run(run))["problems"][0]
    robot = Deployed(load_agent(run, pointer="visual", inhibition=3, patience=0), problem)
    rng = np.random.default_rng(0)
    color = rng.integers(256, size=(2, 320, 160, 3), dtype=np.uint8)
    height = rng.uniform(0, 0.1, (2, 320, 160)).astype(np.float32)
    picks = [robot.act(color[0], height[0], [(color[1], height[1])])["pick_position"] for _ in range(8)]
    assert any(not np.array_equal(pick, picks[0]) for pick in picks)
    robot.reset()
    assert np.array_equal(robot.act(color[0], height[0], [(color[1], height[1])])["pick_position"], picks[0])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("inhibition=-1", "give 0 or more"),
        ("inhibition=many", "give a number"),
        ("inhibition=inf", "give a finite number"),
        ("patience=-1", "patience=-1: give 0 or more tries"),
        ("patience=1.5", "patience=1.5: give an integer"),
    ],
)
def test_a_way_of_acting_that_is_none_is_told(
    word: str, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate([f"run={run}", word, "episodes=1"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_episode_that_is_filmed_is_the_one_that_is_measured() -> None:
    run, problem, seed = Path("assets/checkpoints/ten"), "placing-stacking", 100071
    agent, environment = load_agent(run, inhibition=3), environment_of(problem, [], read_config(find_run(run)))
    (measured,) = measure([agent], View, environment, 1, range(seed, seed + 1))
    with closing(from_config(OmegaConf.create({"gui": False, **environment, "resolution": "full"}))) as env:
        filmed = rollout(env, agent, View, seed).run
    assert len(filmed.rewards) == measured.records[0].steps < 18  # of which it would take all without its memory
    assert sum(filmed.rewards) == pytest.approx(measured.records[0].returned)


def test_names_of_older_files_are_read_as_todays(tmp_path: Path) -> None:
    names = {
        "network.streams.programs.0.pick.logits": "network.streams.programs.0.pick.order.logits",
        "optimizer.exp_avg.streams.programs.2.key.scale": "optimizer.exp_avg.streams.programs.2.key.affine.scale",
        "streams.programs.1.query.up": "streams.programs.1.query.adapter.up",
        "near.held.0.weight": "near.picked_encoder.0.weight",
        "averaged.near.module.there.2.bias": "averaged.near.module.target_encoder.2.bias",
        "near.own.0.scale": "near.own.0.scale",
        "streams.body.own.1.bias": "streams.body.own.1.bias",
    }
    write_tensors(tmp_path / WEIGHTS, {name: torch.zeros(1) for name in names}, {})
    assert set(read_tensors(tmp_path / WEIGHTS)[0]) == set(names.values())
    write_tensors(tmp_path / WEIGHTS, {name: torch.zeros(1) for name in names.values()}, {})
    assert set(read_tensors(tmp_path / WEIGHTS)[0]) == set(names.values())


def test_an_older_agent_is_exported_with_what_was_measured_of_it(run: Path, tmp_path: Path) -> None:
    export(config_of("export", [f"run={run}", f"out={tmp_path / 'out'}"]))
    assert hash_weights(tmp_path / "out") == hash_weights(find_run(run))
    assert sorted(path.name for path in (tmp_path / "out" / EVALUATION).iterdir()) == sorted(
        path.name for path in (find_run(run) / EVALUATION).iterdir()
    )


def config_of(command: str, words: Sequence[str]) -> dict[str, Any]:
    config = OmegaConf.to_container(compose(command, words))
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}
