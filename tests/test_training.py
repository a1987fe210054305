"""Training without a simulator: it learns, resumes to the bit, and spreads over processes."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch.utils._python_dispatch import TorchDispatchMode

from multiravens.agents.acting.load import build, load, load_agent
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.training.dataset_metrics import shown
from multiravens.agents.training.devices import tensor_floats
from multiravens.agents.training.objectives import judge
from multiravens.agents.training.self_training import OBJECTIVES
from multiravens.agents.training.session import learn, network_of, train
from multiravens.agents.training.trainer import Inputs, Trainer
from multiravens.data.training.augmentation import SE2
from multiravens.data.training.demonstrations import Demonstrations
from multiravens.errors import UserError
from multiravens.options.compose import compose
from multiravens.support.runs import METRICS, STATE, WEIGHTS
from tests import synthetic
from tests.tiny_training import MODULAR, TINY, configured


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("agent", ["transporter", "gctn", "gctn_step", "sctn"])
def test_every_agent_trains_and_acts(agent: str, data: Path, tmp_path: Path) -> None:
    figures = train(configured(data, tmp_path / "run", f"agent={agent}", "steps=2"))
    assert np.isfinite(figures["loss_pick"] + figures["loss_place"])
    episode = synthetic.episode(50)
    goals = list(zip(episode.color[1:], episode.height[1:], strict=True))
    action = load(tmp_path / "run").act(episode.color[0], episode.height[0], goals)
    assert {key: value.shape for key, value in action.items()} == {
        "pick_position": (3,),
        "pick_quaternion": (4,),
        "place_position": (3,),
        "place_quaternion": (4,),
    }


def test_it_learns_to_put_blocks_where_the_goal_shows_them(data: Path, tmp_path: Path) -> None:
    figures = train(configured(data, tmp_path / "run", "steps=60", "batch=8", "demos=6", "checkpoint_every=60"))
    assert figures["accuracy_pick"] > 0.8 and figures["accuracy_place"] > 0.6


@pytest.mark.parametrize("extra", [[], MODULAR], ids=["plain", "modular"])
def test_a_killed_run_ends_with_the_same_bytes_as_an_undisturbed_one(
    extra: list[str], data: Path, tmp_path: Path
) -> None:
    options = [*TINY, "steps=30", "log_every=3", "step_sampling=prioritised", "task_sampling=adaptive", *extra]
    options.append(f"data={data}")
    command = [sys.executable, "-m", "multiravens.train", *options]
    subprocess.run([*command, f"run={tmp_path / 'whole'}"], check=True, capture_output=True)
    killed = subprocess.Popen([*command, f"run={tmp_path / 'killed'}"], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path / "killed" / STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 0 < read_tensors(tmp_path / "killed" / STATE)[1]["step"] < 30  # or there would be nothing to take up
    subprocess.run([*command, f"run={tmp_path / 'killed'}"], check=True, capture_output=True)
    for name in (WEIGHTS, STATE, METRICS):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name


class _Killed(Exception):
    pass


@pytest.mark.parametrize("kill_at", [3, 5])
def test_losses_that_come_late_are_not_lost_with_a_killed_run(
    kill_at: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on a GPU, whose figures are waited for two steps later.
    monkeypatch.setattr("multiravens.agents.training.figures.LAGS", {"cpu": 2})
    words = ["steps=8", "checkpoint_every=2", "step_sampling=prioritised", "task_sampling=adaptive"]
    whole, killed = (configured(data, tmp_path / name, *words) for name in ("whole", "killed"))
    train(whole)

    def kill(step: int, figures: object) -> None:
        if step == kill_at:
            raise _Killed

    with pytest.raises(_Killed):
        train(killed, kill)
    train(killed)
    for name in (WEIGHTS, STATE):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes(), name
    monkeypatch.undo()
    train(configured(data, tmp_path / "prompt", *words))
    late, prompt = (read_tensors(tmp_path / name / STATE)[0] for name in ("whole", "prompt"))
    assert late["sampler.drawn"].sum() == prompt["sampler.drawn"].sum() == 8 * 4
    assert not late["sampler.losses"].isnan().all()  # the last ones were waited for


@pytest.mark.parametrize("minutes", [1, 2])
def test_a_run_that_is_out_of_time_is_taken_up_to_the_same_bytes(
    minutes: int, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configured(data, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        patch.setattr("multiravens.agents.training.session.time.monotonic", iter(np.arange(0.0, 600.0, 20.0)).__next__)
        figures = train(configured(data, tmp_path / "sliced", f"minutes={minutes}", "checkpoint_every=100"))
    assert figures["step"] == 3 * minutes
    assert read_tensors(tmp_path / "sliced" / STATE)[1]["step"] == 3 * minutes
    if minutes == 1:
        assert train(configured(data, tmp_path / "sliced"))["step"] == 6
    for name in (WEIGHTS, STATE, METRICS):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "sliced" / name).read_bytes(), name


class Asked(TorchDispatchMode):
    """Counts how often a tensor is asked for its number, or made of the host's numbers."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names, self.counted = names or ("_local_scalar_dense", "lift_fresh"), 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted += any(name in str(operator) for name in self.names)
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("objective", "extra"), [("", []), ("", MODULAR), ("entropy", MODULAR), ("consistency", MODULAR)]
)
def test_a_step_sends_once_and_then_asks_the_host_for_nothing(
    objective: str, extra: list[str], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    score = Trainer.score

    def alone(self: Trainer, inputs: Inputs) -> Any:
        sent.append(self.step)
        with monkeypatch.context() as patch, Asked() as asked:
            patch.delattr(torch, "from_numpy")
            scored = score(self, inputs)
        assert asked.counted == 0
        return scored

    monkeypatch.setattr(Trainer, "score", alone)
    config = configured(data, tmp_path / "run", *extra, "steps=3", "task_sampling=adaptive")
    problems: Any = config["problems"]
    learn(config, problems, *network_of(config), config, objective=OBJECTIVES[objective]() if objective else None)
    assert sent == [0, 1, 2]


def test_a_checkpoint_asks_the_device_once_however_many_tensors_it_has(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    save = Trainer._save

    def watched(self: Trainer) -> None:
        with Asked("_local_scalar_dense") as asked:
            save(self)
        counts.append(asked.counted)

    monkeypatch.setattr(Trainer, "_save", watched)
    train(configured(data, tmp_path / "run", *MODULAR, "steps=2", "checkpoint_every=2"))
    assert counts == [1]


def test_tensor_floats_are_as_they_were_afterwards() -> None:
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    for allowed in (True, False):
        with pytest.raises(_Killed), tensor_floats(allowed):
            assert (matmul.allow_tf32, convolutions.allow_tf32) == (allowed, allowed)
            raise _Killed
        assert (matmul.allow_tf32, convolutions.allow_tf32) == before


def test_bfloat16_gives_nearly_the_losses_and_gradients_of_float32(data: Path) -> None:
    torch.manual_seed(0)
    network, conditioning = build(configured(data, Path("unused"), *MODULAR))
    demonstrations = Demonstrations({"synthetic": [synthetic.episode(seed) for seed in range(4)]}, "half")
    batch = shown(demonstrations, conditioning, np.arange(8))
    for parameter in network.parameters():
        if not parameter.any():  # blocks are the identity at first
            torch.nn.init.normal_(parameter, std=0.1)
    outcomes, gradients = [], []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            scored = network(batch.images, batch.pick, batch.place, Tasks.of([0] * 8))
        outcome = judge(scored, batch)
        (outcome.pick + outcome.place).mean().backward()
        outcomes.append(torch.stack([outcome.pick, outcome.place]).detach())
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    assert scored.pick.dtype == torch.bfloat16  # or nothing was tested
    torch.testing.assert_close(outcomes[1], outcomes[0], atol=0.05, rtol=0.02)
    assert torch.cosine_similarity(gradients[0], gradients[1], dim=0) > 0.98


def test_it_trains_and_acts_where_no_simulator_can_be_imported(data: Path, tmp_path: Path) -> None:
    script = f"""
import sys
for name in ("pybullet", "gymnasium"):
    sys.modules[name] = None
from multiravens.train import main
assert main({[*TINY, "steps=2", f"data={data}", f"run={tmp_path / 'run'}"]!r}) == 0
import multiravens
from tests import synthetic
from tests.tiny_training import MODULAR, TINY, configured
episode = synthetic.episode(9)
agent = multiravens.load({str(tmp_path / "run")!r})
action = agent.act(episode.color[0], episode.height[0], list(zip(episode.color[1:], episode.height[1:])))
assert action["pick_position"].shape == (3,)
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[1], capture_output=True)


SPAWNED = [sys.executable, "-m", "multiravens.train", "devices=2"]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
TORCHRUN += ["-m", "multiravens.train"]


@pytest.mark.parametrize(
    ("extra", "command"), [([], TORCHRUN), (MODULAR, SPAWNED)], ids=["plain by torchrun", "modular by devices=2"]
)
def test_two_processes_take_the_steps_of_one(extra: list[str], command: list[str], data: Path, tmp_path: Path) -> None:
    options = [*TINY, f"data={data}", "steps=3", "checkpoint_every=3", *extra]
    train(configured(data, tmp_path / "one", *options))
    run = subprocess.run([*command, *options, f"run={tmp_path / 'two'}"], capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    # After one step AdamW's first moment is a tenth of the gradient, so equal moments are equal gradients.
    one, two = (read_tensors(tmp_path / name / STATE)[0] for name in ("one", "two"))
    for name, tensor in one.items():
        if "exp_avg." in name:
            torch.testing.assert_close(two[name], tensor, atol=1e-5, rtol=0)
    assert torch.equal(one["sampler.drawn"], two["sampler.drawn"])  # each sample by one process, and none twice


def test_a_run_of_two_processes_is_taken_up_by_one(data: Path, tmp_path: Path) -> None:
    options = [*TINY, f"data={data}", "steps=12", "checkpoint_every=1"]
    train(configured(data, tmp_path / "one", *options))
    killed = subprocess.Popen(
        [*TORCHRUN, *options, f"run={tmp_path / 'both'}"], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "both" / STATE).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert 0 < read_tensors(tmp_path / "both" / STATE)[1]["step"] < 12
    deadline = time.monotonic() + 60
    while True:  # torchrun's workers are in sessions of their own, and end when they notice
        try:
            train(configured(data, tmp_path / "both", *options))
            break
        except UserError as error:
            assert "another command is writing" in str(error) and time.monotonic() < deadline
            time.sleep(0.1)
    one, both = (read_tensors(tmp_path / name / STATE) for name in ("one", "both"))
    assert one[1]["step"] == both[1]["step"] == 12
    assert torch.equal(one[0]["sampler.drawn"], both[0]["sampler.drawn"])
    for name, tensor in one[0].items():
        if name.startswith("averaged."):
            torch.testing.assert_close(both[0][name], tensor, atol=1e-2, rtol=0)


def test_processes_that_do_not_share_the_folder_are_told(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightning_fabric.Fabric.all_gather", lambda self, value: torch.stack([value, value + 2]))
    with pytest.raises(UserError, match=r"at steps \[0, 2\]: give a folder that they share"):
        train(configured(data, tmp_path / "run"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["batch=3"], "batch=3 is not a multiple of 2 processes: give one that is"),
        (["devices=3", "batch=6"], "devices=3: torchrun started 2 processes here; leave devices out"),
    ],
)
def test_what_torchrun_cannot_share_out_is_told(words: list[str], message: str, data: Path, tmp_path: Path) -> None:
    options = [*TINY, f"data={data}", f"run={tmp_path / 'run'}", *words]
    run = subprocess.run([*TORCHRUN, *options], capture_output=True, text=True, timeout=240)
    assert run.returncode != 0 and message in run.stderr
    assert not (tmp_path / "run").exists()


def test_picture_pick_and_place_move_together() -> None:
    demonstrations = Demonstrations({"synthetic": [synthetic.episode(seed) for seed in range(8)]}, "full")
    samples = np.arange(len(demonstrations.steps.task))
    batch = demonstrations.batch(samples, demonstrations.steps.pointer[samples, None])
    se2 = SE2()
    turned = se2.apply(batch, torch.from_numpy(se2.draw(len(samples), (320, 160), np.random.default_rng(0))))
    assert (turned.pick - batch.pick).abs().max() > 20
    for index in samples:
        for name, channel in (("pick", 3), ("place", 7)):  # height of the observation, and of the goal
            row, column = getattr(turned, name)[index].round().long().tolist()
            assert turned.images[index, channel, row, column] == pytest.approx(1.0)


def test_moving_nothing_changes_nothing() -> None:
    demonstrations = Demonstrations({"synthetic": [synthetic.episode(1)]}, "full")
    batch = demonstrations.batch(np.array([0]), np.array([[0]]))
    still = SE2(0.0, 0.0)
    drawn = torch.from_numpy(still.draw(1, (320, 160), np.random.default_rng(0)))
    torch.testing.assert_close(still.apply(batch, drawn).images, batch.images, atol=1e-3, rtol=0)


@pytest.mark.parametrize("extra", [[], MODULAR], ids=["plain", "modular"])
def test_a_compiled_network_takes_the_same_steps(extra: list[str], data: Path, tmp_path: Path) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for name, words in {"plain": [], "compiled": ["compile=eager"]}.items():
        train(configured(data, tmp_path / name, *extra, *words, "steps=4"))
    # One graph, of the first step: nothing that changes from step to step has another made.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    plain, compiled = (read_tensors(tmp_path / name / WEIGHTS)[0] for name in ("plain", "compiled"))
    torch.testing.assert_close(plain, compiled, rtol=1e-3, atol=1e-4)
    # Taken up without, and by an agent: the files are as of a plain network.
    assert train(configured(data, tmp_path / "compiled", *extra, "steps=4"))["parameters"] > 0
    assert load_agent(tmp_path / "compiled").network is not None


def test_the_same_seed_starts_the_same_network() -> None:
    config = compose("train", TINY)
    plain = OmegaConf.to_container(config)
    assert isinstance(plain, dict)
    weights = []
    for _ in range(2):
        torch.manual_seed(0)
        weights.append(build({str(key): value for key, value in plain.items()})[0].state_dict())
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
