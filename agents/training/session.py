"""A training run from its configuration, as `python -m multiravens.train` does it."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch.utils.tensorboard import SummaryWriter

from multiravens.actions import PICK_PLACE
from multiravens.agents.acting.conditioning import Conditioning
from multiravens.agents.acting.load import build, refuse_other_primitive
from multiravens.agents.networks.network import Network
from multiravens.agents.training.checks import check
from multiravens.agents.training.devices import fabric_of, is_out_of_memory, tensor_floats
from multiravens.agents.training.objectives import Objective
from multiravens.agents.training.parts import make_augmentations, make_losses, make_objective
from multiravens.agents.training.trainer import Trainer, Update
from multiravens.data.training.demonstrations import Demonstrations, load, read_spec, spec_of
from multiravens.data.training.sampling import Catalogue, Sampler
from multiravens.errors import UserError, quote, unknown
from multiravens.options.defaults import chosen_names, differing_options
from multiravens.options.instantiate import instantiate
from multiravens.options.problems import parse_problems
from multiravens.options.types import flatten
from multiravens.support.files import locked, remove_temporaries, user_path
from multiravens.support.runs import ACTING, CONFIG, STATE, WEIGHTS, read_config, write_config

RESUMABLE_OPTIONS = (
    *("run", "data", "device", "devices", "threads", "compile", "compile_mode", "tf32", "minutes", "trainer"),
    *("checkpoint_every", *ACTING),
)
"""Options that may differ when a run is taken up again: they decide its weights by their rounding at most."""
_TRAINER = (
    "steps",
    "seed",
    "learning_rate",
    "weight_decay",
    "warmup",
    "ema",
    "clip",
    "checkpoint_every",
    "log_every",
)
"""Options that the trainer takes by name."""


def train(config: Mapping[str, Any], update: Update | None = None) -> dict[str, float]:
    """Train an agent, or take up a run where it was stopped.

    Args:
        config: of `train.yaml`, plain values.
        update: called with the steps taken and the latest figures.

    Returns:
        The latest figures, and `parameters`, how many there are, and `own`, how many of them are one problem's alone;
        nothing but in the first of several processes.

    Raises:
        UserError: an option can't be met, the demonstrations are too few, the folder holds another run or is in use, a
            checkpoint does not fit, the network can't be compiled, or memory runs out.
    """
    check(config)
    problems = parse_problems(config["problems"] or ["placing"])
    with report_out_of_memory(config), _report_compile_errors(config):
        described = {name: config[name] for name in config if name != "trainer"} | {"problems": problems}
        spec = read_spec(config["data"], problems[0], config["split"])
        if spec != PICK_PLACE:  # which runs that say nothing learn
            described["action"] = spec.plain()
        network, conditioning = network_of(described)
        return learn(config, problems, network, conditioning, described, update)


def learn(
    config: Mapping[str, Any],
    problems: Sequence[str],
    network: Network,
    conditioning: Conditioning,
    described: Mapping[str, Any],
    update: Update | None = None,
    objective: Objective | None = None,
) -> dict[str, float]:
    """Train a network on the demonstrations of some problems, in the folder of a run.

    Args:
        config: of `train.yaml`, checked.
        problems: names.
        network: as it starts; what needs no gradient stays as it is.
        conditioning: which goal images it is shown.
        described: what the run's configuration shall say, but for the demonstrations' environments, which are added.
        update: called with the steps taken and the latest figures.
        objective: what is minimised; None for the agent's own.

    Returns:
        As `train`.
    """
    objective = objective or make_objective(config)
    losses, augmentations = make_losses(config, network), make_augmentations(config)
    folder, out_of_time = user_path(config["run"]), _clock(config["minutes"])
    episodes, environments = load(config["data"], problems, config["demos"], config["resolution"], config["split"])
    refuse_other_primitive(network, spec_of(episodes))
    described = {**described, "environment": {**described.get("environment", {}), **environments}}
    described["chosen"] = chosen_names({name: described[name] for name in described if name != "chosen"})
    fabric = fabric_of(config)
    fabric.launch()
    with locked(folder, "run") if fabric.is_global_zero else nullcontext():
        if fabric.is_global_zero:
            remove_temporaries(folder)
            _describe(folder, described)
        data = Demonstrations(episodes, config["resolution"], fabric.device, losses.labels())
        del episodes  # as large again
        if not data.resident and fabric.is_global_zero:
            print(_pictures_stay_on_the_host(data), file=sys.stderr)
        trainer = Trainer(
            fabric,
            fabric.to_device(network).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            conditioning,
            *_make_sampler(config, data),
            objective,
            fabric.to_device(losses),  # type: ignore[arg-type]
            augmentations,
            folder,
            **{name: config[name] for name in _TRAINER},
        )
        with _board(folder, fabric) as board, tensor_floats(config["tf32"]):
            figures = _run(trainer, config, _log_to_both(update, board), out_of_time)
            return figures | _counts(network, problems[-1]) if fabric.is_global_zero else {}


def _clock(minutes: float | None) -> Callable[[], bool]:
    """Tells whether as many minutes have passed since now; it never does where they are None."""
    until = time.monotonic() + 60 * (math.inf if minutes is None else minutes)
    return lambda: time.monotonic() >= until


def _run(
    trainer: Trainer, config: Mapping[str, Any], update: Update | None, out_of_time: Callable[[], bool]
) -> dict[str, float]:
    """Train, and if memory runs out find the batch that would have fitted."""
    try:
        return trainer.run(update, out_of_time)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    # Only here is what the failed step held let go of, with the error and its frames.
    torch.cuda.empty_cache()
    size = config["batch"] // 2 if trainer.fabric.world_size == 1 else 0
    while size and not _fits(trainer, size):
        size //= 2
    raise _too_large(config, f"batch={size} fits" if size else "lower batch")


def _fits(trainer: Trainer, size: int) -> bool:
    try:
        samples = np.zeros(size, np.int64)
        inputs = trainer.send(samples, drawn=trainer.draw(size))
        trainer.fabric.backward(trainer.total(trainer.score(inputs), inputs.weights))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


def _counts(network: Network, problem: str) -> dict[str, float]:
    parts: dict[str, list[torch.nn.Module]] = {"parameters": [network], "own": network.own(problem)}
    return {name: sum(p.numel() for part in each for p in part.parameters()) for name, each in parts.items()}


@contextmanager
def report_out_of_memory(config: Mapping[str, Any]) -> Iterator[None]:
    """Turns want of memory into a line that says which setting to lower."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise _too_large(config, "lower batch") from error


def _make_sampler(config: Mapping[str, Any], data: Demonstrations) -> tuple[Demonstrations, Sampler]:
    """Demonstrations, and what draws batches of them."""
    steps = data.steps
    weights = instantiate(config["task_sampling"]), instantiate(config["step_sampling"])
    catalogue = Catalogue(data.tasks, steps.task, steps.episode, steps.pointer)
    return data, Sampler(catalogue, *weights, config["batch"], config["seed"])


def network_of(config: Mapping[str, Any]) -> tuple[Network, Conditioning]:
    """The network as it starts, and its conditioning.

    Raises:
        UserError: an option can't be met.
    """
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    torch.manual_seed(config["seed"])
    if config["compile"]:
        _check_compile(config)
    network, conditioning = build(config)
    if config["compile"]:
        # Batches are all of one size; kernels for any size would be slower, and inductor fails on ours.
        network.compile(backend=config["compile"], mode=config["compile_mode"], dynamic=False)
    return network, conditioning


def _check_compile(config: Mapping[str, Any]) -> None:
    chosen, mode = str(config["compile"]), config["compile_mode"]
    if chosen not in torch.compiler.list_backends(exclude_tags=()):
        raise unknown("compile", chosen, torch.compiler.list_backends())
    modes = list(torch._inductor.list_mode_options()) if chosen == "inductor" else []
    if mode is not None and mode not in modes:
        if not modes:
            raise UserError(f"compile_mode={mode} is for compile=inductor, not compile={chosen}: give null")
        raise unknown("compile_mode", str(mode), modes)


@contextmanager
def _report_compile_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Turns a failure of torch.compile into a line that says how to do without."""
    try:
        yield
    except RuntimeError as error:
        # torch imports its compiler, for seconds, when it is first named: only where it was asked for.
        if not config["compile"] or not isinstance(error, torch._dynamo.exc.TorchDynamoException):
            raise
        told = " ".join(str(error).partition("Set TORCHDYNAMO_VERBOSE")[0].split())[:300]
        raise UserError(f"compile={config['compile']} failed, compile=null does without: {told}") from error


def _describe(folder: Path, described: dict[str, Any]) -> None:
    """Write the configuration, or check that the one there is the same."""
    if (folder / CONFIG).exists() and "run" not in read_config(folder):
        raise UserError(f"{folder} holds an agent that was exported: give another run=FOLDER")
    if not (folder / STATE).exists() and not (folder / WEIGHTS).exists():
        write_config(folder, described)  # nothing was trained with another one
        return
    if not (folder / CONFIG).exists():
        raise UserError(f"{folder} holds weights and no {CONFIG} that says of what: give another run=FOLDER")
    before, now = (
        {name: value for name, value in config.items() if name not in (*RESUMABLE_OPTIONS, "version", "chosen")}
        for config in (read_config(folder), described)
    )
    changed = differing_options(before, now)
    before, now = dict(flatten(before)), dict(flatten(now))
    if changed:
        pairs = [(name, quote(before.get(name)), quote(now.get(name))) for name in changed[:3]]
        shown = ", ".join(f"{name}: {there} there, {here} now" for name, there, here in pairs)
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(f"{folder} holds a run with other options ({shown}{more}): give them, or another run=FOLDER")
    write_config(folder, described)  # what may differ, such as how it acts, is as it is asked for now


def _board(folder: Path, fabric: Fabric) -> Any:
    return SummaryWriter(str(folder / "tensorboard")) if fabric.is_global_zero else nullcontext()


def _log_to_both(update: Update | None, board: SummaryWriter | None) -> Update | None:
    if board is None:
        return None

    def told(step: int, figures: Mapping[str, float]) -> None:
        if update:
            update(step, figures)
        for name, value in figures.items():
            if name != "step":
                board.add_scalar(name.replace("_", "/", 1), value, step)

    return told


def _pictures_stay_on_the_host(data: Demonstrations) -> str:
    free = torch.cuda.mem_get_info(data.device)[0]
    return (
        f"the pictures take {data.size / 2**30:.1f} GiB and {data.device} has {free / 2**30:.1f} GiB free: they stay "
        "in the host's memory, which is slower; fewer demos or resolution=half would fit"
    )


def _too_large(config: Mapping[str, Any], remedy: str) -> UserError:
    return UserError(
        f"out of memory with batch={config['batch']}, resolution={config['resolution']}, demos={config['demos']}: "
        f"{remedy}; fewer demos and resolution=half need less, too"
    )
