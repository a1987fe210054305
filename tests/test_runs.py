"""Files of runs: evaluations with a line for each episode."""

import json
from pathlib import Path

import pytest

from multiravens.support.files import write_rows
from multiravens.support.runs import EVALUATION, read_evaluation, write_evaluation

ROOT = Path(__file__).parents[1]
MEASURED = sorted(
    path for folder in ("docs/results/*/*", "assets/checkpoints/*") for path in ROOT.glob(f"{folder}/{EVALUATION}/*")
)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"b": 1, "a": [1, 2]},
        {"rows": [{"x": 1}, {"x": [{"y": "ä\n"}]}], "empty": [], "deep": {"none": {}, "rows": [{"x": None}]}},
        {"mixed": [{"x": 1}, 2], "text": '"quoted" and \\', "number": 0.1},
    ],
)
def test_what_is_written_in_rows_is_read_back(content: dict[str, object], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.json", content)
    assert json.loads((tmp_path / "rows.json").read_bytes()) == content


def test_a_table_has_a_line_for_each_row(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.json", {"rows": [{"b": [1], "a": {"c": 2}}, {}], "of": {"rows": [{"d": 3}], "e": {}}})
    assert (tmp_path / "rows.json").read_text() == (
        '{\n "of": {\n  "e": {},\n  "rows": [\n   {"d": 3}\n  ]\n },\n'
        ' "rows": [\n  {"a": {"c": 2}, "b": [1]},\n  {}\n ]\n}\n'
    )


def test_measured_results_have_a_line_for_each_episode(tmp_path: Path) -> None:
    assert len(MEASURED) > 100
    for path in MEASURED:
        content = read_evaluation(path)
        rows = sum(len(part["episodes"]) for part in (content, *content["beside"].values()))
        assert path.read_bytes().count(b"\n") < rows + 50, path


def test_an_evaluation_with_a_line_for_each_value_is_read_alike(tmp_path: Path) -> None:
    content = read_evaluation(MEASURED[0])
    write_evaluation(tmp_path / "rows.json", content)
    (tmp_path / "values.json").write_text(json.dumps(content, indent=1, sort_keys=True))
    assert read_evaluation(tmp_path / "rows.json") == read_evaluation(tmp_path / "values.json") == content
