"""The trained agents that come with the program: small, described, measured as they are, and able."""

from pathlib import Path

import numpy as np
import pytest
import torch

from multiravens.agents.agent import View
from multiravens.agents.load import load_agent
from multiravens.evaluation import measure
from multiravens.restored import environment_of
from multiravens.runs import EVALUATION, find_run, hash_weights, read_config, read_evaluation

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


def test_it_answers_to_the_bit_on_any_number_of_cores(run: Path) -> None:
    agent, rng = load_agent(run), np.random.default_rng(0)
    color = rng.integers(256, size=(3, 160, 80, 3), dtype=np.uint8)
    height = rng.uniform(0, 0.1, (3, 160, 80)).astype(np.float32)
    problem = read_config(find_run(run))["problems"][0]
    view = View(color[0], height[0], color[1], height[1], color[2:], height[2:], 0, 0, 0, problem)
    threads = torch.get_num_threads()
    odds = []
    for count in (1, 4):
        torch.set_num_threads(count)
        odds.append(agent.score([view])[0].pick)
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert np.array_equal(odds[0], odds[1])
