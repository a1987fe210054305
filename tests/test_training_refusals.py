"""Training that can't be: options, runs and memory that are refused in one line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from multiravens.agents.acting.load import build, load_agent
from multiravens.agents.training.session import train
from multiravens.agents.training.trainer import Inputs, Trainer
from multiravens.errors import UserError
from multiravens.options.compose import compose
from multiravens.support.runs import CONFIG, WEIGHTS
from tests import synthetic
from tests.tiny_training import MODULAR, TINY, configured


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_run_with_other_options_is_refused_and_kept(data: Path, tmp_path: Path) -> None:
    train(configured(data, tmp_path / "run", "steps=2"))
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    with pytest.raises(UserError, match="learning_rate: 0.004 there, 0.1 now"):
        train(configured(data, tmp_path / "run", "steps=2", "learning_rate=0.1"))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}


def test_a_compiler_that_fails_is_told_in_one_line(data: Path, tmp_path: Path) -> None:
    torch._dynamo.reset()  # after many compilations in a process, it runs a function as it is
    with pytest.raises(UserError, match=r"compile=tvm failed, compile=null does without: .*install.*tvm"):
        train(configured(data, tmp_path / "run", "compile=tvm"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["demos=50"], r"has 6 demonstrations and demos=50.*write more with EpisodeWriter, or give demos=6"),
        (["problems=[placing]"], r"placing.*has 0 demonstrations.*multiravens.demos problem=placing"),
        (["batch=0"], "batch=0: give 1 or more"),
        (["device=cuda:7"], "device=cuda:7 is not there"),
        (["device=quantum"], "device=quantum: give auto, cpu, cuda"),
        (["pointer=luck"], "unknown pointer 'luck': choose from visual, reward"),
        (["fusion=split", "agent=transporter"], "fusion=split needs a goal"),
        (["fusion=split", "backbone=resnet43"], "brings its own streams"),
        (["backbone=modular"], "backbone.network.depth=2: blocks are the bank's, so give 0"),
        (["resolution=tiny"], "unknown resolution 'tiny': choose from"),
        (["precision=foo"], "unknown precision 'foo': choose from"),
        (["compile=inducter"], "unknown compile 'inducter': choose from inductor"),
        (
            ["compile=inductor", "compile_mode=max-autotone"],
            "unknown compile_mode 'max-autotone': choose from max-auto",
        ),
        (["compile=eager", "compile_mode=default"], "compile_mode=default is for compile=inductor, not compile=eager"),
        (["minutes=0"], "minutes=0: give more than 0, or null"),
        (["weight_decay=-1.0"], "weight_decay=-1.0: give 0 or more"),
        (["device=cpu:0"], "device=cpu:0: give auto, cpu, cuda"),
        (["threads=-1"], "threads=-1: give 1 to 1024"),
        (["problems=5"], "problems=5: give a list or a text, such as"),
        (["agent.rotations=0"], "agent.rotations=0: give 1 or more"),
        (["agent.cell=0.0125"], "agent.cell=0.0125 is 2 pixels: give a multiple of the stride, 4"),
        (["backbone.network.stride=6"], "backbone.network.stride=6: give a divisor of 160 and 80"),
        (["augmentation.se2.turn_degrees=-1.0"], "SE2: turn_degrees=-1.0, shift=0.16667: give 0 or more"),
        (
            ["augmentation.turn_degrees=20.0"],
            "unknown option 'augmentation.turn_degrees': choose from augmentation.se2.t",
        ),
        (["augmentation=se3"], "unknown augmentation 'se3': choose from se2"),
    ],
)
def test_bad_input_is_told_in_one_line(overrides: list[str], message: str, data: Path, tmp_path: Path) -> None:
    words = [word for word in TINY if not ("backbone=resnet43" in overrides and word.startswith("backbone."))]
    with pytest.raises(UserError, match=message):
        config = OmegaConf.to_container(
            compose("train", [*words, f"data='{data}'", f"run='{tmp_path / 'run'}'", *overrides])
        )
        assert isinstance(config, dict)
        train({str(key): value for key, value in config.items()})


def test_the_stride_of_a_network_is_its_own_wherever_it_comes_from(data: Path) -> None:
    config: dict[str, Any] = configured(data, Path("unused"))
    assert config["backbone"]["network"].pop("stride") == 4  # as of a class with a default of its own
    assert build(config)[0].cell == 4
    config["agent"] |= {"cell": 0.0125}
    with pytest.raises(UserError, match="agent.cell=0.0125 is 2 pixels: give a multiple of the stride, 4"):
        build(config)


def test_damaged_foreign_and_hostile_runs_are_refused(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(configured(data, run, "steps=2"))
    weights, config = (run / WEIGHTS).read_bytes(), (run / CONFIG).read_text()
    (run / WEIGHTS).write_bytes(weights[: len(weights) // 2])
    with pytest.raises(UserError, match="not a whole checkpoint"):
        load_agent(run)
    (run / WEIGHTS).write_bytes(weights)
    (run / CONFIG).write_text(config.replace("width: 16", "width: 24"))
    with pytest.raises(UserError, match="another network"):
        load_agent(run)
    (run / CONFIG).write_text(config.replace("multiravens.agents.acting.conditioning.NextGoals", "os.system"))
    with pytest.raises(UserError, match="only classes of"):
        load_agent(run)
    (run / CONFIG).write_text("agent: !!python/object/apply:os.system ['true']")
    with pytest.raises(UserError, match="not valid YAML"):
        load_agent(run)
    with pytest.raises(UserError, match="not a run folder"):
        load_agent(tmp_path / "nowhere")


def test_a_remedy_can_be_followed_in_the_same_folder(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="weight"):
        train(configured(data, tmp_path / "run", "task_sampling=explicit", "task_sampling.weights={synthetic:0}"))
    train(configured(data, tmp_path / "run", "task_sampling=uniform", "steps=1"))


def test_programs_are_of_the_problems_that_names_stand_for(data: Path, tmp_path: Path) -> None:
    synthetic.write(tmp_path / "data", 2, "chaining-placing")
    words = [*MODULAR, "problems=[placing-chaining]", "demos=2", "steps=1"]
    train(configured(tmp_path / "data", tmp_path / "run", *words))
    assert load_agent(tmp_path / "run").network.streams.problems == ["chaining-placing"]


@pytest.mark.parametrize(
    "allocate", [lambda *_: np.empty(2**45), lambda *_: torch.empty(2**45)], ids=["numpy", "torch"]
)
def test_out_of_memory_says_which_setting_to_lower(
    allocate: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiravens.agents.training.session.Demonstrations", allocate)
    with pytest.raises(UserError, match="out of memory with batch=.*: lower batch"):
        train(configured(data, tmp_path / "run"))


def test_out_of_memory_in_a_step_says_which_batch_fits(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    score = Trainer.score

    def scarce(self: Trainer, inputs: Inputs) -> Any:
        if len(inputs.samples) > 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return score(self, inputs)

    monkeypatch.setattr(Trainer, "score", scarce)
    with pytest.raises(UserError, match="out of memory with batch=8, .*: batch=2 fits"):
        train(configured(data, tmp_path / "run", "batch=8"))
