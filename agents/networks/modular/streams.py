"""Streams that run through a bank of blocks, each problem's by programs of its own.

Departs from Zhmoginov et al. 2107.10963: every problem has a program for each of the Transporter's streams, pick, query
and key.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from multiravens.agents.networks.modular.bank import GROUPS, Bank
from multiravens.agents.networks.modular.grouped import SLOTS, lay_out, pick_rows, run_together
from multiravens.agents.networks.modular.parts.affine import Affine
from multiravens.agents.networks.modular.parts.order import STEEPNESS, BlockChoice, Order
from multiravens.agents.networks.modular.program import (
    Own,
    Program,
    ProgramPart,
    Size,
    own_of,
    own_of_all,
    run_blocks,
    run_outputs,
)
from multiravens.agents.networks.network import CHANNELS
from multiravens.agents.networks.patched import PerProblem, PerTaskAffine, Tasks, by_problem
from multiravens.agents.networks.transporter import Backbone, StreamMaps, Streams
from multiravens.errors import UserError, unknown

STREAMS = ("pick", "query", "key")
MIXES = ("weights", "outputs")
Through = Callable[[Tensor], Sequence[Tensor]]
"""Takes features (N, C, H, W) and gives what each of `STREAMS` makes of them."""


class Body(nn.Module):
    """Stem, banks and heads: what all problems share.

    Args:
        frame: an `isometric.Isometric` of depth 0.
        banks: one for all streams, or one for each.
        width: C.
        features: D, of query and key.
    """

    def __init__(self, frame: nn.Module, banks: Sequence[Bank], width: int, features: int) -> None:
        super().__init__()
        self.frame, self.banks = frame, nn.ModuleList(banks)
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.heads = nn.ModuleDict({name: _head(width, features) for name in STREAMS[1:]})

    def forward(self, images: Tensor, through: Through) -> StreamMaps:
        """Images (N, 4 (1 + goals), H, W) to maps; `through` runs programs."""
        x = self.frame.begin(images)  # type: ignore[operator]
        made = dict(zip(STREAMS, through(x), strict=True))
        merged = self.merge(torch.cat([made["pick"], made["key"]], dim=1))
        pick, place = self.frame.finish(merged, images)[0].unbind(1)  # type: ignore[operator]
        return StreamMaps(pick, place, self.heads["query"](made["query"]), self.heads["key"](made["key"]))

    def bank(self, stream: str) -> Bank:
        """The bank of a stream."""
        found = self.banks[STREAMS.index(stream) if len(self.banks) > 1 else 0]
        assert isinstance(found, Bank)
        return found


class ModularStreams(Streams, PerProblem):
    """Pick, query and key each run through a bank of blocks by the program of their problem.

    Stem and heads are shared by all problems, but for scales and biases of their normalisations. Pick and key together
    tell pixels; query and key give the features of patches.

    Args:
        backbone: makes what is round the blocks, an `isometric.Isometric` of depth 0.
        goals: goal images beside the observation.
        features: D, of query and key.
        problems: names; each has its programs.
        blocks: K, of a bank.
        depth: L, steps of a program, K or more.
        mix: `weights`: blocks' parameters are mixed, and one block runs a step; `outputs`: all blocks run and what they
            make is mixed, for reference.
        shared: one bank for all streams; otherwise one for each.
        parts: of all programs, by name. `order` is an `Order`; after it and `affine` the others act, in alphabetical
            order. None for these two.
        added: for some problems, further parts of their programs, which act last.

    Attributes:
        parts: of all programs, as they act.
        added: of each problem's alone.

    Raises:
        ValueError: a value out of its range, or parts that make no program.
    """

    def __init__(
        self,
        backbone: Backbone,
        goals: int,
        features: int = 8,
        problems: Sequence[str] = ("",),
        blocks: int = 6,
        depth: int = 6,
        mix: str = "weights",
        shared: bool = True,
        parts: Mapping[str, ProgramPart] | None = None,
        added: Mapping[str, Mapping[str, ProgramPart]] | None = None,
    ) -> None:
        super().__init__(problems, features)
        if not 1 <= blocks <= depth:
            raise ValueError(f"blocks={blocks} and depth={depth}: give 1 block or more, and at least as many steps")
        if mix not in MIXES:
            raise unknown("mix", mix, MIXES)
        parts = {"order": Order(), "affine": Affine()} if parts is None else parts
        if not isinstance(parts.get("order"), Order):
            raise ValueError("parts lacks order, an Order, which takes the blocks that the other parts act on")
        self.mix = mix
        frame = backbone(CHANNELS * (1 + goals), 2, 0)
        if len(frame.blocks):  # type: ignore[arg-type]
            raise ValueError(f"backbone.network.depth={len(frame.blocks)}: blocks are the bank's, so give 0")  # type: ignore[arg-type]
        width = int(frame.stem.out_channels)  # type: ignore[union-attr, arg-type]
        banks = [Bank(blocks, width) for _ in range(1 if shared else len(STREAMS))]
        self.body = PerTaskAffine(Body(frame, banks, width, features), (nn.GroupNorm,), len(problems))
        self.parts = _sorted(parts)
        self.added = [_sorted((added or {}).get(problem, {}), self.parts) for problem in problems]
        # Where torch finds what they hold themselves: of all programs, then of each problem's.
        self.holders = nn.ModuleList(nn.ModuleDict(each) for each in (self.parts, *self.added))
        size = Size(depth, blocks, width)
        self.programs = nn.ModuleList(
            nn.ModuleDict({stream: Program(self.parts | own, size) for stream in STREAMS}) for own in self.added
        )
        self.annealed = False
        self.anneal(0.0)

    @property
    def order(self) -> Order:
        """The part that takes blocks."""
        found = self.parts["order"]
        assert isinstance(found, Order)
        return found

    def parts_of(self, problem: str) -> dict[str, ProgramPart]:
        """Parts of a problem's programs, in the order in which they act."""
        return self.parts | self.added[self.index(problem)]

    def of(self, problem: int) -> nn.Module:
        """The programs of a problem, and the parts that no other problem has."""
        return nn.ModuleList([self.programs[problem], self.holders[1 + problem]])

    def per_task(self, module: nn.Module) -> nn.Module:
        """Give each problem scales and biases of its own in a module's convolutions."""
        return PerTaskAffine(module, (nn.Conv2d,), len(self.problems))

    def forward(self, images: Tensor, tasks: Tasks) -> StreamMaps:
        """Images (N, 4 (1 + goals), H, W) of problems to maps."""
        if tasks.only is not None:
            return self._run(tasks.only, images)
        if self.mix != "weights" or any(self.added):
            return StreamMaps(*by_problem(tasks, lambda task, own: self._run(task, images[own])))
        maps: StreamMaps = self.body.run_all(tasks, images, lambda x: self._through_all(x, tasks))
        return maps

    def _run(self, task: int, images: Tensor) -> StreamMaps:
        """Images of one problem to maps."""
        programs, body, parts = self.programs[task], self.body.module, self.parts | self.added[task]
        assert isinstance(programs, nn.ModuleDict) and isinstance(body, Body)

        def run(x: Tensor, stream: str) -> Tensor:
            program, bank = programs[stream], body.bank(stream)
            choice: BlockChoice = program["order"]  # type: ignore[index]
            acting = [(part, own_of(program[name])) for name, part in parts.items()]  # type: ignore[index]
            if self.mix == "outputs" and choice.order is None:
                return run_outputs(x, bank, self.order.mixing_weights(choice.logits), acting)
            return run_blocks(x, self.order.blocks(bank, choice), acting)

        maps: StreamMaps = self.body.run(task, images, lambda x: [run(x, stream) for stream in STREAMS])
        return maps

    def _through_all(self, x: Tensor, tasks: Tasks) -> tuple[Tensor, ...]:
        """Features through the programs of all problems at once."""
        layout = lay_out(tasks.problem, len(self.problems), SLOTS.get(x.device.type, 1))
        body = self.body.module
        assert isinstance(body, Body)
        acting: list[tuple[ProgramPart, Own]] = []
        for name, part in self.parts.items():
            own = own_of_all([each[stream][name] for stream in STREAMS for each in self.programs])  # type: ignore[index]
            acting.append((part, {key: pick_rows(rows, layout.problem, len(STREAMS)) for key, rows in own.items()}))
        blocks = self.order.blocks_together(list(body.banks), acting[0][1], len(STREAMS))  # type: ignore[arg-type]
        return run_together(x, blocks, acting, layout, len(STREAMS))

    def index(self, problem: str) -> int:
        """Return the index of a problem's program.

        Raises:
            UserError: it has none.
        """
        if problem in self.problems:
            return self.problems.index(problem)
        if not problem and len(self.problems) == 1:
            return 0
        if not problem:
            raise UserError(
                f"this agent has a program for each of {', '.join(self.problems)}: say which, as in "
                f"multiravens.load(run, problem={self.problems[0]!r})"
            )
        raise UserError(
            f"{unknown('problem', problem, self.problems)}; this agent has a program for each of these, and learns "
            "another by `python -m multiravens.transfer`"
        )

    def anneal(self, share: float) -> None:
        """Tell the parts which share of the training is done."""
        if self.annealed:
            return
        for part in (part for parts in (self.parts, *self.added) for part in parts.values()):
            part.anneal(share)

    def settle(self) -> None:
        """Take training for done: the last temperature from now on, and one-hot programs run their blocks alone."""
        self.anneal(1.0)
        self.annealed = True
        # Logits that do not anneal learn at the pace of what they stand for: they would lock at once.
        self.order_lr_scale = self.order.last_temperature / STEEPNESS
        for choice in self.choices():
            choice.freeze_if_one_hot()

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        """Shares of the blocks at each step: of each problem, of each stream, (L, K)."""
        # All in one tensor, so that the host waits for the device once.
        shares = self.order.mixing_weights(own_of_all(self.choices())["logits"]).transpose(0, 1).tolist()
        rounded = iter([[round(share, 3) for share in step] for step in program] for program in shares)
        return {problem: {stream: next(rounded) for stream in STREAMS} for problem in self.problems}

    def mixing_logits(self) -> list[nn.Parameter]:
        """Logits of all programs."""
        return [choice.logits for choice in self.choices()]

    def penalty(self, images: Tensor) -> Tensor:
        """Term that is added to the loss: what the programs' parts cost."""
        terms = []
        for parts, of in zip((self.parts, *self.added), (None, *self.problems), strict=True):
            for name, part in parts.items():
                if part.has("penalty"):
                    terms.append(part.penalty(own_of_all([program[name] for program in self.programs_of(of)])))
        return reduce(torch.add, terms)

    def choices(self, problem: str | None = None) -> list[BlockChoice]:
        """Parameters of programs' order: one problem's, or all."""
        return [program["order"] for program in self.programs_of(problem)]  # type: ignore[misc]

    def programs_of(self, problem: str | None) -> list[Program]:
        """Programs of one problem's streams, in the order of `STREAMS`; None for all problems'."""
        modules = (self.programs if problem is None else self.programs[self.index(problem)]).modules()
        return [module for module in modules if isinstance(module, Program)]


def _sorted(parts: Mapping[str, ProgramPart], known: Container[str] = ()) -> dict[str, ProgramPart]:
    """Parts as they act: the order, then by name, since files of configurations keep no order.

    Raises:
        ValueError: a name that no attribute can have, or one that is known.
    """
    for name in parts:
        if not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise ValueError(f"a part is named {name!r}: give it another name, of letters and digits")
        if name in known:
            raise ValueError(f"{name} is a part of all programs already: give another name")
    names = ("order", "affine", *sorted(parts))
    return {name: parts[name] for name in names if name in parts}


def _head(width: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, features, 1))
