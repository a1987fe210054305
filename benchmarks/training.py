"""Speed of training and acting on this machine, as ratios to the original's configuration.

Run: python benchmarks/training.py [--rounds 3] [--threads 2]

The original's configuration is `backbone=resnet43`: full resolution, 36 crops through a 43-layer network, one sample a
step, single precision. All configurations are measured in turn in each round, so that whatever else the machine does
falls on all of them; the medians of the rounds are printed.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from multiravens.agents.agent import View
from multiravens.agents.load import build
from multiravens.agents.policy import TransporterAgent
from multiravens.agents.session import fabric_of
from multiravens.agents.training import Trainer
from multiravens.configuration import compose
from multiravens.construction import instantiate
from multiravens.data import Episode
from multiravens.data.augmentation import SE2
from multiravens.data.demonstrations import Demonstrations
from multiravens.data.sampling import Catalogue, Sampler
from multiravens.envs import demonstrate, make
from multiravens.heightmap import reduce_half
from multiravens.train import keep_memory

CONFIGURATIONS = {
    "resnet43, full, batch 1": ["backbone=resnet43", "resolution=full", "batch=1"],
    "base, full": ["backbone=base", "resolution=full"],
    "small, half": ["backbone=small", "resolution=half"],
}
TARGETS = {"base, full": 20.0, "small, half": 200.0}
_STEPS = {"resnet43, full, batch 1": 1, "base, full": 3, "small, half": 10}


class Bench:
    """A configuration, ready to train.

    Args:
        overrides: of `train.yaml`.
        episodes: at full resolution.
    """

    def __init__(self, overrides: list[str], episodes: list[Episode]) -> None:
        config: Any = OmegaConf.to_container(compose("train", overrides))
        torch.manual_seed(0)
        network, conditioning = build(config)
        half = config["resolution"] == "half"
        seen = [_reduced(episode) for episode in episodes] if half else episodes
        self.data = Demonstrations({"placing": seen}, config["resolution"])
        steps = self.data.steps
        self.batch = config["batch"]
        self.sampler = Sampler(
            Catalogue(self.data.tasks, steps.task, steps.episode, steps.pointer),
            instantiate(config["task_sampling"]),
            instantiate(config["step_sampling"]),
            self.batch,
            0,
        )
        options = ("steps", "seed", "learning_rate", "weight_decay", "warmup", "ema", "clip")
        self.trainer = Trainer(
            fabric_of(config),
            network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            conditioning,
            self.data,
            self.sampler,
            SE2(),
            Path(tempfile.gettempdir()),
            checkpoint_every=10**9,
            log_every=10**9,
            **{name: config[name] for name in options},
        )
        self.agent = TransporterAgent(network, conditioning, "sctn", config["resolution"])
        self.view = _view(seen[0])

    def train(self, steps: int) -> float:
        """Samples a second."""
        return self.batch * steps / _seconds(lambda: self.trainer.take_step(), steps)

    def load(self, steps: int = 20) -> float:
        """Samples a second that drawing, gathering and moving give without a network."""

        def once() -> None:
            samples = self.sampler.draw(0).samples
            warp = self.trainer.warp(samples)
            self.trainer.batch(samples, warp)

        return self.batch * steps / _seconds(once, steps)

    def act(self, steps: int = 3) -> float:
        """Seconds an action, one view at a time."""
        return _seconds(lambda: self.agent.act([self.view], batch=1), steps) / steps


def _seconds(action: Callable[[], object], repeats: int) -> float:
    start = perf_counter()
    for _ in range(repeats):
        action()
    return perf_counter() - start


def _reduced(episode: Episode) -> Episode:
    color, height = reduce_half(episode.color, episode.height)
    return replace(episode, color=color, height=height)


def _view(episode: Episode) -> View:
    goals = episode.goal_frames
    return View(
        episode.color[0],
        episode.height[0],
        episode.color[0],
        episode.height[0],
        episode.color[goals],
        episode.height[goals],
        step=0,
        pointer=0,
        seed=episode.seed,
    )


def _episodes(count: int) -> list[Episode]:
    env = make("placing")
    runs = [demonstrate(env, seed) for seed in range(count)]
    env.close()
    return [Episode(**{name: getattr(run, name) for name in Episode.__dataclass_fields__}) for run in runs]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(options.threads)
    episodes = _episodes(4)
    benches = {name: Bench(overrides, episodes) for name, overrides in CONFIGURATIONS.items()}
    for bench in benches.values():
        bench.train(1)
    speeds: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(options.rounds):
        for name, bench in benches.items():
            speeds[name].append(bench.train(_STEPS[name]))
    original = statistics.median(speeds["resnet43, full, batch 1"])
    table = Table("figure", "measured", "target", title=f"Training, {options.threads} threads")
    for name, measured in speeds.items():
        ratio = statistics.median(measured) / original
        target = f">= {TARGETS[name]:.0f}x" if name in TARGETS else ""
        table.add_row(f"training, {name}", f"{statistics.median(measured):.2f} samples/s, {ratio:.0f}x", target)
    for name in ("base, full", "small, half"):
        bench = benches[name]
        share = bench.load() / statistics.median(speeds[name])
        table.add_row(f"data alone, {name}", f"{share:.1f}x what the network takes", ">= 5x")
    for name in ("base, full", "small, half"):
        table.add_row(f"one action, {name}", f"{np.median([benches[name].act() for _ in range(3)]):.3f} s", "<= 0.15 s")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
