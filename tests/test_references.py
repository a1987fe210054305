"""References beside an agent: the expert's actions once more, and skill with another episode's goals."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multiravens.agents.acting.agent import Action, Agent, Oracle, Random, View
from multiravens.agents.acting.references import Blind, Replay
from multiravens.demos import main as demos
from multiravens.envs import Demonstration, demonstrate, make
from multiravens.errors import UserError
from multiravens.evaluation.evaluate import main
from multiravens.evaluation.measure import Measured, measure
from multiravens.evaluation.workers import EnvWorker
from multiravens.options.compose import compose
from multiravens.support.run_environment import environment_of
from multiravens.support.runs import read_evaluation

ENVIRONMENT = environment_of("stacking", [], {})
SEEDS = range(100_000, 200_000)


class Looking(Random):
    """Random actions by an agent that keeps what it is shown."""

    def __init__(self) -> None:
        self.views: list[View] = []

    def act(self, views: Sequence[View]) -> list[Action]:
        self.views += views
        return super().act(views)


class Guessing(Agent):
    """An agent that is shown goals and the pointer; it acts at random."""

    name = "guessing"
    pointer = "reward"
    resolution = "half"

    def __init__(self) -> None:
        self.looking = Looking()

    def act(self, views: Sequence[View]) -> list[Action]:
        return self.looking.act(views)


def alone(actor: Any, episodes: int, workers: int = 1, seeds: range = SEEDS) -> Measured:
    (measured,) = measure([actor], View, ENVIRONMENT, episodes, seeds, workers)
    return measured


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[int, Demonstration]]:
    """The expert's runs of the first seeds, at half resolution."""
    env = make("stacking", resolution="half")
    yield {seed: demonstrate(env, seed) for seed in SEEDS[:4]}
    env.close()


@pytest.mark.parametrize("motion", ["gripper", "slipping"])
def test_the_experts_actions_once_more_do_what_the_expert_did(motion: str) -> None:
    environment = environment_of("stacking", [f"motion={motion}"], {})
    replayed, shown = measure([Replay(), Oracle()], View, environment, 3, SEEDS)
    assert replayed == shown and all(record.success for record in replayed.records)


def test_blind_carries_out_the_experts_actions_of_the_next_seed_again_and_again(
    runs: dict[int, Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert all(run.success for run in runs.values())
    taken: dict[int, list[dict[str, Any]]] = {}
    step = EnvWorker.step

    def noted(lane: EnvWorker, action: dict[str, Any]) -> Any:
        taken.setdefault(lane.env.episode_seed, []).append(action)
        return step(lane, action)

    monkeypatch.setattr(EnvWorker, "step", noted)
    records = alone(Blind(), 3).records
    assert [record.seed for record in records] == list(taken) == list(SEEDS[:3])
    for seed, actions in taken.items():
        other = runs[seed + 1].executed
        count = len(other["pick_position"])
        assert len(actions) > count
        for index, action in enumerate(actions):
            assert all(np.array_equal(action[name], other[name][index % count]) for name in other)
    assert all(record.returned < 1 for record in records)


def test_a_blind_agent_sees_this_table_and_the_next_seeds_goals(runs: dict[int, Demonstration]) -> None:
    agent = Guessing()
    own, _ = measure([agent, Blind()], View, ENVIRONMENT, 2, SEEDS)
    both = agent.looking.views
    views = both[len(both) // 2 :]
    assert {view.seed for view in views} == set(SEEDS[:2])
    for view in views:
        other = runs[view.seed + 1]
        assert np.array_equal(view.goal_color, other.color[other.goal_frames])
        assert np.array_equal(view.start_color, runs[view.seed].color[0])
        assert view.pointer is not None
    assert own == alone(Guessing(), 2)


def test_the_figures_do_not_depend_on_workers_nor_on_how_many_episodes_there_are() -> None:
    actors = [Guessing(), Replay(), Blind()]
    three = measure(actors, View, ENVIRONMENT, 3, SEEDS, 2)
    two = measure(actors, View, ENVIRONMENT, 2, SEEDS, 1)
    assert [each.records[:2] for each in three] == [each.records for each in two]


def test_the_other_episode_is_one_that_the_expert_solves(
    runs: dict[int, Demonstration], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = EnvWorker.open
    monkeypatch.setattr(EnvWorker, "open", lambda lane, seed: "it fell" if seed == 100_001 else opened(lane, seed))
    agent = Guessing()
    measure([agent, Blind()], View, ENVIRONMENT, 1, SEEDS)
    other = runs[100_002]
    assert np.array_equal(agent.looking.views[-1].goal_color, other.color[other.goal_frames])
    with pytest.raises(UserError, match="blind needs another episode's goals"):
        alone(Blind(), 1, seeds=range(100_000, 100_002))


def test_beside_one_that_looks_at_no_goals_blind_is_the_expert() -> None:
    blind, agent = Blind(), Guessing()
    for each in (Oracle(), Random(), Replay(), blind):
        assert blind.beside(each) is blind and each.beside(agent) is not agent
    bound = blind.beside(agent)
    assert isinstance(bound, Blind) and bound.agent is agent and not bound.follows_plan
    assert (bound.pointer, bound.resolution) == ("reward", "half")
    for each in (Replay(), blind):
        with pytest.raises(TypeError, match="take them from its run"):
            each.act([])


def test_one_option_adds_them_to_an_evaluation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert demos(["problem=stacking", "split=test", "episodes=2", f"data={tmp_path / 'data'}"]) == 0
    words = ["agent=random", "problems=[stacking]", "beside_agents=references", "episodes=2", f"out={tmp_path / 'out'}"]
    assert main([*words, f"data={tmp_path / 'data'}"]) == 0
    out = capsys.readouterr().out
    content = read_evaluation(tmp_path / "out" / "stacking.json")
    assert set(content["beside"]) == {"oracle", "replay", "blind"}
    for name in ("oracle", "replay"):
        assert content["beside"][name]["summary"]["full_success"] == 1.0
        assert name in out
    assert content["beside"]["blind"]["summary"]["full_success"] == 0.0 and "blind" in out


def test_the_documents_commands_compose() -> None:
    page = (Path(__file__).parents[1] / "docs" / "evaluation.md").read_text()
    text = page.split("## What a return is worth")[1].split("\n## ")[0]
    commands = re.findall(r"^    python -m multiravens\.evaluate (.*)$", text, re.MULTILINE)
    assert len(commands) == 2
    with_references, blind = (compose("evaluate", command.split()) for command in commands)
    assert {"replay", "blind"} < set(with_references.beside_agents)
    assert blind.agent._target_.endswith(".Blind")
    assert compose("evaluate", re.findall(r"evaluate: \[(.*)\]", text)).beside_agents == with_references.beside_agents


@pytest.mark.parametrize("name", ["replay", "blind"])
def test_a_reference_is_measured_by_itself(name: str, tmp_path: Path) -> None:
    words = [f"agent={name}", "problems=[stacking]", "episodes=1", "beside=false", f"out={tmp_path}"]
    assert main(words) == 0
    content = read_evaluation(tmp_path / "stacking.json")
    assert content["agent"] == name and content["summary"]["full_success"] == (name == "replay")
