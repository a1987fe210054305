"""Evaluation: equal numbers for any number of workers, seeds that the expert solves, pointers that stay unseen."""

import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from omegaconf import OmegaConf

from multiravens.actions import pick_place_fields
from multiravens.agents.acting.agent import Action, Agent, Oracle, Random, View
from multiravens.data.storage.store import Store
from multiravens.demos import main as demos
from multiravens.errors import UserError
from multiravens.evaluation.evaluate import _out, main
from multiravens.evaluation.measure import Measured, compare, measure
from multiravens.evaluation.workers import EnvWorker, EpisodeStart
from multiravens.options.compose import compose
from multiravens.support.run_environment import environment_of, refuse_foreign
from multiravens.support.runs import EVALUATION, find_run, read_evaluation, write_evaluation

ENVIRONMENT = {
    name: value
    for name, value in OmegaConf.to_container(compose("environment", ["problem=stacking"]), resolve=True).items()  # type: ignore[union-attr]
    if name in ("problem", "camera", "motion")
}


SEEDS = range(100_000, 200_000)


class Replaying(Agent):
    """Puts what the next goal image lacks here where it shows something new: enough for some of the boxes."""

    name = "replaying"
    resolution = "half"

    def __init__(self, pointer: str) -> None:
        self.pointer = pointer
        self.shown: list[int | None] = []

    def act(self, views: Sequence[View]) -> list[Action]:
        self.shown += [view.pointer for view in views]
        return [self._act(view) for view in views]

    def _act(self, view: View) -> Action:
        index = min(view.pointer if view.pointer is not None else view.step, len(view.goal_height) - 1)
        change = view.goal_height[index] - view.height
        points = []
        for spots in (change < -0.01, change > 0.01):
            rows, columns = np.nonzero(spots)
            row, column = (rows.mean(), columns.mean()) if len(rows) else (0, 0)
            points.append(np.array([0.25 + 0.00625 * (column + 0.25), -0.5 + 0.00625 * (row + 0.25), 0.0]))
        return pick_place_fields(points[0], points[1], 0.0)


def alone(actor: Any, *rest: Any) -> Measured:
    (measured,) = measure([actor], *rest)
    return measured


def test_agents_measured_together_do_as_each_does_alone() -> None:
    rest = (View, ENVIRONMENT, 3, SEEDS)
    actors = [Replaying("reward"), Random(), Oracle()]
    assert measure(actors, *rest, workers=2) == [alone(actor, *rest) for actor in actors]


def test_the_oracle_is_the_ceiling_and_random_actions_the_floor() -> None:
    for actor, expected in ((Oracle(), 1.0), (Random(), 0.0)):
        records = alone(actor, View, ENVIRONMENT, 3, SEEDS).records
        assert [record.seed for record in records] == [100_000, 100_001, 100_002]
        assert [record.returned for record in records] == [expected] * 3


class Noting(Random):
    """Random actions, and a note at each step."""

    def act(self, views: Sequence[View]) -> list[Action]:
        for view in views:
            # One that has ended is asked about its last step again.
            assert set(view.memory) - {view.step} == set(range(view.step))
            assert all(note == (view.seed, step) for step, note in view.memory.items())
            view.memory[view.step] = (view.seed, view.step)
        return super().act(views)


def test_what_an_agent_notes_is_its_own_for_the_whole_episode() -> None:
    alone(Noting(), View, ENVIRONMENT, 9, SEEDS)


def test_numbers_do_not_depend_on_the_number_of_workers() -> None:
    results = [alone(Replaying("reward"), View, ENVIRONMENT, 4, SEEDS, workers) for workers in (1, 2)]
    assert results[0] == results[1]
    assert any(record.returned > 0 for record in results[0].records)


def test_only_an_agent_that_follows_the_reward_is_shown_the_pointer() -> None:
    for pointer in ("visual", "none"):
        agent = Replaying(pointer)
        alone(agent, View, ENVIRONMENT, 1, SEEDS)
        assert set(agent.shown) == {None}
    agent = Replaying("reward")
    alone(agent, View, ENVIRONMENT, 1, SEEDS)
    assert None not in agent.shown


def test_seeds_that_the_expert_does_not_solve_are_skipped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = EnvWorker.open
    monkeypatch.setattr(EnvWorker, "open", lambda lane, seed: "it fell" if seed == 100_001 else opened(lane, seed))
    measured = alone(Random(), View, ENVIRONMENT, 3, SEEDS)
    assert [record.seed for record in measured.records] == [100_000, 100_002, 100_003]
    assert measured.skipped == {100_001: "it fell"}


def test_seeds_that_run_out_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EnvWorker, "open", lambda lane, seed: "it fell")
    with pytest.raises(UserError, match="the oracle solves only 0 of the 5 seeds from 100000 on"):
        alone(Random(), View, ENVIRONMENT, 3, range(100_000, 100_005))


def test_overrides_come_on_top_of_the_environment_of_the_demonstrations() -> None:
    made = OmegaConf.to_container(
        compose("environment", ["problem=placing", "problem.modules.placing.same_color=true"]), resolve=True
    )
    assert isinstance(made, dict)
    trained = {"environment": {"placing": {name: made[name] for name in ("problem", "camera", "motion")}}}
    found = environment_of("placing", ["camera=realsense", "problem.modules.placing.parts=5"], trained)
    placing = found["problem"]["modules"]["placing"]
    assert placing["same_color"] is True and placing["parts"] == 5
    assert found["camera"]["_target_"].endswith("RealSense") and "depth_noise" in found["camera"]


def test_an_override_that_equals_the_default_counts_too() -> None:
    words = ["problem=placing", "camera=realsense", "problem.modules.placing.same_color=true"]
    made = OmegaConf.to_container(compose("environment", [*words, "problem.modules.placing.parts=3"]), resolve=True)
    assert isinstance(made, dict)
    trained = {"environment": {"placing": {name: made[name] for name in ("problem", "camera", "motion")}}}
    words = ["problem.modules.placing.same_color=false", "problem.modules.placing.parts=4", "camera.depth_noise=0.01"]
    found = environment_of("placing", words, trained)
    placing = found["problem"]["modules"]["placing"]
    assert placing["same_color"] is False and placing["parts"] == 4 and found["camera"]["depth_noise"] == 0.01
    for word, message in (
        ("problem=stacking", "choose camera, motion, primitive or domain"),
        ("camera.dpeth_noise=0.1", "unknown option 'camera.dpeth_noise': choose from camera.depth_noise"),
        ("problem.modules.placing.parts=many", "give an integer"),
    ):
        with pytest.raises(UserError, match=message):
            environment_of("placing", [word], trained)


def test_comparing_takes_the_seeds_that_both_have() -> None:
    def rows(values: dict[int, float]) -> dict[str, Any]:
        return {"episodes": [{"seed": seed, "metrics": {"own": value}} for seed, value in values.items()]}

    comparison = compare(rows({1: 1.0, 2: 0.5, 3: 0.0}), rows({2: 0.25, 1: 0.75, 9: 1.0}), "own")
    assert (comparison.mean, comparison.pairs) == (0.25, 2)


def test_the_command_writes_the_same_bytes_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent=random", "problems=[stacking]", "episodes=2", f"out={tmp_path}"]
    assert main(words) == 0
    content = (tmp_path / "stacking.json").read_bytes()
    (tmp_path / "stacking.json").unlink()
    assert main(words) == 0
    assert (tmp_path / "stacking.json").read_bytes() == content
    parsed = json.loads(content)
    assert parsed["beside"]["oracle"]["summary"]["full_success"] == 1.0
    assert parsed["summary"]["episodes"] == len(parsed["episodes"]) == 2
    assert "oracle" in capsys.readouterr().out


def test_a_stopped_command_goes_on_with_what_is_not_measured_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["agent=random", "beside=false", "episodes=2", f"out={tmp_path}"]
    assert main([*words, "problems=[stacking]"]) == 0
    measured: list[str] = []

    def counted(actors: Any, view: Any, environment: dict[str, Any], *rest: Any) -> Any:
        measured.append(environment["problem"]["name"])
        return measure(actors, view, environment, *rest)

    monkeypatch.setattr("multiravens.evaluation.measure.measure", counted)
    assert main([*words, "problems=[stacking,placing]"]) == 0
    assert measured == ["placing"] and "stacking.json was measured before" in capsys.readouterr().out
    assert main([*words, "problems=[stacking]", "episodes=3"]) == 0
    assert measured == ["placing", "stacking"]


def test_what_other_code_measured_is_kept_as_read_and_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["agent=random", "problems=[stacking]", "beside=false", "episodes=1", f"out={tmp_path / EVALUATION}"]
    path, told = tmp_path / EVALUATION / "stacking.json", "stacking.json was measured by other code than there is now"
    assert main(words) == 0
    first = read_evaluation(path)
    with monkeypatch.context() as patch:
        patch.setattr("multiravens.evaluation.evaluate.package_source", lambda: "edited")
        assert main(words) == 0
        assert told in capsys.readouterr().out and read_evaluation(path) == first | {"source": "edited"}
    older = {name: value for name, value in first.items() if name != "source"}
    write_evaluation(path, older)
    assert read_evaluation(path) == older | {"source": None}
    assert main(["agent=random", "problems=[stacking]", "beside=false", f"out={tmp_path}", f"against={tmp_path}"]) == 0
    assert f"{tmp_path} was measured by other code" in " ".join(capsys.readouterr().out.split())
    assert main(words) == 0
    assert told in capsys.readouterr().out and read_evaluation(path) == first
    assert main(words) == 0
    assert "was measured before" in capsys.readouterr().out


def test_the_record_of_an_agent_that_comes_along_is_not_replaced() -> None:
    for run, expected in {
        "assets/checkpoints/ten": Path("measured/ten"),
        str(find_run("assets/checkpoints/ten").resolve()): Path("measured/ten"),
        "runs/mine": Path("runs/mine/evaluation"),
    }.items():
        assert _out(compose("evaluate", [f"run={run}"]), None) == expected


def test_goals_come_from_demonstrations_where_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    assert demos(["problem=stacking", "split=test", "episodes=2", f"data={data}"]) == 0
    ran: list[int] = []

    def counted(lane: EnvWorker, seed: int) -> Any:
        ran.append(seed)
        return demonstrate(lane, seed)

    demonstrate = EnvWorker._demonstrate
    monkeypatch.setattr(EnvWorker, "_demonstrate", counted)
    environment, store = ENVIRONMENT | {"resolution": "half"}, Store.open(data / "stacking" / "test")
    kept, shown = (EnvWorker(environment, each).open(100_001) for each in (store, None))
    assert ran == [100_001] and isinstance(kept, EpisodeStart) and isinstance(shown, EpisodeStart)
    assert np.array_equal(kept.goal_color, shown.goal_color) and kept.expert_steps == shown.expert_steps
    assert np.abs(kept.goal_height - shown.goal_height).max() <= 1e-5
    ran.clear()
    store.write_rejected({100_002: "it fell"})
    words = ["agent=random", "problems=[stacking]", "beside=false", "episodes=3", f"out={tmp_path / 'out'}"]
    assert main([*words, f"data={data}"]) == 0
    assert ran == [100_003]
    measured = json.loads((tmp_path / "out" / "stacking.json").read_bytes())
    assert measured["goals"] == "demonstrations" and measured["skipped"] == [{"reason": "it fell", "seed": 100_002}]
    assert main([*words, f"data={data}", "overrides=['problem.order=shuffled']"]) == 2
    assert "was made with problem.order='sequential' instead of 'shuffled'" in capsys.readouterr().err


def test_seeds_are_those_of_the_demonstrations_own_test_split(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    store = Store.create(data, "stacking", "test", range(500_000, 500_010), ENVIRONMENT)
    with store.writing():
        store.write_rejected({500_000: "it fell"})
    words = ["agent=random", "problems=[stacking]", "beside=false", "episodes=1", f"out={tmp_path / 'out'}"]
    assert main([*words, f"data={data}", "first_seed=100000"]) == 2
    assert "first_seed=100000: give one of the test split, 500000 to 500009" in capsys.readouterr().err
    assert main([*words, f"data={data}"]) == 0
    measured = read_evaluation(tmp_path / "out" / "stacking.json")
    assert [row["seed"] for row in measured["episodes"]] == [500_001]


def test_choices_are_made_by_validation_seeds_and_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["agent=random", "problems=[stacking]", "beside=false", "episodes=1", "split=validation"]
    assert main(words) == 0
    measured = read_evaluation(tmp_path / "random" / "validation" / "stacking.json")
    assert measured["split"] == "validation" and [row["seed"] for row in measured["episodes"]] == [200_000]
    capsys.readouterr()
    assert main(words) == 0
    assert "was measured before" in capsys.readouterr().out
    assert main([*words, "first_seed=100000"]) == 2
    assert "give one of the validation split, 200000 to" in capsys.readouterr().err


@pytest.mark.parametrize("moment", [1, 3, 7])
def test_the_episodes_of_a_killed_worker_go_on_to_the_same_figures(
    moment: int, capfd: pytest.CaptureFixture[str]
) -> None:
    class Killing(Random):
        """Kills a worker before one of its answers."""

        asked = 0

        def act(self, views: Sequence[View]) -> list[Action]:
            self.asked += 1
            if self.asked == moment:
                multiprocessing.active_children()[0].kill()
            return super().act(views)

    killing = Killing()
    assert alone(killing, View, ENVIRONMENT, 4, SEEDS, 2) == alone(Random(), View, ENVIRONMENT, 4, SEEDS)
    assert killing.asked >= moment and "Traceback" not in capfd.readouterr().err


def test_a_seed_that_always_kills_its_worker_is_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    class Killing(Random):
        def act(self, views: Sequence[View]) -> list[Action]:
            for process in multiprocessing.active_children():
                process.kill()
            return super().act(views)

    with pytest.raises(UserError, match=r"seed 10000\d was lost 3 times .*exit code -9.*: try fewer workers"):
        alone(Killing(), View, ENVIRONMENT, 4, SEEDS, 2)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give one of run=FOLDER"),
        (["agent=orakle"], "unknown agent 'orakle': choose from oracle"),
        (["run=nowhere"], "nowhere is not a run folder"),
        (["agent=sctn"], "sctn has to be trained first"),
        (["agent=random", "against=nowhere"], "cannot read nowhere/evaluation/placing.json"),
        (["agent=random", "episodes=0"], "episodes=0: give 1 or more"),
        (["agent=random", "problems=[stakcing]"], "stacking"),
        (["agent=random", "data=nowhere"], "data=nowhere is no folder"),
        (["agent=random", "split=train"], "unknown split 'train': choose from validation, test"),
        (["agent=random", "first_seed=some"], "first_seed=some: give an integer"),
        (["agent=random", "first_seed=-1"], "give one of the test split, 100000 to 199999"),
    ],
)
def test_bad_input_is_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_foreign_class_in_a_runs_environment_is_not_built(tmp_path: Path) -> None:
    for target in (
        "os.system",
        "multiravens.cli.os.system",
        "multiravens.heightmap.np.load",
        "multiravens.support.files.write_whole",
        "multiravens.support.files.Path",
        "multiravens.nowhere.Thing",
    ):
        foreign = {"problem": {"_target_": target}, "camera": {}, "motion": {}}
        with pytest.raises(UserError, match="not a class of multiravens"):
            environment_of("mine", [], {"environment": {"mine": foreign}})
    computed = {"problem": {"size": "${oc.decode:'{_target_: os.system}'}"}, "camera": {}, "motion": {}}
    with pytest.raises(UserError, match="values of a run are plain"):
        refuse_foreign(computed, "mine")
    with pytest.raises(UserError, match="come from elsewhere"):
        environment_of("mine", [], {"environment": {"mine": {"source": "external"}}})
