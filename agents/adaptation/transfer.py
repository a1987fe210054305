"""Transfer of a trained agent to a new problem: a few demonstrations train its programs, an adapter, or everything."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multiravens.agents.acting.load import build, read_agent
from multiravens.agents.networks.checkpoint import fill, write_tensors
from multiravens.agents.networks.modular.bank import STARTS, STEEPNESS
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import Transporter
from multiravens.agents.training.checks import check
from multiravens.agents.training.dataset_metrics import Measure, in_batches, judging
from multiravens.agents.training.self_training import OBJECTIVES, UnlabelledTrainer, choose, entropies
from multiravens.agents.training.session import learn, report_out_of_memory
from multiravens.agents.training.trainer import Trainer, Update
from multiravens.data.training.demonstrations import Batch, Demonstrations, load
from multiravens.errors import UserError, quote, unknown
from multiravens.options.defaults import defaults_of
from multiravens.options.problems import parse_problems
from multiravens.support.files import locked, user_path
from multiravens.support.runs import CONFIG, WEIGHTS, find_run, write_config

LEARNING_RATES = {
    "order": 0.05,
    "patch": 0.05,
    "order+patch": 0.05,
    "adapter": 0.02,
    "full": 0.002,
    "scratch": 0.004,
}
HARDEN = "harden"
ALONE = ("full", "scratch")
"""These change what all problems share, so that the new run knows the new problem alone."""
NEAREST = "nearest"
LABELS = ("expert", "none")
ADAPTING = ("order", "patch", "order+patch")
"""These may be trained without labels."""
_PROBED = 64  # samples that tell which known problem is nearest
_OWN = (
    *("demos", "data", "split", "steps", "batch", "seed", "device", "threads", "checkpoint_every", "log_every"),
    *("task_sampling", "step_sampling"),
)
"""Options of `transfer.yaml` that stand in the new run's configuration as they are."""
_TRAINED = {
    "order": ("logits",),
    "patch": ("scale", "bias"),
    "order+patch": ("logits", "scale", "bias"),
    "adapter": ("down", "up", "scale", "bias"),
}
"""Of what the new problem has of its own."""
SOFTENED = 4.0 / STEEPNESS
"""Gap of the other blocks' logits below the preferred one's at the start, at most, over the temperature, where orders
are trained: of six blocks the preferred one has 0.9 of the share."""


def transfer(config: Mapping[str, Any], update: Update | None = None) -> dict[str, float]:
    """Teach the agent of a run a new problem, in a run of its own.

    Args:
        config: of `transfer.yaml`, plain values.
        update: called with the steps taken and the latest figures.

    Returns:
        The latest figures, and `trained` and `parameters`: how many were trained, and how many there are; nothing but
        the two after hardening.

    Raises:
        UserError: an option can't be met, the agent has no programs or knows the problem, or what `train` raises.
    """
    kind = str(config["train"])
    if kind not in (*LEARNING_RATES, HARDEN):
        raise unknown("train", kind, [*LEARNING_RATES, HARDEN])
    if config["run"] is None:
        raise UserError("give the folder of a trained agent's run as run=FOLDER")
    source = find_run(str(config["run"]))
    trained, tensors = read_agent(source)
    trained["problems"] = trained["problems"] or ["placing"]  # as it was built
    if kind == HARDEN:
        return _hardened(config, source, trained, tensors)
    unlabelled = _unlabelled(config)
    problem = _new_problem(config, trained)
    known = [] if kind in ALONE else [name for name in trained["problems"] if name != problem]
    before, _ = build(trained)
    merged = _merged(config, trained, problem, known, isinstance(before.streams, ModularStreams))
    check(merged)
    if config["threads"]:
        torch.set_num_threads(config["threads"])
    with report_out_of_memory(merged):
        fill(before, tensors, source / WEIGHTS)
        started = None if kind == "scratch" else _started(config, trained, before, problem)
        _carry_adapter(merged, trained, started)
        torch.manual_seed(config["seed"])
        network, conditioning = build(merged)
        if kind != "scratch":
            _take_over(network, before, problem, started)
        if config["order"] is not None:
            _reorder(network, problem, config["order"])
        counted = _freeze(network, problem, kind)
        environments = trained.get("environment", {})
        known_environments = {name: environments[name] for name in known if name in environments}
        described = {**merged, "environment": known_environments, "transfer": merged["transfer"] | counted}
        make_trainer = partial(UnlabelledTrainer, config["objective"]) if unlabelled else Trainer
        return learn(merged, [problem], network, conditioning, described, update, make_trainer) | counted


def _new_problem(config: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    if config["problem"] is None:
        raise UserError("give the name of the new problem as problem=NAME")
    (problem,) = parse_problems([config["problem"]])
    if config["labels"] != "none" and problem in trained["problems"] and not config["replace"]:
        raise UserError(
            f"{config['run']} knows {problem} already: give replace=true to teach it anew, or another problem"
        )
    return problem


def _unlabelled(config: Mapping[str, Any]) -> bool:
    """Tell whether training must not look at the demonstrations' actions."""
    if config["labels"] not in LABELS:
        raise unknown("labels", str(config["labels"]), LABELS)
    if config["objective"] not in OBJECTIVES:
        raise unknown("objective", str(config["objective"]), OBJECTIVES)
    if config["labels"] == "none" and config["train"] not in ADAPTING:
        raise UserError(f"labels=none adapts a known problem's programs: give train={' or '.join(ADAPTING)}")
    if config["labels"] == "none" and config["start"] in STARTS:
        raise UserError(
            f"start={config['start']}: labels=none starts from a known problem's programs, or start=nearest"
        )
    return bool(config["labels"] == "none")


def _merged(
    config: Mapping[str, Any], trained: Mapping[str, Any], problem: str, known: list[str], modular: bool
) -> dict[str, Any]:
    """The configuration of the new run: the known one's, with what this command says."""
    kind, rank = str(config["train"]), int(config["rank"])
    starts = (NEAREST, *STARTS, *trained["problems"])
    if config["start"] not in starts:
        raise unknown("start", str(config["start"]), starts)
    if rank < 1:
        raise UserError(f"rank={rank}: give 1 or more")
    if kind == "scratch" and config["order"] is not None:
        raise UserError(
            f"order={config['order']} is of known blocks, and train=scratch forgets them: give one of the two"
        )
    source = str(config["run"]).rstrip("/")
    streams = dict(trained["backbone"]["streams"] or {})
    adapters = {name: each for name, each in (streams.get("adapters") or {}).items() if name in known}
    if kind == "adapter":
        adapters[problem] = rank
    if modular:
        streams["adapters"] = adapters
        if config["start"] in STARTS:
            streams["start"] = config["start"]
    elif kind not in ALONE:
        raise UserError(f"{source} has no programs: train one with backbone=modular, or give train=full or scratch")
    defaults = defaults_of("train")  # of options that the run is older than
    del defaults["trainer"]
    return {
        **defaults,
        **trained,
        **{name: config[name] for name in _OWN},
        "backbone": {**trained["backbone"], "streams": streams or None},
        "problems": [*known, problem],
        "run": config["run_out"] or f"{source}-{problem}-{kind}",
        "learning_rate": LEARNING_RATES[kind] if config["learning_rate"] is None else config["learning_rate"],
        "devices": 1,
        "transfer": {"run": source, "problem": problem}
        | {name: config[name] for name in ("train", "start", "order", "labels", "objective")},
    }


def _carry_adapter(merged: Mapping[str, Any], trained: Mapping[str, Any], started: str | None) -> None:
    """A program that starts from one with an adapter has one of the same rank."""
    rank = ((trained["backbone"]["streams"] or {}).get("adapters") or {}).get(started)
    if rank is None:
        return
    problem, adapters = merged["transfer"]["problem"], merged["backbone"]["streams"]["adapters"]
    if adapters.setdefault(problem, rank) != rank:
        raise UserError(
            f"rank={adapters[problem]}: the program of {started}, which this one starts from, has an adapter of rank "
            f"{rank}: give rank={rank}, or start=distinct"
        )


def _started(config: Mapping[str, Any], trained: Mapping[str, Any], before: Transporter, problem: str) -> str | None:
    """The known problem whose programs the new ones start from."""
    start, known = str(config["start"]), before.streams.problems
    if not isinstance(before.streams, ModularStreams) or start in STARTS:
        return None
    if start != NEAREST:
        return start
    if config["labels"] == "none" and problem in known:
        return problem
    episodes, _ = load(config["data"], [problem], config["demos"], trained["resolution"], config["split"])
    data = Demonstrations(episodes, trained["resolution"])
    rng = np.random.default_rng(config["seed"])
    samples = rng.permutation(len(data.steps.task))[:_PROBED]
    _, conditioning = build(trained)
    before.streams.settle()
    measure = _unsureness(before) if config["labels"] == "none" else judging(before, trained["resolution"])
    # The first two rows of either are of picks and of places.
    away = [in_batches(measure, before, conditioning, data, samples, name)[:2].sum(0).mean() for name in known]
    return known[int(torch.stack(away).argmin())]


def _unsureness(network: Transporter) -> Measure:
    """Make the measure of the network's uncertainty: the entropies of its own actions."""

    def measure(batch: Batch, tasks: Tasks) -> Tensor:
        chosen, _ = choose(network, batch, tasks)
        return torch.stack(entropies(network(chosen.images, chosen.pick, chosen.place, tasks)))

    return measure


@torch.no_grad()
def _take_over(network: Transporter, before: Transporter, problem: str, started: str | None) -> None:
    """Copy what is shared, what known problems have of their own, and the new one's from the problem it starts from."""
    own = {id(each) for name in network.streams.problems for part in network.own(name) for each in part.parameters()}
    known = before.state_dict()
    for name, tensor in network.state_dict(keep_vars=True).items():
        if id(tensor) not in own:
            tensor.copy_(known[name])
    sources = {name: name for name in network.streams.problems if name != problem} | {problem: started}
    for name, source in sources.items():
        for part, of in zip(network.own(name), before.own(source), strict=True) if source else ():
            known = of.state_dict()
            for key, tensor in part.state_dict().items():
                if key in known:  # one with an adapter may start from one without
                    tensor.copy_(known[key])


def _reorder(network: Transporter, problem: str, order: object) -> None:
    """Have the new programs run the blocks that the user names."""
    if not isinstance(order, list):
        raise UserError(f"order={quote(order)}: give a block for each step, as in [0,2,1,1,3,4]")
    if not isinstance(network.streams, ModularStreams):
        raise UserError("order is of programs, and this agent has none: train one with backbone=modular")
    for program in network.streams.programs_of(problem):
        program.set_order(order)


@torch.no_grad()
def _soften(network: Transporter, problem: str) -> None:
    """Sure programs have no gradient: new ones start less sure of the same blocks."""
    assert isinstance(network.streams, ModularStreams)
    for program in network.streams.programs_of(problem):
        program.order = None
        furthest = program.logits.amax(1, keepdim=True) - SOFTENED * network.streams.last_temperature
        program.logits.copy_(program.logits.maximum(furthest))


def _freeze(network: Transporter, problem: str, kind: str) -> dict[str, float]:
    """Leave a gradient to what is trained; how many parameters that is, and of how many."""
    streams = network.streams
    if isinstance(streams, ModularStreams) and kind != "scratch":
        streams.settle()
        if kind == "full" or "logits" in _TRAINED.get(kind, ()):
            _soften(network, problem)
    if kind not in ALONE:
        network.requires_grad_(False)
        for part in network.own(problem):
            for name, parameter in part.named_parameters():
                parameter.requires_grad_(name.rpartition(".")[2] in _TRAINED[kind])
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in network.parameters()]
    return {"trained": sum(count for count, moves in counts if moves), "parameters": sum(count for count, _ in counts)}


def _hardened(
    config: Mapping[str, Any], source: Path, trained: dict[str, Any], tensors: Mapping[str, Tensor]
) -> dict[str, float]:
    """Every known program one-hot, in a run of its own."""
    folder = user_path(config["run_out"] or f"{str(config['run']).rstrip('/')}-hard")
    network, _ = build(trained)
    fill(network, tensors, source / WEIGHTS)
    if not isinstance(network.streams, ModularStreams):
        raise UserError(f"{source} has no programs: train it with backbone=modular")
    for program in network.streams.each_program():
        program.discretise()
    with locked(folder, "run"):
        if (folder / CONFIG).exists():
            raise UserError(f"{folder} holds a run already: give another out=FOLDER")
        write_tensors(folder / WEIGHTS, network.state_dict(), {"step": 0})
        write_config(folder, {**trained, "run": str(folder), "transfer": {"run": str(source), "train": HARDEN}})
    return {"trained": 0, "parameters": sum(parameter.numel() for parameter in network.parameters())}
