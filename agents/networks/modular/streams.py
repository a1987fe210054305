"""Streams that run through a bank of blocks, each problem's by programs of its own.

Departs from Zhmoginov et al. 2107.10963: every problem has a program for each of the Transporter's streams, pick, query
and key.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from multiravens.agents.networks.modular.bank import (
    GROUPS,
    STARTS,
    STEEPNESS,
    Bank,
    Program,
    entropy,
    mixing_weights_of,
    run,
)
from multiravens.agents.networks.modular.grouped import SLOTS, lay_out, mixed_steps, run_together
from multiravens.agents.networks.network import CHANNELS
from multiravens.agents.networks.patched import Patched, PerProblem, Tasks, by_problem
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
        mix: `weights` or `outputs`, see `run`.
        start: `distinct`, `same` or `uniform`, see `Program`.
        shared: one bank for all streams; otherwise one for each.
        temperature: of the shares at the end of training; it falls from 1.
        entropy: weight of the shares' entropy in the loss, at the end of training; it rises from 0.
        adapters: channels inside adapters, of the problems whose programs have them.

    Raises:
        ValueError: a value out of its range.
    """

    temperature: Tensor
    entropy_weight: Tensor

    def __init__(
        self,
        backbone: Backbone,
        goals: int,
        features: int = 8,
        problems: Sequence[str] = ("",),
        blocks: int = 6,
        depth: int = 6,
        mix: str = "weights",
        start: str = "distinct",
        shared: bool = True,
        temperature: float = 0.1,
        entropy: float = 0.01,
        adapters: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(problems, features)
        if not 1 <= blocks <= depth:
            raise ValueError(f"blocks={blocks} and depth={depth}: give 1 block or more, and at least as many steps")
        for name, value, known in (("mix", mix, MIXES), ("start", start, STARTS)):
            if value not in known:
                raise unknown(name, value, known)
        if not 0 < temperature <= 1 or entropy < 0:
            raise ValueError(f"temperature={temperature}, entropy={entropy}: give above 0 to 1, and 0 or more")
        self.last_temperature, self.weight, self.mix = temperature, entropy, mix
        frame = backbone(CHANNELS * (1 + goals), 2, 0)
        if len(frame.blocks):  # type: ignore[arg-type]
            raise ValueError(f"backbone.network.depth={len(frame.blocks)}: blocks are the bank's, so give 0")  # type: ignore[arg-type]
        self.width = int(frame.stem.out_channels)  # type: ignore[union-attr, arg-type]
        banks = [Bank(blocks, self.width) for _ in range(1 if shared else len(STREAMS))]
        self.body = Patched(Body(frame, banks, self.width, features), (nn.GroupNorm,), len(problems))
        ranks = [(adapters or {}).get(problem, 0) for problem in problems]
        self.programs = nn.ModuleList(
            nn.ModuleDict({stream: Program(depth, blocks, self.width, start, rank) for stream in STREAMS})
            for rank in ranks
        )
        self.annealed = False
        # On the device, and no part of a checkpoint: a compiled network would be made anew for each of their values.
        self.register_buffer("temperature", torch.ones(()), persistent=False)
        self.register_buffer("entropy_weight", torch.zeros(()), persistent=False)
        self.anneal(0.0)

    def of(self, problem: int) -> nn.Module:
        """The programs of a problem."""
        return self.programs[problem]

    def patched(self, module: nn.Module) -> nn.Module:
        """Give each problem scales and biases of its own in a module's convolutions."""
        return Patched(module, (nn.Conv2d,), len(self.problems))

    def forward(self, images: Tensor, tasks: Tasks) -> StreamMaps:
        """Images (N, 4 (1 + goals), H, W) of problems to maps."""
        if tasks.only is not None:
            return self._run(tasks.only, images)
        if self.mix != "weights" or not all(program.is_plain for program in self.each_program()):
            return StreamMaps(*by_problem(tasks, lambda task, own: self._run(task, images[own])))
        maps: StreamMaps = self.body.run_all(tasks, images, lambda x: self._through_all(x, tasks))
        return maps

    def _run(self, task: int, images: Tensor) -> StreamMaps:
        """Images of one problem to maps."""
        programs, body = self.programs[task], self.body.module
        assert isinstance(programs, nn.ModuleDict) and isinstance(body, Body)

        def through(x: Tensor) -> list[Tensor]:
            return [run(x, body.bank(name), programs[name], self.temperature, self.mix) for name in STREAMS]  # type: ignore[arg-type]

        maps: StreamMaps = self.body.run(task, images, through)
        return maps

    def _through_all(self, x: Tensor, tasks: Tasks) -> tuple[Tensor, ...]:
        """Features through the programs of all problems at once."""
        layout = lay_out(tasks.problem, len(self.problems), SLOTS.get(x.device.type, 1))
        body = self.body.module
        assert isinstance(body, Body)
        programs = [[each[name] for each in self.programs] for name in STREAMS]  # type: ignore[index]
        steps = mixed_steps(list(body.banks), programs, layout.problem, self.temperature)  # type: ignore[arg-type]
        return run_together(x, steps, layout, len(STREAMS))

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
        """Set the shares' temperature, and the weight of their entropy, for a share of the training."""
        if self.annealed:
            return
        self.temperature.fill_(self.last_temperature**share)
        self.entropy_weight.fill_(self.weight * share)

    def settle(self) -> None:
        """Take training for done: the last temperature from now on, and one-hot programs run their blocks alone."""
        self.anneal(1.0)
        self.annealed = True
        # Logits that do not anneal learn at the pace of what they stand for: they would lock at once.
        self.order_lr_scale = self.last_temperature / STEEPNESS
        for program in self.each_program():
            program.freeze_if_one_hot()

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        """Shares of the blocks at each step: of each problem, of each stream, (L, K)."""
        # All in one tensor, so that the host waits for the device once.
        shares = mixing_weights_of(self._stacked_logits(), self.temperature).tolist()
        rounded = iter([[round(share, 3) for share in step] for step in program] for program in shares)
        return {problem: {stream: next(rounded) for stream in STREAMS} for problem in self.problems}

    def mixing_logits(self) -> list[nn.Parameter]:
        """Logits of all programs."""
        return [program.logits for program in self.each_program()]

    def penalty(self, images: Tensor) -> Tensor:
        """Term that is added to the loss: programs that mix many blocks are costly."""
        return self.entropy_weight * entropy(self._stacked_logits(), self.temperature)

    def _stacked_logits(self) -> Tensor:
        """Logits (P, L, K) of all P programs."""
        return torch.stack([program.logits for program in self.each_program()])

    def each_program(self) -> list[Program]:
        """Of all problems and streams."""
        return [module for module in self.programs.modules() if isinstance(module, Program)]

    def programs_of(self, problem: str) -> list[Program]:
        """Of one problem's streams, in the order of `STREAMS`."""
        modules = self.programs[self.index(problem)].modules()
        return [module for module in modules if isinstance(module, Program)]


def _head(width: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, features, 1))
