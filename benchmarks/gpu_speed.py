"""Stages of `gpu.py` that measure speed, each against a reference in the same run; imported by it, not run.

Both configurations take steps in turn, so that whatever else the machine does falls on both.
"""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from training import Bench, peaks

from multiravens.agents.networks.modular import grouped
from multiravens.agents.networks.modular import streams as modular
from multiravens.agents.training.devices import is_out_of_memory
from multiravens.data.storage.episode import Episode
from multiravens.errors import UserError

Switch = Callable[[], Any]
"""Makes a context in which a variant computes in another way."""


@contextmanager
def sixteen_bit_norms() -> Iterator[None]:
    """Compute group normalisation in the kind of numbers that comes in, where autocast would take 32 bits."""
    known = functional.group_norm

    def as_given(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return known(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps)

    functional.group_norm = as_given
    try:
        yield
    finally:
        functional.group_norm = known


@contextmanager
def chosen_kernels() -> Iterator[None]:
    """Have cuDNN try its kernels and keep the fastest."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def slots(size: int | None) -> Iterator[None]:
    """Give each group of the programs' convolutions so many samples; None leaves it as it is."""
    before = dict(modular.SLOTS)
    if size is not None:
        modular.SLOTS.update(cpu=size, cuda=size)
    try:
        yield
    finally:
        modular.SLOTS.clear()
        modular.SLOTS.update(before)


@contextmanager
def channels_first() -> Iterator[None]:
    """Lay the programs' convolutions out by channel."""
    before = set(grouped.CHANNELS_LAST)
    grouped.CHANNELS_LAST.clear()
    try:
        yield
    finally:
        grouped.CHANNELS_LAST.update(before)


@contextmanager
def one_by_one() -> Iterator[None]:
    """Run each problem's programs by themselves."""
    known = modular.ModularStreams.forward

    def apart(self: Any, images: Tensor, tasks: Any) -> Any:
        if tasks.only is not None:
            return known(self, images, tasks)
        return modular.StreamMaps(*modular.by_problem(tasks, lambda task, own: self._run(task, images[own])))

    modular.ModularStreams.forward = apart  # type: ignore[method-assign]
    try:
        yield
    finally:
        modular.ModularStreams.forward = known  # type: ignore[method-assign]


class Variant(NamedTuple):
    """A configuration to be measured.

    Attributes:
        words: overrides of `train.yaml`.
        memory_format: of pictures and weights.
        switch: what it computes in another way; None for nothing.
        steps: of one round.
        explained: its floor and largest costs are measured, too.
    """

    words: tuple[str, ...]
    memory_format: torch.memory_format = torch.channels_last
    switch: Switch | None = None
    steps: int = 15
    explained: bool = True


@dataclass
class Measured:
    """A variant that is being measured."""

    variant: Variant
    bench: Bench
    first: float = 0.0
    memory: int | None = None
    speeds: list[float] = field(default_factory=list)

    def take(self, steps: int) -> float:
        """Samples a second over some steps."""
        with self.variant.switch() if self.variant.switch else _nothing():
            return self.bench.train(steps)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def measure(
    variants: Mapping[str, Variant],
    episodes: Mapping[str, Sequence[Episode]],
    machine: Mapping[str, Any],
    rounds: int,
    until: float = float("inf"),
) -> dict[str, dict[str, Any]]:
    """Measure variants in turn; the first one is the reference of the ratios.

    Args:
        variants: by name.
        episodes: of each problem, at full resolution.
        machine: speeds of products and copies, as `speeds_of` gives them.
        rounds: how often each is measured.
        until: after which no further round is begun, on `time.monotonic`'s clock [s].

    Returns:
        Figures of each.

    Raises:
        UserError: memory does not suffice; the line says which batch would fit.
    """
    prepared = {name: _prepare(name, variant, episodes) for name, variant in variants.items()}
    for done in range(rounds):
        if done and monotonic() > until:
            break
        for each in prepared.values():
            each.speeds.append(each.take(each.variant.steps))
    reference = next(iter(prepared.values())).speeds
    return {name: _figures(each, reference, machine) for name, each in prepared.items()}


def _prepare(name: str, variant: Variant, episodes: Mapping[str, Sequence[Episode]]) -> Measured:
    try:
        held = torch.cuda.memory_allocated() if torch.cuda.is_available() else 0
        made = Measured(variant, Bench(variant.words, episodes, variant.memory_format))
        start = perf_counter()
        made.take(1)
        made.first = perf_counter() - start
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        if variant.steps > 1:
            made.take(max(variant.steps // 3, 1))  # kernels are chosen and memory is taken in the first steps
        if torch.cuda.is_available():
            made.memory = torch.cuda.max_memory_allocated() - held
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return made
    torch.cuda.empty_cache()
    raise UserError(_fitting(name, variant, episodes))


def _fitting(name: str, variant: Variant, episodes: Mapping[str, Sequence[Episode]]) -> str:
    """Say which batch fits."""
    words = dict(word.split("=", 1) for word in variant.words)
    asked, size = int(words["batch"]), int(words["batch"]) // 2
    while size:
        smaller = tuple(f"{key}={value}" for key, value in {**words, "batch": size}.items())
        try:
            Bench(smaller, episodes, variant.memory_format).train(1)
            return f"out of memory: {name} with batch={asked}: batch={size} fits"
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        torch.cuda.empty_cache()
        size //= 2
    return f"out of memory: {name} with batch={asked}: not even batch=1 fits"


def _figures(each: Measured, reference: Sequence[float], machine: Mapping[str, Any]) -> dict[str, Any]:
    bench, speed = each.bench, statistics.median(each.speeds)
    ratios = [own / other for own, other in zip(each.speeds, reference, strict=True)]
    figures = {
        "words": list(each.variant.words),
        "samples_per_second": speed,
        "rounds": each.speeds,
        "ratio": statistics.median(ratios),
        "first_step_seconds": each.first,
        "peak_memory_bytes": each.memory,
        "parameters": sum(parameter.numel() for parameter in bench.trainer.network.parameters()),
    }
    return figures | (_explained(each, speed, machine) if each.variant.explained else {})


def _explained(each: Measured, speed: float, machine: Mapping[str, Any]) -> dict[str, Any]:
    """The share of the floor that is reached, and the five operations that take most time."""
    bench = each.bench
    # Counting operations has torch run what is compiled as it is written, and so it stays: costs come first.
    with each.variant.switch() if each.variant.switch else _nothing():
        costs = bench.costs(min(each.variant.steps, 3))
    operations, moved = machine["operations"][bench.config["precision"]], machine["bytes"]
    with one_by_one():  # what is computed for padding is no work that is needed
        floor = max(bench.operations() / operations, bench.fewest_bytes() / moved)
    return {
        "floor_samples_per_second": 1 / floor,
        "share_of_floor": speed * floor,
        "costs": [{"operation": name, "share": share} for name, share in costs],
    }


def speeds_of(device: torch.device) -> dict[str, Any]:
    """Floating-point operations a second by precision, and bytes a second, that the machine reaches."""
    fastest = {precision: peaks(device, precision) for precision in ("32-true", "bf16-mixed")}
    operations = {precision: each[0] for precision, each in fastest.items()}
    return {"operations": operations, "bytes": max(each[1] for each in fastest.values())}


def act(words: Sequence[str], episodes: Mapping[str, Sequence[Episode]], rounds: int) -> dict[str, Any]:
    """Seconds that one action takes, one view at a time."""
    bench = Bench(words, episodes)
    bench.act(2)
    seconds = [bench.act() for _ in range(rounds)]
    return {"words": list(words), "seconds_per_action": statistics.median(seconds), "rounds": seconds}
