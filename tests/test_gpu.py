"""Laws that only a GPU can show: nothing waits, pictures may stay in the host's memory, and it learns as on a CPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from multiravens.agents.acting.load import load_agent
from multiravens.agents.networks.checkpoint import read_tensors
from multiravens.agents.training.session import train
from multiravens.agents.training.trainer import Trainer
from multiravens.data.training import demonstrations
from multiravens.data.training.demonstrations import Demonstrations
from multiravens.support.runs import STATE
from tests import synthetic

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

TINY = ["problems=[synthetic,other]", "demos=6", "batch=8", "checkpoint_every=1000", "log_every=10", "device=cuda"]


def configured(data: Path, run: Path, *overrides: str) -> dict[str, object]:
    return synthetic.configured(*TINY, f"data='{data}'", f"run='{run}'", *overrides)


@pytest.mark.parametrize("backbone", ["small", "modular"])
def test_the_host_waits_for_nothing(backbone: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take_step = Trainer.take_step

    def watched(self: Trainer) -> None:
        # The first steps choose kernels; what waits is an error afterwards.
        torch.cuda.set_sync_debug_mode("error" if self.step > 5 else "default")
        try:
            take_step(self)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(Trainer, "take_step", watched)
    train(configured(data, tmp_path / "run", f"backbone={backbone}", "steps=12", "task_sampling=adaptive"))


@pytest.mark.parametrize(
    "words", ["precision=32-true", "precision=bf16-mixed", "compile=inductor", "compile=cudagraphs"]
)
def test_it_learns_as_on_a_cpu(words: str, data: Path, tmp_path: Path) -> None:
    figures = train(configured(data, tmp_path / "run", "backbone=small", "steps=150", words))
    assert figures["accuracy_pick"] > 0.8 and figures["accuracy_place"] > 0.6
    assert load_agent(tmp_path / "run").network is not None  # on a CPU


def test_batches_are_the_same_wherever_the_pictures_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    episodes = {"synthetic": [synthetic.episode(seed) for seed in range(4)]}
    samples = np.arange(8)
    goals = np.zeros((8, 1), np.int64)
    there = Demonstrations(episodes, "half", "cuda")
    monkeypatch.setattr(demonstrations, "RESIDENT", 0.0)
    here = Demonstrations(episodes, "half", "cuda")
    assert there.resident and not here.resident
    plain = Demonstrations(episodes, "half")
    for each in (there, here):
        batch = each.batch(samples, goals)
        assert batch.images.is_cuda
        for one, other in zip(batch[:5], plain.batch(samples, goals)[:5], strict=True):
            torch.testing.assert_close(one.cpu(), other)


def test_a_run_is_taken_up_on_a_cpu(data: Path, tmp_path: Path) -> None:
    words = ["backbone=small", "steps=12"]
    with pytest.raises(KeyboardInterrupt):
        train(configured(data, tmp_path / "run", *words, "checkpoint_every=4", "log_every=1"), _interrupt)
    train(configured(data, tmp_path / "run", *words, "log_every=1", "device=cpu"))
    assert read_tensors(tmp_path / "run" / STATE)[1]["step"] == 12


def _interrupt(step: int, figures: object) -> None:
    if step == 6:
        raise KeyboardInterrupt
