"""The bank and its programs: mixing, one-hot programs, streams and problems, fields that do nothing by default."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from multiravens.agents.acting.load import build
from multiravens.agents.networks.isometric import Isometric
from multiravens.agents.networks.modular.bank import Bank
from multiravens.agents.networks.modular.grouped import lay_out
from multiravens.agents.networks.modular.parts.adapter import Adapter
from multiravens.agents.networks.modular.parts.affine import Affine
from multiravens.agents.networks.modular.parts.order import BlockChoice, Order, entropy, mixing_weights
from multiravens.agents.networks.modular.parts.width import Width
from multiravens.agents.networks.modular.program import Program, ProgramPart, Size, own_of, run_blocks, run_outputs
from multiravens.agents.networks.modular.streams import STREAMS, ModularStreams
from multiravens.agents.networks.patched import PerTaskAffine, TaskAffine, Tasks, by_problem
from multiravens.agents.networks.transporter import StreamMaps
from multiravens.errors import UserError
from multiravens.options.compose import compose

WIDTH, BLOCKS, DEPTH = 16, 3, 5
SIZE = Size(DEPTH, BLOCKS, WIDTH)


@pytest.fixture
def bank() -> Bank:
    torch.manual_seed(0)
    made = Bank(BLOCKS, WIDTH)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


@pytest.fixture
def features() -> Tensor:
    return torch.randn(2, WIDTH, 6, 5, generator=torch.Generator().manual_seed(1))


def program(start: str = "distinct") -> Program:
    made = Program({"order": Order(start), "affine": Affine()}, SIZE)
    with torch.no_grad():
        for parameter in made["affine"].parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def choice_of(made: Program) -> BlockChoice:
    choice = made["order"]
    assert isinstance(choice, BlockChoice)
    return choice


def run(features: Tensor, bank: Bank, made: Program, temperature: float = 1.0, **parts: ProgramPart) -> Tensor:
    order = Order(temperature=temperature)
    order.anneal(1.0)
    acting = [(part, own_of(made[name])) for name, part in {"affine": Affine(), **parts}.items()]
    return run_blocks(features, order.blocks(bank, choice_of(made)), acting)


def streams(problems: list[str], **options: object) -> ModularStreams:
    torch.manual_seed(0)

    def frame(channels: int, pixels: int, patches: int) -> nn.Module:
        return Isometric(channels, pixels, patches, width=WIDTH, depth=0, fine=8)

    made = ModularStreams(frame, 1, problems=problems, blocks=BLOCKS, depth=DEPTH, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "banks" in name or "programs" in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def test_mixing_weights_is_mixing_outputs_when_the_program_is_one_hot(bank: Bank, features: Tensor) -> None:
    hard = program("uniform")
    choice, acting = choice_of(hard), [(Affine(), own_of(hard["affine"]))]
    with torch.no_grad():
        choice.logits.copy_(torch.randn(DEPTH, BLOCKS))

    def reference() -> Tensor:
        return run_outputs(features, bank, mixing_weights(choice.logits, 0.5), acting)

    assert (run(features, bank, hard, 0.5) - reference()).abs().max() > 1e-2  # or the next lines would show nothing
    choice.discretise()
    outcomes = [run(features, bank, hard, 0.5), reference()]
    choice.order = None  # as a mixture, of which all but one share are 0
    for outcome in outcomes:
        torch.testing.assert_close(outcome, run(features, bank, hard, 0.5), atol=1e-5, rtol=1e-5)


def test_a_hard_program_runs_only_the_blocks_it_names(bank: Bank, features: Tensor) -> None:
    hard = program()
    choice = choice_of(hard)
    with torch.no_grad():
        choice.logits.copy_(torch.eye(BLOCKS)[torch.tensor([0, 2, 0, 0, 2])])
    choice.discretise()
    assert choice.order == [0, 2, 0, 0, 2]
    before = run(features, bank, hard)
    with torch.no_grad():
        bank.weight[1] = torch.nan
    torch.testing.assert_close(run(features, bank, hard), before)


def test_hardening_keeps_the_block_of_the_largest_share() -> None:
    soft = choice_of(program("uniform"))
    with torch.no_grad():
        soft.logits.copy_(torch.randn(DEPTH, BLOCKS, generator=torch.Generator().manual_seed(2)))
    best = soft.logits.argmax(1).tolist()
    soft.discretise()
    assert soft.order == best
    assert mixing_weights(soft.logits).tolist() == np.eye(BLOCKS)[best].tolist()


def test_programs_start_with_an_order_of_their_own_or_the_same_or_none() -> None:
    def shares(start: str) -> Tensor:
        return mixing_weights(Order(start).make(SIZE).logits)

    orders = [shares("distinct").argmax(1).tolist() for _ in range(20)]
    assert all(sorted(order[:BLOCKS]) == list(range(BLOCKS)) and order[BLOCKS:] == order[:2] for order in orders)
    assert len({tuple(order) for order in orders}) > 2
    assert shares("same").argmax(1).tolist() == [0, 1, 2, 0, 1]
    torch.testing.assert_close(shares("uniform"), torch.full((DEPTH, BLOCKS), 1 / 3))


def test_an_adapter_adds_nothing_at_first_and_something_when_filled_in(bank: Bank, features: Tensor) -> None:
    part, whole = Adapter(4), program()
    plain = run(features, bank, whole)
    whole["adapter"] = part.make(SIZE)
    torch.testing.assert_close(run(features, bank, whole, adapter=part), plain)
    torch.nn.init.ones_(whole["adapter"].get_parameter("up"))
    assert (run(features, bank, whole, adapter=part) - plain).abs().max() > 1e-2


@pytest.mark.parametrize("inside", [2, 6, 12, 16])
def test_a_narrow_block_is_the_whole_one_without_the_channels_that_it_lacks(
    bank: Bank, features: Tensor, inside: int
) -> None:
    part, whole = Width(inside), program()
    whole["width"] = part.make(SIZE)
    narrow = run(features, bank, whole, width=part)
    with torch.no_grad():
        bank.weight[:, 1, :, inside:] = 0.0  # nothing that these channels hold comes out
    torch.testing.assert_close(narrow, run(features, bank, whole), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("inside", [0, 3, 18])
def test_a_width_that_parts_a_group_is_refused(inside: int) -> None:
    with pytest.raises(ValueError, match=f"inside={inside}: give a multiple of 2, up to 16"):
        Width(inside).make(SIZE)


def test_every_problem_runs_through_its_own_programs() -> None:
    network = streams(["one", "two"])
    images = torch.randn(4, 8, 32, 16, generator=torch.Generator().manual_seed(3))
    tasks = np.array([0, 1, 1, 0])
    mixed = network(images, Tasks.of(tasks))
    for task in (0, 1):
        alone = network(images, Tasks.of([task] * 4))
        for name, found, expected in zip(mixed._fields, mixed, alone, strict=True):
            torch.testing.assert_close(found[tasks == task], expected[tasks == task], msg=name, atol=1e-4, rtol=1e-4)
            assert (found[tasks != task] - expected[tasks != task]).abs().max() > 1e-3, name


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("shared", [True, False])
def test_programs_that_run_together_give_what_each_gives_alone(
    shared: bool, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("multiravens.agents.networks.modular.streams.SLOTS", {"cpu": size})
    network = streams(["one", "two", "three", "four"], shared=shared)
    for patch in network.body.own:
        for parameter in patch.parameters():
            torch.nn.init.normal_(parameter, mean=1.0, std=0.3)
    images = torch.randn(7, 8, 32, 16, generator=torch.Generator().manual_seed(3))
    tasks = Tasks.of([0, 3, 1, 0, 3, 0, 0])
    together = network(images, tasks)
    alone = StreamMaps(*by_problem(tasks, lambda task, own: network(images[own], Tasks.of([task] * len(own)))))
    made = []
    for maps in (together, alone):
        network.zero_grad()
        products = [
            (each * torch.linspace(0, 1, each.numel()).view(each.shape)).sum() for each in maps if each is not None
        ]
        torch.stack(products).sum().backward()
        made.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None and p.grad.any()})
    for name, one, other in zip(together._fields, together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4, msg=name)
    assert made[0].keys() == made[1].keys() and len(made[0]) > 50
    for name, gradient in made[0].items():
        torch.testing.assert_close(gradient, made[1][name], atol=1e-3, rtol=1e-3, msg=name)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.integers(2, 5))
@settings(max_examples=50, deadline=None)
def test_every_sample_has_a_slot_in_a_group_of_its_problem(problems: list[int], size: int) -> None:
    layout = lay_out(torch.tensor(problems), 5, size)
    assert layout.source is not None and layout.slot is not None
    assert layout.source[layout.slot].tolist() == list(range(len(problems)))
    assert layout.problem[layout.slot // size].tolist() == problems
    assert len(layout.source) == len(layout.problem) * size < len(problems) + 5 * size


class Kernels(TorchDispatchMode):
    """Counts what a device would have to start."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = 0

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counted += not operator.is_view
        return operator(*args, **(kwargs or {}))


def test_ten_problems_start_hardly_more_operators_than_one() -> None:
    counts = []
    for count in (2, 10):
        network = streams([f"problem {index}" for index in range(count)])
        images, tasks = torch.randn(20, 8, 32, 16), Tasks.of(np.arange(20) % count)
        with Kernels() as kernels:
            torch.stack([each.sum() for each in network(images, tasks)]).sum().backward()
        counts.append(kernels.counted)
    assert counts[1] < 1.2 * counts[0]  # each program by itself takes five times as many


def test_a_network_of_several_problems_is_one_graph() -> None:
    words = ["backbone=modular", "problems=[a,b]"]
    network, _ = build(OmegaConf.to_container(compose("train", words), resolve=True))  # type: ignore[arg-type]
    images, at = torch.randn(4, 8, 160, 80), torch.full((4, 2), 30.0)
    traced = torch.compile(network, backend="eager", fullgraph=True)
    for expected, found in zip(
        network(images, at, at, Tasks.of([0, 1, 1, 0])), traced(images, at, at, Tasks.of([0, 1, 1, 0])), strict=True
    ):
        for one, other in zip(expected, found, strict=True) if isinstance(expected, tuple) else [(expected, found)]:
            torch.testing.assert_close(one, other)


def test_streams_share_one_bank_or_have_their_own() -> None:
    shared, own = (streams(["one"], shared=choice) for choice in (True, False))
    banks = [[module for module in network.modules() if isinstance(module, Bank)] for network in (shared, own)]
    assert (len(banks[0]), len(banks[1])) == (1, len(STREAMS))


def test_a_problem_costs_less_than_a_hundredth_at_the_default_size() -> None:
    words = ["backbone=modular", "problems=[a,b]"]
    network, _ = build(OmegaConf.to_container(compose("train", words), resolve=True))  # type: ignore[arg-type]
    whole = sum(parameter.numel() for parameter in network.parameters())
    own = [sum(p.numel() for part in network.own(problem) for p in part.parameters()) for problem in ("a", "b")]
    assert own[0] == own[1] and 0 < own[0] / whole < 0.01
    smaller, _ = build(OmegaConf.to_container(compose("train", [words[0], "problems=[a]"]), resolve=True))  # type: ignore[arg-type]
    assert whole - sum(parameter.numel() for parameter in smaller.parameters()) == own[1]


def test_patches_of_the_shared_layers_do_nothing_at_first_and_something_when_filled_in() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 2, 1))
    made = PerTaskAffine(layers, (nn.GroupNorm, nn.Conv2d), problems=3)
    images, tasks = torch.randn(5, 3, 6, 5), Tasks.of([2, 0, 2, 1, 0])
    torch.testing.assert_close(alone(made, images, tasks), layers(images))
    patch = made.of(2)
    assert isinstance(patch, TaskAffine)
    with torch.no_grad():
        patch.scale.fill_(2.0)
        patch.bias.fill_(0.5)
    changed = (alone(made, images, tasks) - layers(images)).abs().amax((1, 2, 3)) > 1e-2
    assert changed.tolist() == [True, False, True, False, False]


def alone(patched: PerTaskAffine, images: Tensor, tasks: Tasks) -> Tensor:
    return by_problem(tasks, lambda task, own: (patched.run(task, images[own]),))[0]


def test_shares_draw_near_to_one_hot_as_training_goes_on() -> None:
    order = Order(start="uniform", temperature=0.1, entropy=0.5)
    network = streams(["one"], parts={"order": order, "affine": Affine()})
    first = network.mixing_logits()[0]
    entropies, penalties = [], []
    for share in (0.0, 0.5, 1.0):
        network.anneal(share)
        entropies.append(entropy(first, order.temperature).item())
        penalties.append(network.penalty(torch.zeros(1)).item())
    assert entropies[0] > entropies[1] > entropies[2]
    assert penalties[0] == 0 and penalties[2] == pytest.approx(
        0.5 * np.mean([entropy(each, 0.1).item() for each in network.mixing_logits()]), rel=1e-4
    )


def test_a_problem_without_a_program_is_told() -> None:
    network = streams(["placing", "stacking"])
    assert network.index("stacking") == 1 and streams(["placing"]).index("") == 0
    with pytest.raises(UserError, match="unknown problem 'stakcing': choose from stacking, placing.*transfer"):
        network.index("stakcing")
    with pytest.raises(UserError, match=r"a program for each of placing, stacking: say which.*problem='placing'"):
        network.index("")


@pytest.mark.parametrize("options", [{"blocks": 0}, {"blocks": 7, "depth": 6}, {"parts": {"keys": Order()}}])
def test_values_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give|lacks"):
        ModularStreams(lambda *_: Isometric(8, 2, 0, width=16, depth=0), 1, **options)


@pytest.mark.parametrize(("options", "message"), [({"temperature": 0.0}, "give above 0"), ({"entropy": -1.0}, "0 or")])
def test_an_order_out_of_range_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Order(**options)  # type: ignore[arg-type]
