"""Methods of adaptation: what is made of a trained agent, in a run of its own."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from multiravens.agents.adaptation.start import NEAREST, build_transporter, find_start, take_over
from multiravens.agents.networks.checkpoint import fill
from multiravens.agents.networks.modular.parts.order import STARTS
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.networks.transporter import Transporter
from multiravens.agents.training.checks import check
from multiravens.agents.training.self_training import OBJECTIVES
from multiravens.agents.training.session import learn, report_out_of_memory
from multiravens.agents.training.trainer import Update
from multiravens.errors import UserError, quote, unknown
from multiravens.options.defaults import choices, defaults_of
from multiravens.options.problems import parse_problems
from multiravens.options.types import flatten
from multiravens.support.runs import WEIGHTS

LABELS = ("expert", "none")
_OWN = (
    *("demos", "data", "split", "steps", "batch", "seed", "device", "threads", "checkpoint_every", "log_every"),
    *("task_sampling", "step_sampling"),
)
"""Options of `transfer.yaml` that stand in the new run's configuration as they are."""


class Known(NamedTuple):
    """A trained agent's run, as it was read.

    Attributes:
        folder: of the run.
        config: of the run.
        tensors: its weights.
    """

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, Tensor]


class Method(ABC):
    """A way to make a new run of a trained agent.

    Args:
        name: as the user gives it; the new run is called so.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def apply(self, known: Known, config: Mapping[str, Any], update: Update | None) -> dict[str, float]:
        """Make the new run.

        Args:
            known: the trained agent.
            config: of `transfer.yaml`, plain values.
            update: called with the steps taken and the latest figures.

        Returns:
            The latest figures, and `trained` and `parameters`: how many were trained, and how many there are.

        Raises:
            UserError: an option can't be met.
        """


class Teaching(Method):
    """Teaches a new problem by training some parameters on demonstrations of it.

    Args:
        name: as of `Method`.
        learning_rate: the highest, unless the user gives another.
        adds: parts that the new problem's programs have beside those of all, by name, as configurations.
        label_free: actions may be left out: the network is trained on its own choices then.

    Attributes:
        keeps_known: known problems stay in the new run, which needs programs; otherwise it knows the new one alone.
    """

    keeps_known = True

    def __init__(
        self, name: str, learning_rate: float, adds: Mapping[str, Any] | None = None, label_free: bool = False
    ) -> None:
        super().__init__(name)
        self.learning_rate, self.adds, self.label_free = learning_rate, dict(adds or {}), label_free

    @abstractmethod
    def trained(self, network: Transporter, problem: str) -> Iterable[nn.Parameter]:
        """Parameters that are trained for a problem; all others stay as they are, to the bit."""

    def find_start(
        self, config: Mapping[str, Any], trained: Mapping[str, Any], before: Transporter, problem: str
    ) -> str | None:
        """The known problem whose programs the new ones start from, as `start.find_start` tells."""
        return find_start(config, trained, before, problem)

    def begin(self, network: Transporter, before: Transporter, problem: str, started: str | None) -> None:
        """Give a network that was drawn anew what it starts with; arguments as of `start.take_over`."""
        take_over(network, before, problem, started)
        network.streams.settle()

    def check(self, config: Mapping[str, Any]) -> None:
        """Refuse options that this method can't meet.

        Raises:
            UserError: one can't.
        """
        if config["labels"] not in LABELS:
            raise unknown("labels", str(config["labels"]), LABELS)
        if config["objective"] not in OBJECTIVES:
            raise unknown("objective", str(config["objective"]), OBJECTIVES)
        if config["labels"] == "none" and not self.label_free:
            names = sorted(name for name, node in choices("train").items() if node.get("label_free"))
            raise UserError(f"labels=none adapts a known problem's programs: give train={' or '.join(names)}")
        if config["labels"] == "none" and config["start"] in STARTS:
            raise UserError(
                f"start={config['start']}: labels=none starts from a known problem's programs, or start=nearest"
            )

    def apply(self, known: Known, config: Mapping[str, Any], update: Update | None) -> dict[str, float]:
        """Teach the new problem, in a run of its own."""
        self.check(config)
        trained, problem = known.config, _new_problem(config, known.config)
        kept = [name for name in trained["problems"] if name != problem] if self.keeps_known else []
        before, _ = build_transporter(trained)
        merged = self._merged(config, trained, problem, kept, isinstance(before.streams, ModularStreams))
        check(merged)
        if config["threads"]:
            torch.set_num_threads(config["threads"])
        with report_out_of_memory(merged):
            fill(before, known.tensors, known.folder / WEIGHTS)
            started = self.find_start(config, trained, before, problem)
            self._carry_parts(merged, trained, started)
            torch.manual_seed(config["seed"])
            network, conditioning = build_transporter(merged)
            self.begin(network, before, problem, started)
            if config["order"] is not None:
                _reorder(network, problem, config["order"])
            counted = self._freeze(network, problem)
            environments = trained.get("environment", {})
            known_environments = {name: environments[name] for name in kept if name in environments}
            described = {**merged, "environment": known_environments, "transfer": merged["transfer"] | counted}
            objective = OBJECTIVES[config["objective"]]() if config["labels"] == "none" else None
            return learn(merged, [problem], network, conditioning, described, update, objective) | counted

    def _merged(
        self, config: Mapping[str, Any], trained: Mapping[str, Any], problem: str, kept: list[str], modular: bool
    ) -> dict[str, Any]:
        """The configuration of the new run: the known one's, with what this command says."""
        starts = (NEAREST, *STARTS, *trained["problems"])
        if config["start"] not in starts:
            raise unknown("start", str(config["start"]), starts)
        source = str(config["run"]).rstrip("/")
        if not modular and (self.keeps_known or self.adds):
            raise UserError(f"{source} has no programs: train one with backbone=modular, or give train=full or scratch")
        streams = dict(trained["backbone"]["streams"] or {})
        if modular:
            added = {name: each for name, each in (streams.get("added") or {}).items() if name in kept}
            streams["added"] = added | ({problem: self.adds} if self.adds else {})
            if config["start"] in STARTS:
                parts = streams.get("parts") or choices("backbone")["modular"]["streams"]["parts"]
                streams["parts"] = {**parts, "order": {**parts["order"], "start": config["start"]}}
        defaults = defaults_of("train")  # of options that the run is older than
        del defaults["trainer"]
        given = config["learning_rate"]
        return {
            **defaults,
            **trained,
            **{name: config[name] for name in _OWN},
            "backbone": {**trained["backbone"], "streams": streams or None},
            "problems": [*kept, problem],
            "run": config["run_out"] or f"{source}-{problem}-{self.name}",
            "learning_rate": self.learning_rate if given is None else given,
            "devices": 1,
            "transfer": {"run": source, "problem": problem, "train": self.name}
            | {name: config[name] for name in ("start", "order", "labels", "objective")},
        }

    def _carry_parts(self, merged: Mapping[str, Any], trained: Mapping[str, Any], started: str | None) -> None:
        """A program that starts from one with further parts has the same."""
        carried = ((trained["backbone"]["streams"] or {}).get("added") or {}).get(started) or {}
        for name, part in carried.items():
            added = merged["backbone"]["streams"]["added"].setdefault(merged["transfer"]["problem"], {})
            there, here = dict(flatten(part)), dict(flatten(added.setdefault(name, part)))
            for option in sorted(key for key in {*there, *here} if there.get(key) != here.get(key)):
                raise UserError(
                    f"train={self.name} adds {name} with {option}={here.get(option)}, and the program of {started}, "
                    f"which this one starts from, has it with {option}={there.get(option)}: give the same, or "
                    "start=distinct"
                )

    def _freeze(self, network: Transporter, problem: str) -> dict[str, float]:
        """Leave a gradient to what is trained; how many parameters that is, and of how many."""
        chosen = {id(parameter) for parameter in self.trained(network, problem)}
        counts = {True: 0, False: 0}
        for parameter in network.parameters():
            parameter.requires_grad_(id(parameter) in chosen)
            counts[parameter.requires_grad] += parameter.numel()
        if not counts[True]:
            raise UserError(f"train={self.name} trains no parameter of {problem}: give another method")
        if isinstance(network.streams, ModularStreams) and network.streams.annealed:
            for program in network.streams.programs_of(problem):
                for name, part in network.streams.parts_of(problem).items():
                    if any(parameter.requires_grad for parameter in program[name].parameters()):
                        part.ready(program[name])
        return {"trained": counts[True], "parameters": sum(counts.values())}


def _new_problem(config: Mapping[str, Any], trained: Mapping[str, Any]) -> str:
    if config["problem"] is None:
        raise UserError("give the name of the new problem as problem=NAME")
    (problem,) = parse_problems([config["problem"]])
    if config["labels"] != "none" and problem in trained["problems"] and not config["replace"]:
        raise UserError(
            f"{config['run']} knows {problem} already: give replace=true to teach it anew, or another problem"
        )
    return problem


def _reorder(network: Transporter, problem: str, order: object) -> None:
    """Have the new programs run the blocks that the user names."""
    if not isinstance(order, list):
        raise UserError(f"order={quote(order)}: give a block for each step, as in [0,2,1,1,3,4]")
    if not isinstance(network.streams, ModularStreams):
        raise UserError("order is of programs, and this agent has none: train one with backbone=modular")
    for choice in network.streams.choices(problem):
        choice.set_order(order)
