"""The stages of `gpu.py`, the most telling first; imported by it, not run."""

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import gpu_speed as speed
import torch
from gpu_speed import Variant
from training import CONFIGURATIONS, ORIGINAL

from multiravens.agents.adaptation.export import export
from multiravens.data.storage.episode import Episode
from multiravens.data.storage.pack import Pack
from multiravens.data.training.demonstrations import load
from multiravens.errors import UserError
from multiravens.options.compose import compose
from multiravens.support.runs import CONFIG, METRICS, read_config
from multiravens.train import carry_out

ROOT = Path(__file__).resolve().parents[1]
SPLIT = "train"
RUNS, AGENTS = "runs", "agents"
"""Folders: of what is being trained, and of what has been."""
MEASURED_WITH = 4
"""Demonstrations of each problem that speed is measured on."""
MODES = ("inductor", "reduce-overhead")
"""Ways to compile."""
SLOTS = (1, 8)
"""Sizes of the groups of the programs' convolutions that are tried beside the usual one."""
SMALL = "plain, batch 64"
WORTH = 0.8
"""Share of the large batch's speed from which the small batch, which takes more steps, is trained with."""


class Setting(NamedTuple):
    """Inputs of a stage.

    Attributes:
        data: the pack.
        out: the folder of results.
        until: when the budget is used up, on `time.monotonic`'s clock [s].
        dry: tiny sizes on a CPU.
        words: options of every training.
        results: of the stages before.
    """

    data: Path
    out: Path
    until: float
    dry: bool
    words: Sequence[str]
    results: Mapping[str, Mapping[str, Any]]


class Stage(NamedTuple):
    """One stage.

    Attributes:
        run: returns its figures; those of a training that is not done have `done: false`.
        needs: seconds that it takes at least, on a GPU.
    """

    run: Callable[[Setting], dict[str, Any]]
    needs: float


def facts(setting: Setting) -> dict[str, Any]:
    """Describe the machine and measure its speed."""
    device = torch.device("cpu" if setting.dry else "cuda")
    told: dict[str, Any] = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "speeds": speed.speeds_of(device),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        told |= {
            "device": properties.name,
            "capability": list(torch.cuda.get_device_capability(device)),
            "memory_bytes": properties.total_memory,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "driver": _driver(),
        }
    return told


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.strip()


def tests(setting: Setting) -> dict[str, Any]:
    """Run the tests that need a GPU."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(ROOT / "tests" / "test_gpu.py")]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # whatever is installed there
    left = max(setting.until - monotonic(), 1.0)
    try:
        found = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=left, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(f"tests/test_gpu.py takes more than the {left:.0f} s that are left") from error
    lines = found.stdout.strip().splitlines() or ["nothing was printed"]
    if found.returncode or not re.search(r"\d+ (passed|skipped)", lines[-1]):
        raise UserError(f"tests/test_gpu.py: {lines[-1]}; {_failures([*lines, *found.stderr.splitlines()])}")
    return {"outcome": lines[-1]}


def _failures(lines: Sequence[str]) -> str:
    return "; ".join(line for line in lines if line.startswith(("FAILED", "ERROR", "E  ")))[:1000]


def _network(backbone: str, setting: Setting) -> list[str]:
    """Words of a network, small in a dry run."""
    small = {
        "base": ["backbone.network.width=16", "backbone.network.depth=1", "backbone.network.fine=8"],
        "modular": ["backbone.network.width=16", "backbone.network.fine=8", "backbone.streams.blocks=2"],
    }
    small["modular"].append("backbone.streams.depth=2")
    return [f"backbone={backbone}", *(small[backbone] if setting.dry else [])]


def words_of(backbone: str, setting: Setting, batch: int = 256) -> tuple[str, ...]:
    """Words of a configuration as it is trained on a GPU: full resolution, 16 bits."""
    sizes = [f"batch={2 if setting.dry else batch}", f"resolution={'half' if setting.dry else 'full'}"]
    where = ["device=cpu", "precision=32-true"] if setting.dry else ["device=cuda", "precision=bf16-mixed"]
    return (*_network(backbone, setting), *sizes, *where, "task_sampling=adaptive", "step_sampling=prioritised")


def compiled(setting: Setting, mode: str | None = None) -> tuple[str, ...]:
    """Words that have a network compiled; in a dry run it is only traced."""
    return ("compile=eager",) if setting.dry else ("compile=inductor", *([f"compile_mode={mode}"] if mode else []))


def demonstrations(setting: Setting) -> dict[str, list[Episode]]:
    """A few of each problem, at full resolution."""
    return load(setting.data, problems_of(setting.data), MEASURED_WITH - 2 * setting.dry, "full", SPLIT)[0]


def problems_of(data: Path) -> list[str]:
    """Problems whose demonstrations for training a pack has."""
    return [name.rpartition("/")[0] for name in Pack.open(data).seeds if name.endswith(f"/{SPLIT}")]


def targets(setting: Setting) -> dict[str, Any]:
    """The figures that have targets: training beside the original's configuration, and one action."""
    where = ["device=cpu", "resolution=half", "agent.rotations=4"] if setting.dry else ["device=cuda"]
    variants = {
        "plain": Variant(words_of("base", setting)),
        "modular": Variant(words_of("modular", setting), steps=5),
        SMALL: Variant(words_of("base", setting, 64), steps=30),
        ORIGINAL: Variant((*CONFIGURATIONS[ORIGINAL], *where), explained=False),
    }
    rows = _measured(variants, setting)
    networks, few = {"plain": "base", "modular": "modular"}, demonstrations(setting)
    actions = {name: speed.act(words_of(backbone, setting), few, 5) for name, backbone in networks.items()}
    return {"rows": rows, "actions": actions}


def compare(setting: Setting, backbone: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """A variant beside the configuration that it differs from."""
    batch = changes.get("batch", 256)
    words = (*words_of(backbone, setting, batch), *changes.get("words", ()))
    if "mode" in changes:
        words = (*words, *compiled(setting, changes["mode"]))
    layout = changes.get("memory_format", torch.channels_last)
    variants = {
        "reference": Variant(words_of(backbone, setting), explained=False),
        "variant": Variant(words, layout, changes.get("switch")),
    }
    return {"rows": _measured(variants, setting)}


def _measured(variants: Mapping[str, Variant], setting: Setting) -> dict[str, dict[str, Any]]:
    if "facts" not in setting.results:
        raise UserError("stages that measure speed need the stage facts first: name it, or give no --stages")
    if setting.dry:
        variants = {name: each._replace(steps=1) for name, each in variants.items()}
    machine = setting.results["facts"]["speeds"]
    return speed.measure(variants, demonstrations(setting), machine, 1 if setting.dry else 3, setting.until)


def train(
    setting: Setting, name: str, backbone: str, demos: int, seconds: float, words: Sequence[str]
) -> dict[str, Any]:
    """Train an agent of the pack's problems, or go on with it; stop with a checkpoint when the budget is used up.

    Args:
        setting: of the stage.
        name: of the run.
        backbone: `base` or `modular`.
        demos: demonstrations of each problem.
        seconds: of training.
        words: options besides.
    """
    seeds = Pack.open(setting.data).seeds
    fewest = min(len(seeds[f"{problem}/{SPLIT}"]) for problem in problems_of(setting.data))
    if setting.dry:
        demos = min(demos, fewest)
    if fewest < demos:
        return {"left_out": f"{setting.data.name} has {fewest} demonstrations of a problem, and this takes {demos}"}
    started, run, way = monotonic(), setting.out / RUNS / name, fastest(setting, backbone)
    chosen = (*way.words, *words, *setting.words)
    known = read_config(run) if (run / CONFIG).exists() else None
    steps = int(known["steps"]) if known else _steps(setting, way, seconds)
    minutes = max(setting.until - monotonic(), 1.0) / 60
    problems = ",".join(problems_of(setting.data))
    where = [f"problems=[{problems}]", f"demos={demos}", f"data='{setting.data}'", f"run='{run}'"]
    config = compose("train", [*chosen, *where, f"steps={steps}", f"minutes={minutes}"])
    with speed.slots(way.slots):
        figures = carry_out(config, config.trainer, name)
    before = setting.results.get(f"train-{name}", {})
    done = figures["step"] == steps
    if done:
        _hand_on(run, setting.out / AGENTS / name)
    return {
        "done": done,
        "words": list(chosen),
        "steps": figures["step"],
        "of": steps,
        "samples": figures["step"] * config.batch,
        "seconds": before.get("seconds", 0.0) + monotonic() - started,
        "figures": figures,
    }


class Way(NamedTuple):
    """A way to train.

    Attributes:
        words: of the configuration.
        speed: that was measured [samples a second].
        slots: samples that a group of the programs' convolutions takes; None for what is usual.
    """

    words: tuple[str, ...]
    speed: float
    slots: int | None = None


def fastest(setting: Setting, backbone: str) -> Way:
    """The fastest way to train a network of those that were measured."""
    if "rows" not in setting.results.get("targets", {}):
        raise UserError("stages that train need the stage targets first: name it, or give no --stages")
    rows, name = setting.results["targets"]["rows"], "plain" if backbone == "base" else backbone
    small = rows[SMALL]["samples_per_second"] >= WORTH * rows["plain"]["samples_per_second"] and name == "plain"
    words = words_of(backbone, setting, 64 if small else 256)
    speed_of = rows[SMALL if small else name]["samples_per_second"]
    gains = {mode: _gain(setting, f"{name}-{mode}") for mode in MODES}
    best = max(gains, key=lambda mode: gains[mode])
    if gains[best] > 1 and not setting.dry:  # there, gains are chance
        words = (*words, *compiled(setting, None if best == "inductor" else best))
    slots = {size: _gain(setting, f"{name}-slots-{size}") for size in SLOTS}
    most = max(slots, key=lambda size: slots[size])
    gained = slots[most] > 1 and not setting.dry
    return Way(words, speed_of * max(gains[best], 1.0), most if gained else None)


def _gain(setting: Setting, stage: str) -> float:
    """Measured speed ratio of a stage's variant; 0 if it was not measured."""
    rows = setting.results.get(stage, {}).get("rows")
    return float(rows["variant"]["ratio"]) if rows else 0.0


def _steps(setting: Setting, way: Way, seconds: float) -> int:
    """Steps that fill some seconds at the speed that was measured."""
    words = (*way.words, *setting.words)
    asked = [int(word.partition("=")[2]) for word in words if word.startswith("steps=")]
    if asked or setting.dry:
        return asked[-1] if asked else 4
    batch = next(int(word.partition("=")[2]) for word in reversed(words) if word.startswith("batch="))
    return max(int(seconds * way.speed / batch), 1)


def _hand_on(run: Path, out: Path) -> None:
    """The agent of a run in 16 bits, and its curves."""
    export({"run": str(run), "out": str(out), "dtype": "bfloat16", "shard_size": None})
    shutil.copyfile(run / METRICS, out / METRICS)


def stages() -> Iterator[tuple[str, Stage]]:
    """All stages by name, in the order of what they tell."""
    yield "facts", Stage(facts, 20)
    yield "targets", Stage(targets, 60)
    yield "plain-inductor", Stage(partial(compare, backbone="base", changes={"mode": None}), 100)
    yield "tests", Stage(tests, 120)
    yield from _compared(FIRST)
    yield _training("plain-100", "base", 100, 300)
    yield _training("modular-100", "modular", 100, 300)
    yield from _compared(THEN)
    yield _training("plain-10", "base", 10, 120)
    yield _training("plain-1", "base", 1, 60)
    yield _training("plain-1000", "base", 1000, 300)
    uniform = ["task_sampling=uniform", "step_sampling=uniform"]
    yield _training("uniform-100", "base", 100, 300, uniform)
    for agent in ("gctn_step", "gctn", "transporter"):
        yield _training(f"{agent}-100", "base", 100, 300, [f"agent={agent}"])
    yield _training("modular-10", "modular", 10, 120)


Changed = tuple[str, str, dict[str, Any]]
"""Name of a stage, the backbone, and what is changed of its configuration."""
FIRST: Sequence[Changed] = (
    ("modular-slots-1", "modular", {"switch": partial(speed.slots, 1)}),
    ("modular-inductor", "modular", {"mode": None}),
    ("plain-contiguous", "base", {"memory_format": torch.contiguous_format}),
)
THEN: Sequence[Changed] = (
    ("plain-reduce-overhead", "base", {"mode": "reduce-overhead"}),
    ("modular-reduce-overhead", "modular", {"mode": "reduce-overhead"}),
    ("modular-one-by-one", "modular", {"switch": speed.one_by_one}),
    ("modular-channels-first", "modular", {"switch": speed.channels_first}),
    ("modular-slots-8", "modular", {"switch": partial(speed.slots, 8)}),
    ("plain-norm-16-bits", "base", {"switch": speed.sixteen_bit_norms}),
    ("modular-norm-16-bits", "modular", {"switch": speed.sixteen_bit_norms}),
    ("plain-chosen-kernels", "base", {"switch": speed.chosen_kernels}),
    ("plain-contiguous-inductor", "base", {"memory_format": torch.contiguous_format, "mode": None}),
    ("plain-batch-1024", "base", {"batch": 1024}),
    ("plain-batch-512", "base", {"batch": 512}),
    ("plain-batch-128", "base", {"batch": 128}),
    ("modular-batch-64", "modular", {"batch": 64}),
    ("modular-batch-1024", "modular", {"batch": 1024}),
    ("plain-tf32", "base", {"words": ("precision=32-true",)}),
    ("plain-32-bits", "base", {"words": ("precision=32-true", "tf32=false")}),
)
"""Compared with the plain and the modular configuration: batch 256, channels last, 16 bits, not compiled."""


def _compared(changes: Sequence[Changed]) -> Iterator[tuple[str, Stage]]:
    for name, backbone, each in changes:
        yield name, Stage(partial(compare, backbone=backbone, changes=each), 100 if "mode" in each else 30)


def _training(name: str, backbone: str, demos: int, seconds: float, words: Sequence[str] = ()) -> tuple[str, Stage]:
    options = {"name": name, "backbone": backbone, "demos": demos, "seconds": seconds, "words": words}
    return f"train-{name}", Stage(partial(train, **options), 60)


def read_results(folder: Path) -> dict[str, Any]:
    """Figures of each stage that a folder has."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
