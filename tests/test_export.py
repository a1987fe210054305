"""Agents to hand on: smaller files that act alike, and a card that says what they are."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from multiravens.agents.acting.load import load
from multiravens.agents.networks.checkpoint import read_tensors, write_tensors
from multiravens.demos import main as demonstrate
from multiravens.errors import UserError
from multiravens.evaluation.evaluate import main as evaluate
from multiravens.export import main
from multiravens.support.runs import CONFIG, STATE, WEIGHTS
from multiravens.train import main as train
from tests import synthetic

TINY = ["backbone=small", "backbone.network.width=16", "backbone.network.depth=1", "backbone.network.fine=8"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    synthetic.write(folder / "data", 6)
    words = ["problems=[synthetic]", "demos=6", "steps=60", "batch=8", "checkpoint_every=60", "threads=2"]
    assert train([*TINY, *words, f"data={folder / 'data'}", f"run={folder / 'run'}"]) == 0
    return folder / "run"


def actions(folder: Path, dtype: str = "float32") -> list[dict[str, np.ndarray]]:
    """Actions of a folder's agent, its weights rounded."""
    agent = load(folder)
    for tensor in agent.agent.network.state_dict().values():
        tensor.copy_(tensor.to(getattr(torch, dtype)))
    made = []
    for seed in range(50, 54):
        episode = synthetic.episode(seed)
        agent.reset()
        goals = list(zip(episode.color[1:], episode.height[1:], strict=True))
        made.append(agent.act(episode.color[0], episode.height[0], goals))
    return made


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shard_size", ["null", "80KiB"])
def test_an_exported_agent_acts_as_the_run_does(dtype: str, shard_size: str, run: Path, tmp_path: Path) -> None:
    assert main([f"run={run}", f"out={tmp_path / 'out'}", f"dtype={dtype}", f"shard_size={shard_size}"]) == 0
    for mine, theirs, unrounded in zip(actions(tmp_path / "out"), actions(run, dtype), actions(run), strict=True):
        assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
        for key in ("pick_position", "place_position"):
            assert np.abs(mine[key] - unrounded[key])[:2].max() < 0.02  # a third of a block [m]
    files = sorted((tmp_path / "out").glob("weights*"))
    assert (len(files) > 1) == (shard_size != "null")
    assert shard_size == "null" or all(path.stat().st_size <= 80 * 1024 for path in files)
    size, full = (sum(path.stat().st_size for path in folder.glob("weights*")) for folder in (tmp_path / "out", run))
    assert size < full * (0.7 if dtype == "bfloat16" else 1.2)


def test_what_is_handed_on_says_nothing_of_the_machine(run: Path, tmp_path: Path) -> None:
    assert main([f"run={run}", f"out={tmp_path / 'agent'}"]) == 0
    told = (tmp_path / "agent" / CONFIG).read_text() + (tmp_path / "agent" / "README.md").read_text()
    assert str(tmp_path) not in told and str(run.parent) not in told
    assert not (tmp_path / "agent" / STATE).exists()
    assert "6 demonstrations of each problem" in told and "60 steps of 8 samples" in told
    assert "Not measured yet" in told and "run=agent problem=synthetic" in told


def test_the_card_has_what_was_measured_with_the_weights_that_it_comes_with(tmp_path: Path) -> None:
    data, run, out = tmp_path / "data", tmp_path / "run", tmp_path / "out"
    assert demonstrate(["problem=placing", "episodes=1", f"data={data}"]) == 0
    assert train([*TINY, "demos=1", "steps=1", "batch=2", f"data={data}", f"run={run}"]) == 0
    words = [f"run={run}", f"out={out}", "dtype=bfloat16"]
    assert main(words) == 0
    assert evaluate([f"run={out}", "problems=[placing,stacking]", "episodes=1", "workers=1"]) == 0
    assert main(words) == 0
    measured = "| placing | 0.000 [0.000, 0.000] | 0.000"
    card = (out / "README.md").read_text()
    known, _, unknown = card.partition("Problems that it was never trained on:")
    assert measured in known and "| 1 | 1.000 |" in known and "| stacking | 0.000" not in known
    assert "| stacking | 0.000" in unknown and measured not in unknown
    assert main([*words[:2], "dtype=float32"]) == 0
    assert "Not measured yet" in (out / "README.md").read_text()
    assert evaluate([f"run={run}", "episodes=1", "workers=1"]) == 0
    for dtype in ("float32", "bfloat16"):  # the same bytes are measured already, others are not
        assert main([f"run={run}", f"out={tmp_path / dtype}", f"dtype={dtype}"]) == 0
        assert (measured in (tmp_path / dtype / "README.md").read_text()) == (dtype == "float32")


def test_shards_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    tensors = {name: torch.arange(100.0) for name in ("a", "b")}
    one = write_tensors(tmp_path / "one.safetensors", tensors, {"step": 1}, 1000)
    two = write_tensors(tmp_path / "two.safetensors", {"a": tensors["a"], "b": -tensors["b"]}, {"step": 1}, 1000)
    assert len(one) == len(two) == 2
    assert torch.equal(read_tensors(tmp_path / "one.safetensors")[0]["b"], tensors["b"])
    one[1].write_bytes(two[1].read_bytes())
    with pytest.raises(UserError, match="of another checkpoint than .*one-00001-of-00002.*: copy all shards of one"):
        read_tensors(tmp_path / "one.safetensors")
    one[1].unlink()
    with pytest.raises(UserError, match="lacks 1 of 2 shards: copy one-00002-of-00002.safetensors there"):
        read_tensors(tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["dtype=float64"], "unknown dtype 'float64': choose from bfloat16, float32"),
        (["shard_size=1KiB"], r"shard_size=1024: one of its parts takes \d+ bytes"),
        (["shard_size=big"], "shard_size='big': give a size such as 16MiB"),
        (["run=nowhere"], "nowhere is not a run folder"),
        (["run=null"], "give the folder of a trained agent's run"),
        (["out={run}"], "is the folder of a run: give another one"),
        (["out={run}/.."], "holds something else: give the name of a new folder"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    words: list[str], message: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    given = [f"run={run}", f"out={tmp_path / 'out'}", *(word.replace("{run}", str(run)) for word in words)]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error)
    assert not list(tmp_path.glob("out/*.safetensors"))
    assert before == {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_runs_and_exported_agents_do_not_overwrite_each_other(run: Path, tmp_path: Path) -> None:
    hardened = tmp_path / "hardened"  # a run that holds no state to go on from
    hardened.mkdir()
    for name in (WEIGHTS, CONFIG):
        (hardened / name).write_bytes((run / name).read_bytes())
    assert main([f"run={run}", f"out={hardened}"]) == 2
    assert main([f"run={run}", f"out={tmp_path / 'out'}"]) == 0
    content = (tmp_path / "out" / CONFIG).read_bytes()
    data = f"data={run.parent / 'data'}"
    assert train([*TINY, "problems=[synthetic]", "demos=2", "steps=1", data, f"run={tmp_path / 'out'}"]) == 2
    assert (tmp_path / "out" / CONFIG).read_bytes() == content


def test_a_damaged_checkpoint_is_not_handed_on(run: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / WEIGHTS).write_bytes((run / WEIGHTS).read_bytes())
    config = yaml.safe_load((run / CONFIG).read_text())
    config["backbone"]["network"]["width"] = 24
    (tmp_path / "run" / CONFIG).write_text(yaml.safe_dump(config))
    assert main([f"run={tmp_path / 'run'}", f"out={tmp_path / 'out'}"]) == 2
    assert not (tmp_path / "out").exists()
