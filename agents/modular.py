"""A bank of residual blocks of one shape, and programs that say how each problem's streams run through it.

Reference: Zhmoginov et al. 2107.10963 (blocks reused in any order); Mudrakarta et al. 1810.10703 (the model patch).
Departs: every problem has a program for each of the Transporter's streams, pick, query and key.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.patched import Patched, PerProblem, by_problem
from multiravens.agents.transporter import CHANNELS, Backbone, Maps, Streams
from multiravens.errors import UserError, unknown

STREAMS = ("pick", "query", "key")
MIXES = ("weights", "outputs")
STARTS = ("distinct", "same", "uniform")
GROUPS = 8
STEEPNESS = 5.0
"""How many times a logit counts: so many times faster are orders learned than weights, or they would stay as drawn."""
PREFERENCE = 1.0 / STEEPNESS
"""Logit of the block that a step starts with: of six it has 0.35 of the share."""


class Part(NamedTuple):
    """Parameters of one block, or a mixture of several blocks'. C channels.

    Attributes:
        weight: (2, C, C, 3, 3) of its convolutions.
        offset: (2, C) of its convolutions.
        gain: (2, C) of its group normalisations.
        shift: (2, C) of its group normalisations.
    """

    weight: Tensor
    offset: Tensor
    gain: Tensor
    shift: Tensor


class Adapter(NamedTuple):
    """A narrow way round a block's convolutions.

    Attributes:
        down: (r, C).
        up: (C, r).
    """

    down: Tensor
    up: Tensor


class Step(NamedTuple):
    """What a program adds to a step of its own.

    Attributes:
        scale: (C,) of the first normalisation's gain.
        bias: (C,) added to its shift.
        mask: (C,) of the block's change; None for 1.
        width: channels inside the block that are used; None for all.
        adapter: beside the block; None for none.
    """

    scale: Tensor
    bias: Tensor
    mask: Tensor | None = None
    width: int | None = None
    adapter: Adapter | None = None


def change(x: Tensor, part: Part, own: Step) -> Tensor:
    """What a block adds to features (N, C, H, W)."""
    inside = part.weight.shape[1] if own.width is None else own.width
    gain, shift = part.gain[0] * own.scale, part.shift[0] + own.bias
    y = functional.relu(functional.group_norm(x, GROUPS, gain, shift))
    y = functional.conv2d(y, part.weight[0, :inside], part.offset[0, :inside], padding=1)
    y = functional.relu(functional.group_norm(y, GROUPS, part.gain[1, :inside], part.shift[1, :inside]))
    y = functional.conv2d(y, part.weight[1, :, :inside], part.offset[1], padding=1)
    if own.adapter is not None:
        down, up = (matrix[..., None, None] for matrix in own.adapter)
        y = y + functional.conv2d(functional.relu(functional.conv2d(x, down)), up)
    return y if own.mask is None else y * own.mask[:, None, None]


class Bank(nn.Module):
    """K blocks that take their parameters as arguments: the identity at first, as `isometric.ResidualBlock`.

    Args:
        blocks: K.
        width: C, channels in and out, a multiple of 8.
    """

    def __init__(self, blocks: int, width: int) -> None:
        super().__init__()
        bound = (9 * width) ** -0.5
        first = torch.empty(blocks, width, width, 3, 3).uniform_(-bound, bound)
        self.weight = nn.Parameter(torch.stack([first, torch.zeros_like(first)], dim=1))
        self.offset = nn.Parameter(torch.zeros(blocks, 2, width))
        self.gain = nn.Parameter(torch.ones(blocks, 2, width))
        self.shift = nn.Parameter(torch.zeros(blocks, 2, width))

    def part(self, block: int) -> Part:
        """One block's parameters."""
        return Part(*(tensor[block] for tensor in (self.weight, self.offset, self.gain, self.shift)))

    def mixed(self, shares: Tensor) -> list[Part]:
        """Blocks' parameters mixed in shares (L, K), for each of L steps."""
        tensors = (self.weight, self.offset, self.gain, self.shift)
        mixtures = [torch.tensordot(shares, tensor, 1).unbind() for tensor in tensors]
        return [Part(*step) for step in zip(*mixtures, strict=True)]


class Program(nn.Module):
    """Which block runs at which step, and what each step has of its own.

    Args:
        depth: L, steps.
        blocks: K, of the bank.
        width: C.
        start: `distinct`: each step prefers a block, in an order drawn for this program; `same`: the blocks in turn;
            `uniform`: no block is preferred.
        rank: r, channels inside each step's adapter; 0 for no adapter.

    Attributes:
        logits: (L, K) of the shares in which blocks are mixed.
        scale: (L, C), of the model patch.
        bias: (L, C), of the model patch.
        mask: (L, C) or None.
        width: channels inside every block, or None.
        down: (L, r, C) of adapters, or None.
        up: (L, C, r) of adapters, or None.
        order: the blocks in turn once the shares are one-hot and `settle` has seen it; only they run then.
    """

    def __init__(self, depth: int, blocks: int, width: int, start: str = "distinct", rank: int = 0) -> None:
        super().__init__()
        logits = torch.zeros(depth, blocks)
        if start != "uniform":
            order = torch.randperm(blocks) if start == "distinct" else torch.arange(blocks)
            logits[torch.arange(depth), order[torch.arange(depth) % blocks]] = PREFERENCE
        self.logits = nn.Parameter(logits)
        self.scale = nn.Parameter(torch.ones(depth, width))
        self.bias = nn.Parameter(torch.zeros(depth, width))
        self.mask: nn.Parameter | None = None
        self.down = nn.Parameter(torch.randn(depth, rank, width) * width**-0.5) if rank else None
        self.up = nn.Parameter(torch.zeros(depth, width, rank)) if rank else None
        self.width: int | None = None
        self.order: list[int] | None = None

    def shares(self, temperature: float = 1.0) -> Tensor:
        """(L, K), each step's add up to 1."""
        return shares_of(self.logits, temperature)

    def steps(self) -> list[Step]:
        """What each step has of its own."""
        none = [None] * len(self.scale)
        masks = none if self.mask is None else self.mask.unbind()
        adapters: Sequence[Adapter | None] = none
        if self.down is not None and self.up is not None:
            adapters = [Adapter(*each) for each in zip(self.down.unbind(), self.up.unbind(), strict=True)]
        own = zip(self.scale.unbind(), self.bias.unbind(), masks, adapters, strict=True)
        return [Step(scale, bias, mask, self.width, adapter) for scale, bias, mask, adapter in own]

    @torch.no_grad()
    def harden(self) -> None:
        """Leave each step the block of its largest share alone."""
        best = self.logits.argmax(1, keepdim=True)
        self.logits.fill_(-torch.inf).scatter_(1, best, 0.0)
        self.settle()

    def settle(self) -> None:
        """Have one-hot shares run only the blocks that they name."""
        shares = self.shares().detach()
        self.order = shares.argmax(1).tolist() if bool((shares.amax(1) == 1).all()) else None


def shares_of(logits: Tensor, temperature: float) -> Tensor:
    """Shares of the blocks that logits (.., K) stand for; they add up to 1."""
    return (STEEPNESS * logits / temperature).softmax(-1)


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Mean entropy of the shares that logits (.., K) stand for, as a share of the highest there is."""
    shares = shares_of(logits, temperature)
    return -(shares * shares.clamp(min=1e-12).log()).sum(-1).mean() / math.log(max(shares.shape[-1], 2))


def run(x: Tensor, bank: Bank, program: Program, temperature: float = 1.0, mix: str = "weights") -> Tensor:
    """Features (N, C, H, W) through all steps of a program.

    Args:
        x: features.
        bank: of blocks.
        program: says how they are used.
        temperature: of the shares; the lower, the nearer to one-hot.
        mix: `weights`: blocks' parameters are mixed, and one block runs a step; `outputs`: all blocks run and what they
            make is mixed, for reference.
    """
    if torch.is_grad_enabled() and not x.requires_grad:
        # With channels last, torch 2.13's group_norm crashes on the way back where its gain alone has a gradient.
        x = x.detach().requires_grad_()
    steps = program.steps()
    if program.order is None and mix == "outputs":
        blocks = [bank.part(block) for block in range(len(bank.weight))]
        for shares, own in zip(program.shares(temperature), steps, strict=True):
            x = x + sum(share * change(x, part, own) for share, part in zip(shares, blocks, strict=True))
        return x
    if program.order is None:
        parts = bank.mixed(program.shares(temperature))
    else:
        parts = [bank.part(block) for block in program.order]
    for part, own in zip(parts, steps, strict=True):
        x = x + change(x, part, own)
    return x


class Body(nn.Module):
    """Stem, banks and heads: what all problems share.

    Args:
        frame: an `isometric.Isometric` of depth 0.
        banks: one for all streams, or one for each.
        width: C.
        features: D, of query and key.
        mix: see `run`.
    """

    def __init__(self, frame: nn.Module, banks: Sequence[Bank], width: int, features: int, mix: str) -> None:
        super().__init__()
        self.frame, self.banks, self.mix = frame, nn.ModuleList(banks), mix
        self.merge = nn.Conv2d(2 * width, width, 1)
        self.heads = nn.ModuleDict({name: _head(width, features) for name in STREAMS[1:]})

    def forward(self, images: Tensor, programs: Mapping[str, Program], temperature: float) -> Maps:
        """Images (N, 4 (1 + goals), H, W) of one problem, by its programs, to maps."""
        x = self.frame.begin(images)  # type: ignore[operator]
        banks = list(self.banks) * (len(STREAMS) if len(self.banks) == 1 else 1)
        made = {
            stream: run(x, bank, programs[stream], temperature, self.mix)  # type: ignore[arg-type]
            for stream, bank in zip(STREAMS, banks, strict=True)
        }
        merged = self.merge(torch.cat([made["pick"], made["key"]], dim=1))
        pick, place = self.frame.finish(merged, images)[0].unbind(1)  # type: ignore[operator]
        return Maps(pick, place, self.heads["query"](made["query"]), self.heads["key"](made["key"]))


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
        super().__init__(problems)
        if not 1 <= blocks <= depth:
            raise ValueError(f"blocks={blocks} and depth={depth}: give 1 block or more, and at least as many steps")
        for name, value, known in (("mix", mix, MIXES), ("start", start, STARTS)):
            if value not in known:
                raise unknown(name, value, known)
        if not 0 < temperature <= 1 or entropy < 0:
            raise ValueError(f"temperature={temperature}, entropy={entropy}: give above 0 to 1, and 0 or more")
        self.last_temperature, self.weight = temperature, entropy
        frame = backbone(CHANNELS * (1 + goals), 2, 0)
        self.width = int(frame.stem.out_channels)  # type: ignore[union-attr, arg-type]
        banks = [Bank(blocks, self.width) for _ in range(1 if shared else len(STREAMS))]
        self.body = Patched(Body(frame, banks, self.width, features, mix), (nn.GroupNorm,), len(problems))
        ranks = [(adapters or {}).get(problem, 0) for problem in problems]
        self.programs = nn.ModuleList(
            nn.ModuleDict({stream: Program(depth, blocks, self.width, start, rank) for stream in STREAMS})
            for rank in ranks
        )
        self.annealed = False
        self.anneal(0.0)

    def of(self, problem: int) -> nn.Module:
        """The programs of a problem."""
        return self.programs[problem]

    def patched(self, module: nn.Module) -> nn.Module:
        """Give each problem scales and biases of its own in a module's convolutions."""
        return Patched(module, (nn.Conv2d,), len(self.problems))

    def forward(self, images: Tensor, tasks: Tensor) -> Maps:
        """Images (N, 4 (1 + goals), H, W) of problems (N,), as indices, to maps."""
        maps = by_problem(
            tasks, lambda task, own: self.body.run(task, images[own], self.programs[task], self.temperature)
        )
        return Maps(*maps)

    def index(self, problem: str) -> int:
        """Which program is a problem's.

        Raises:
            UserError: it has none.
        """
        if problem in self.problems:
            return self.problems.index(problem)
        if not problem and len(self.problems) == 1:
            return 0
        raise UserError(
            f"{unknown('problem', problem, self.problems)}; this agent has a program for each of these, and learns "
            "another by `python -m multiravens.transfer`"
        )

    def anneal(self, share: float) -> None:
        """Set the shares' temperature, and the weight of their entropy, for a share of the training."""
        if self.annealed:
            return
        self.temperature, self._weight = self.last_temperature**share, self.weight * share

    def settle(self) -> None:
        """Take training for done: the last temperature from now on, and one-hot programs run their blocks alone."""
        self.anneal(1.0)
        self.annealed = True
        for program in self.each_program():
            program.settle()

    @torch.no_grad()
    def summary(self) -> dict[str, Any]:
        """Shares of the blocks at each step: of each problem, of each stream, (L, K)."""
        return {
            problem: {
                stream: [[round(share, 3) for share in step] for step in program.shares(self.temperature).tolist()]
                for stream, program in zip(STREAMS, self.programs_of(problem), strict=True)
            }
            for problem in self.problems
        }

    def penalty(self, images: Tensor) -> Tensor:
        """What is added to the loss: programs that mix many blocks are costly."""
        return self._weight * entropy(
            torch.stack([program.logits for program in self.each_program()]), self.temperature
        )

    def each_program(self) -> list[Program]:
        """Of all problems and streams."""
        return [module for module in self.programs.modules() if isinstance(module, Program)]

    def programs_of(self, problem: str) -> list[Program]:
        """Of one problem's streams, in the order of `STREAMS`."""
        modules = self.programs[self.index(problem)].modules()
        return [module for module in modules if isinstance(module, Program)]


def _head(width: int, features: int) -> nn.Sequential:
    return nn.Sequential(nn.GroupNorm(GROUPS, width), nn.ReLU(), nn.Conv2d(width, features, 1))
