"""Speed of training and acting on this machine, as ratios to the original's configuration and to the machine's floor.

Run: python benchmarks/training.py [--rounds 3] [--threads 2] [--device auto] [--batch 8] [--data demos.safetensors]
         [--precision 32-true] [--compile inductor]

The original's configuration is `backbone=resnet43`: full resolution, 36 crops through a 43-layer network, one sample a
step, single precision. All configurations are measured in turn in each round, so that whatever else the machine does
falls on all of them; the medians of the rounds are printed.

The floor is the least time that one sample can take: its floating-point operations at the speed of a large product of
matrices here, or the fewest bytes it needs (its pictures, and its share of reading and writing weights, gradients,
moments and averages once a batch) at the speed of a large copy here, whichever is longer. With --data nothing is
simulated.
"""

import argparse
import math
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count

from multiravens.agents.acting.agent import View
from multiravens.agents.acting.policy import TransporterAgent
from multiravens.agents.training.devices import PRECISIONS, fabric_of, tensor_floats
from multiravens.agents.training.parts import make_augmentations, make_losses, make_objective
from multiravens.agents.training.session import network_of
from multiravens.agents.training.trainer import Trainer
from multiravens.data import Episode
from multiravens.data.training.demonstrations import Demonstrations, load
from multiravens.data.training.sampling import Catalogue, Sampler
from multiravens.heightmap import reduce_half
from multiravens.options.compose import compose
from multiravens.options.instantiate import instantiate
from multiravens.train import keep_memory

ORIGINAL = "resnet43, full, batch 1"
CONFIGURATIONS = {
    ORIGINAL: ["backbone=resnet43", "resolution=full", "batch=1"],
    "base, full": ["backbone=base", "resolution=full"],
    "modular, half": ["backbone=modular", "resolution=half"],
    "small, half": ["backbone=small", "resolution=half"],
}
COMPILED = ("base, full", "small, half")
"""Configurations that `--compile` compiles."""
TARGETS = {"cpu": {"base, full": 20.0, "small, half": 200.0}, "cuda": {"base, full": 50.0}}
"""Times the original's samples a second."""
_STEPS = {"cpu": {ORIGINAL: 1, "base, full": 3, "modular, half": 5, "small, half": 10}, "cuda": {ORIGINAL: 5}}
_STEPS_ELSE = 50
_TOLD = ("base, full", "modular, half", "small, half")


class Bench:
    """A configuration, ready to train.

    Args:
        overrides: of `train.yaml`.
        episodes: of each problem, at full resolution.
        memory_format: of pictures and weights.
    """

    def __init__(
        self,
        overrides: Sequence[str],
        episodes: Mapping[str, Sequence[Episode]],
        memory_format: torch.memory_format = torch.channels_last,
    ) -> None:
        config: Any = OmegaConf.to_container(compose("train", [f"problems=[{','.join(episodes)}]", *overrides]))
        self.config, self.batch = config, config["batch"]
        network, conditioning = network_of(config)
        half = config["resolution"] == "half"
        seen = {name: [_reduced(each) for each in found] if half else found for name, found in episodes.items()}
        fabric = fabric_of(config)
        self.device = fabric.device
        self.data = Demonstrations(seen, config["resolution"], self.device)
        steps = self.data.steps
        self.sampler = Sampler(
            Catalogue(self.data.tasks, steps.task, steps.episode, steps.pointer),
            instantiate(config["task_sampling"]),
            instantiate(config["step_sampling"]),
            self.batch,
            0,
        )
        options = ("steps", "seed", "learning_rate", "weight_decay", "warmup", "ema", "clip")
        self.trainer = Trainer(
            fabric,
            fabric.to_device(network).to(memory_format=memory_format),  # type: ignore[call-overload]
            conditioning,
            self.data,
            self.sampler,
            make_objective(config),
            make_losses(config, network),
            make_augmentations(config),
            Path(tempfile.gettempdir()),
            checkpoint_every=10**9,
            log_every=10**9,
            memory_format=memory_format,
            **{name: config[name] for name in options},
        )
        self.agent = TransporterAgent(network, conditioning, "sctn", config["resolution"], device=self.device)
        problem, first = next((name, found[0]) for name, found in seen.items())
        self.view = _view(first, problem)
        network.train()

    def train(self, steps: int) -> float:
        """Samples a second."""
        with tensor_floats(self.config["tf32"]):
            return self.batch * steps / _seconds(self.trainer.take_step, steps, self.device)

    def load(self, steps: int = 20) -> float:
        """Samples a second that drawing, gathering and moving give without a network."""

        def once() -> None:
            samples = self.sampler.draw(0).samples
            inputs = self.trainer.send(samples, drawn=self.trainer.draw(len(samples)))
            self.trainer.augment(self.trainer.batch(inputs), inputs.drawn)

        return self.batch * steps / _seconds(once, steps, self.device)

    def act(self, steps: int = 3) -> float:
        """Seconds an action, one view at a time."""
        self.trainer.network.eval()
        seconds = _seconds(lambda: self.agent.act([self.view], batch=1), steps, self.device)
        self.trainer.network.train()
        return seconds / steps

    def operations(self) -> float:
        """Floating-point operations that training takes a sample."""
        with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
            samples = self.sampler.draw(0).samples
            inputs = self.trainer.send(samples, drawn=self.trainer.draw(len(samples)))
            self.trainer.fabric.backward(self.trainer.total(self.trainer.score(inputs), inputs.weights))
        return counter.get_total_flops() / self.batch

    def fewest_bytes(self) -> float:
        """Bytes that training has to move a sample."""
        pictures = 1 + self.trainer.conditioning.images
        seen = pictures * (self.data.color[0].nbytes + self.data.height[0].nbytes)
        weights = sum(parameter.nbytes for parameter in self.trainer.network.parameters())
        # Weights, two moments and the average are read and written, gradients written and read.
        return seen + 10 * weights / self.batch

    def costs(self, steps: int = 3) -> list[tuple[str, float]]:
        """The five operations that take most time, each with its share."""
        cuda = self.device.type == "cuda"
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
        with profile(activities=kinds) as profiler:
            self.train(steps)
        name = "self_device_time_total" if cuda else "self_cpu_time_total"
        # On a GPU the same time is listed of kernels, of the operators that started them and of what is round those.
        kind = DeviceType.CUDA if cuda else DeviceType.CPU
        events = [event for event in profiler.key_averages() if event.device_type == kind]
        spent = {event.key: float(getattr(event, name)) for event in events if not event.is_user_annotation}
        largest = sorted(spent, key=lambda key: -spent[key])[:5]
        return [(key, spent[key] / sum(spent.values())) for key in largest]


def _seconds(action: Callable[[], object], repeats: int, device: torch.device) -> float:
    _finish(device)
    start = perf_counter()
    for _ in range(repeats):
        action()
    _finish(device)
    return perf_counter() - start


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fourier(factor: float, real_out: bool = False) -> Callable[..., int]:
    """Operations of Fourier transforms of n complex numbers, factor n log n; half of that where one side is real."""

    def count(shape: Sequence[int], dims: Sequence[int], *rest: Any, out_shape: Sequence[int], **options: Any) -> int:
        sides = out_shape if real_out else shape
        return int(factor * math.prod(sides) * math.log2(max(math.prod(sides[dim] for dim in dims), 2)))

    return count


def _convolution_backward(
    gradient: Sequence[int],
    images: Sequence[int],
    weights: Sequence[int],
    *rest: Any,
    out_shape: Any = None,
    **options: Any,
) -> int:
    """Operations of a convolution's gradients; torch's own count takes a convolution in groups for one that is not."""
    transposed, mask = rest[4], rest[7]
    return int(conv_flop_count(list(gradient), list(weights), list(images), not transposed) * (mask[0] + mask[1]))


COUNTED = {
    torch.ops.aten.convolution_backward: _convolution_backward,
    torch.ops.aten._fft_r2c: _fourier(2.5),
    torch.ops.aten._fft_c2c: _fourier(5.0),
    torch.ops.aten._fft_c2r: _fourier(2.5, real_out=True),
}


def peaks(device: torch.device, precision: str) -> tuple[float, float]:
    """Floating-point operations and bytes a second that this machine reaches: a product of matrices, and a copy."""
    side = 8192 if device.type == "cuda" else 512  # a CPU without 16-bit products takes a minute for 2048
    dtype = torch.bfloat16 if precision == "bf16-mixed" else torch.float32
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    large = torch.empty(2**30 if device.type == "cuda" else 2**27, dtype=torch.uint8, device=device)
    copy = torch.empty_like(large)
    # Convolutions may use TF32 where products of matrices may not: the floor is what the hardware can.
    allowed, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, True
    fastest = [
        min(_seconds(action, 1, device) for _ in range(5))
        for action in (lambda: one @ other, lambda: copy.copy_(large))
    ]
    torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * side**3 / fastest[0], 2 * large.nbytes / fastest[1]


def _reduced(episode: Episode) -> Episode:
    color, height = reduce_half(episode.color, episode.height)
    return replace(episode, color=color, height=height)


def _view(episode: Episode, problem: str) -> View:
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
        problem=problem,
    )


def _episodes(count: int, data: str | None) -> dict[str, list[Episode]]:
    if data:
        return load(data, ["placing"], count, "full")[0]
    from multiravens.envs import demonstrate, make

    env = make("placing")
    runs = [demonstrate(env, seed) for seed in range(count)]
    env.close()
    fields = Episode.__dataclass_fields__
    return {"placing": [Episode(**{name: getattr(run, name) for name in fields}) for run in runs]}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="32-true", choices=PRECISIONS)
    parser.add_argument("--batch", type=int, default=8, help="of all configurations but the original's")
    parser.add_argument("--compile", help="the plain networks, with this backend of torch.compile")
    parser.add_argument("--data", help="a folder or a pack with 4 demonstrations of placing, at full resolution")
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(options.threads)
    episodes = _episodes(4, options.data)
    benches = {
        name: Bench([*overrides, *_asked(name, options)], episodes) for name, overrides in CONFIGURATIONS.items()
    }
    kind = benches[ORIGINAL].device.type
    for bench in benches.values():
        bench.train(1 if kind == "cpu" else 10)
    speeds: dict[str, list[float]] = {name: [] for name in benches}
    for _ in range(options.rounds):
        for name, bench in benches.items():
            speeds[name].append(bench.train(_STEPS[kind].get(name, _STEPS_ELSE)))
    medians = {name: statistics.median(measured) for name, measured in speeds.items()}
    compiled = f", compile={options.compile}" if options.compile else ""
    title = f"Training, {kind}, batch {options.batch}, {options.precision}, {options.threads} threads{compiled}"
    table = Table("figure", "measured", "target", title=title)
    for name, measured in medians.items():
        target = f">= {TARGETS[kind][name]:.0f}x" if name in TARGETS[kind] else ""
        table.add_row(f"training, {name}", f"{measured:.2f} samples/s, {measured / medians[ORIGINAL]:.0f}x", target)
    for name in _TOLD:
        table.add_row(
            f"data alone, {name}", f"{benches[name].load() / medians[name]:.1f}x what the network takes", ">= 5x"
        )
    for name in _TOLD:
        seconds = np.median([benches[name].act() for _ in range(3)])
        table.add_row(f"one action, {name}", f"{seconds:.4f} s", "<= 0.15 s" if kind == "cpu" else "<= 0.01 s")
    _add_floor(table, benches, medians, options.precision)
    Console(width=150).print(table)


def _asked(name: str, options: argparse.Namespace) -> list[str]:
    """Overrides of a configuration that the command's options stand for."""
    words = [f"device={options.device}"]
    if name != ORIGINAL:
        words += [f"batch={options.batch}", f"precision={options.precision}"]
    if name in COMPILED and options.compile:
        words.append(f"compile={options.compile}")
    return words


def _add_floor(table: Table, benches: Mapping[str, Bench], medians: Mapping[str, float], precision: str) -> None:
    operations, moved = peaks(benches[ORIGINAL].device, precision)
    # Counting operations has torch run what is compiled as it is written, and so it stays.
    costs = {name: benches[name].costs() for name in _TOLD}
    table.add_row("this machine", f"{operations / 1e12:.2f} TFLOP/s, {moved / 1e9:.1f} GB/s", "")
    for name in _TOLD:
        bench = benches[name]
        count, size = bench.operations(), bench.fewest_bytes()
        floor = max(count / operations, size / moved)
        told = f"{count / 1e9:.2f} GFLOP, {size / 1e6:.2f} MB: {1 / floor:.0f} samples/s"
        table.add_row(
            f"floor, {name}",
            f"{told}, reached {medians[name] * floor:.1%}",
            ">= 20 %" if bench.device.type == "cuda" else "",
        )
        for operation, share in costs[name]:
            table.add_row(f"  costs, {name}", f"{share:.1%} {operation[:80]}", "")


if __name__ == "__main__":
    main()
