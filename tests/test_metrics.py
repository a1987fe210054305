"""Metrics of evaluation: ours as they were, a user's in every table, bad ones in one line."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from multiravens.actions import PICK_PLACE
from multiravens.agents.acting.agent import Oracle, Random, View
from multiravens.errors import UserError
from multiravens.evaluation import evaluate
from multiravens.evaluation.measure import described, measure
from multiravens.evaluation.metrics import build_metrics, summary, values_of
from multiravens.evaluation.record import ActionRecord, Record
from multiravens.experiments import report
from multiravens.support.runs import read_config, read_evaluation, write_config, write_evaluation
from multiravens.support.statistics import bootstrap_mean, wilson
from tests.test_evaluation import ENVIRONMENT, SEEDS

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs" / "results" / "ten_half" / "sctn-weighted-100"
STANDARD = ("mean_return", "full_success", "steps", "credit_by_module", "ended", "motions")
OURS = {name: {"_target_": f"multiravens.evaluation.metrics.{name}"} for name in STANDARD}
CONSTANTS = """
def missed(record, share=False): return record.motions.count("missed") / (len(record.motions) if share else 1)
def early(record): return record.steps < record.expert_steps
def failing(record): return 1 / 0
def texts(record): return "many"
def nothing(record): return None
def infinite(record): return float("inf")
def deep(record): return {"a": {"b": 1}}
def mixed(record): return 1 if record.seed % 2 else {"a": 1}
class Above:
    def __init__(self, credit=0.5): self.credit = credit
    def __call__(self, record): return record.returned > self.credit
class Uncalled: pass
"""


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The metric of docs/evaluation.md, as a user would write it, and some others."""
    told = (ROOT / "docs" / "evaluation.md").read_text()
    (code,) = re.findall(r"`my_metrics.py`:\n\n```python\n(.*?)```", told, re.DOTALL)
    (choice,) = re.findall(r"`my_configs/metrics/mine.yaml`:\n\n```yaml\n(.*?)```", told, re.DOTALL)
    (tmp_path / "my_metrics.py").write_text(code)
    (tmp_path / "others.py").write_text(CONSTANTS)
    (tmp_path / "my_configs" / "metrics").mkdir(parents=True)
    (tmp_path / "my_configs" / "metrics" / "mine.yaml").write_text(choice)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def record(seed: int = 1, **values: Any) -> Record:
    action = ActionRecord({"pick_position": (0.5, 0.0, 0.0)}, "missed", 0.0, 0.0, {"stacking": 0.0}, 0)
    given: dict[str, Any] = {
        "returned": 0.5,
        "success": False,
        "steps": 2,
        "expert_steps": 3,
        "ended": "steps",
    } | values
    return Record(seed, credit_by_module={"stacking": 0.5}, motions=["missed", "ok"], actions=(action,) * 2, **given)


def test_a_users_metric_is_in_the_file_the_table_the_comparison_and_the_report(
    outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["agent=random", "problems=[stacking,placing]", "episodes=3", "metrics=mine", "--config-dir", "my_configs"]
    assert evaluate.main([*words, "out=run/evaluation"]) == 0
    assert "missed_picks" not in capsys.readouterr().out.replace("missed picks [95 %]", "")
    content = json.loads(Path("run/evaluation/stacking.json").read_text())
    shares = [row["motions"].count("missed") / len(row["motions"]) for row in content["episodes"]]
    assert [row["metrics"]["missed_picks"] for row in content["episodes"]] == shares and max(shares) > 0
    assert content["summary"]["missed_picks_interval"] == list(bootstrap_mean(shares))
    assert content["beside"]["oracle"]["summary"]["missed_picks"] == 0
    assert evaluate.main([*words[:3], "problems=[stacking]", *words[3:], "against=run", "out=again"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "stacking, missed picks: random is level with random of run, difference 0.000" in told
    run = ROOT / "assets" / "checkpoints" / "ten"
    config = read_config(run) | {"problems": ["stacking", "placing"]}
    write_config(Path("run"), config)
    assert report.main(["runs=[run]", "gallery=0", "out=report"]) == 0
    head, _, *rows = Path("report/report.md").read_text().splitlines()
    assert head.endswith("| mean return | full success | missed picks | episodes |")
    mean, (low, high) = (content["summary"][f"missed_picks{end}"] for end in ("", "_interval"))
    assert f"| {mean:.3f} [{low:.3f}, {high:.3f}] | 3 |" in rows[2] and rows[4].startswith("| all 2 | run | random |")
    assert "missed picks" in Path("report/report.html").read_text()
    assert Path("report/missed_picks_by_problem.png").stat().st_size > 1000


def test_an_evaluation_with_other_metrics_is_made_anew(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent=random", "problems=[stacking]", "episodes=1", "beside=false"]
    assert evaluate.main(words) == 0
    assert evaluate.main([*words, "+metrics.missed={_target_: others.missed, share: true}"]) == 0
    assert "measured before" not in capsys.readouterr().out
    assert set(read_evaluation(Path("random/stacking.json"))["metrics"]) == {*STANDARD, "missed"}


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("mine", "others.failing", "metric mine raised ZeroDivisionError for seed 1: division by zero"),
        ("mine", "others.texts", "metric mine gave 'many' for seed 1: give a finite number, true or false"),
        ("mine", "others.nothing", "metric mine gave None for seed 1: give"),
        ("mine", "others.infinite", "metric mine gave inf for seed 1: give"),
        ("mine", "others.deep", "metric mine gave .*: give one level of names"),
        ("mine", "others.mixed", "metric mine gave {'a': 1} for seed 2 and 1 before: give a dictionary for every"),
        (
            "mine",
            "others.mised",
            "metrics.mine._target_=others.mised: unknown name in others 'mised': choose from missed, mixed",
        ),
        ("mine", "others.Uncalled", "metric mine: others.Uncalled can't be called"),
        ("episodes", "others.missed", "metric 'episodes': a name is"),
        ("x_interval", "others.missed", "metric 'x_interval': a name is"),
        ("a|b", "others.missed", "metric 'a.b': a name is"),
    ],
)
def test_a_bad_metric_is_one_line_that_names_it(name: str, target: str, message: str, outside: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        metrics = build_metrics({name: {"_target_": target}})
        rows = [record(seed) for seed in (1, 2)]
        summary([replace(row, metrics=values_of(metrics, row, values_of(metrics, rows[0], {}))) for row in rows])
    assert "\n" not in str(error.value)


def test_a_bad_metric_ends_the_command_with_its_line(outside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["agent=random", "problems=[stacking]", "episodes=1", "beside=false"]
    for word, message in (
        ("+metrics.mine={_target_: others.failing}", "metric mine raised ZeroDivisionError for seed 100000"),
        (
            "+metrics.mine={_target_: others.missed, shar: true}",
            "unknown parameter of others.missed 'shar': choose from share",
        ),
        ("metrics=standart", "unknown metrics 'standart': choose from standard"),
        ("metrics=null", "metrics"),
    ):
        assert evaluate.main([*words, word]) == 2
        error = capsys.readouterr().err.splitlines()
        assert [message in line for line in error if line.startswith("error: ")] == [True]
        assert "Traceback" not in "".join(error)


def test_a_class_a_rate_and_parameters_are_metrics(outside: Path) -> None:
    nodes = {"early": {"_target_": "others.early"}, "above": {"_target_": "others.Above", "credit": 0.4}}
    metrics = build_metrics({**nodes, "share": {"_target_": "others.missed", "share": True}})
    assert values_of(metrics, record(), {}) == {"early": True, "above": True, "share": 0.5}
    values = [values_of(metrics, record(steps=steps), {}) for steps in (2, 2, 4)]
    figures = summary([replace(record(), metrics=each) for each in values])
    assert figures["early"] == 2 / 3 and figures["early_interval"] == list(wilson(2, 3))


def test_an_action_is_recorded_with_what_it_led_to() -> None:
    first, second = measure([Oracle(), Random()], View, ENVIRONMENT, 2, SEEDS, metrics=build_metrics(OURS))
    for each in [*first.records, *second.records]:
        assert len(each.actions) == each.steps == each.metrics["steps"]["agent"]
        assert [action.motion for action in each.actions] == each.motions
        assert sum(action.reward for action in each.actions) == pytest.approx(each.returned)
        widths = [{name: len(value) for name, value in action.fields.items()} for action in each.actions]
        assert widths == [PICK_PLACE.widths] * len(widths)
        assert "actions" not in each.row()
    assert all(action.reward > 0 for each in first.records for action in each.actions)


def test_our_metrics_have_the_figures_that_a_summary_had() -> None:
    (measured,) = measure([Oracle()], View, ENVIRONMENT, 2, SEEDS, metrics=build_metrics(OURS))
    figures = described(measured)["summary"]
    assert figures["ended"] == {"success": 1.0} and figures["credit_by_module"] == {"stacking": 1.0}
    assert figures["steps"]["agent"] == figures["steps"]["expert"] == figures["motions"]["ok"]
    assert figures["ended_interval"] == {"success": list(wilson(2, 2))}


def test_results_of_before_are_read_with_the_same_figures(tmp_path: Path) -> None:
    ours = build_metrics(OURS)
    for path in sorted((KEPT / "evaluation").glob("*placing-stacking.json")):
        before, now = json.loads(path.read_bytes()), read_evaluation(path)
        for old, new in ((before, now), *((before["beside"][name], now["beside"][name]) for name in before["beside"])):
            rows = [Record(actions=(), **row) for row in new["episodes"]]
            assert [values_of(ours, row, {})["mean_return"] for row in rows] == [
                row.metrics["mean_return"] for row in rows
            ]
            figures = summary([replace(row, metrics=values_of(ours, row, {})) for row in rows])
            for key, name in {"mean_return": "mean_return", "success_rate": "full_success"}.items():
                interval = key.replace("_rate", "") + "_interval"
                assert old["summary"][key] == new["summary"][name] == figures[name]
                assert old["summary"][interval] == new["summary"][f"{name}_interval"] == figures[f"{name}_interval"]
            assert old["summary"]["credit_by_module"] == figures["credit_by_module"]
            assert old["summary"]["steps"] == figures["steps"]["agent"]
        write_evaluation(tmp_path / "new.json", now)
        assert read_evaluation(tmp_path / "new.json") == now
