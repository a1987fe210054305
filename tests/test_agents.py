"""Networks and what surrounds them: fast paths against plain ones, turns, labels, conditioning, the pointer."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.acting.agent import View
from multiravens.agents.acting.conditioning import FinalGoal, NextGoals, NoGoal, StepGoal
from multiravens.agents.acting.pointer import visual_pointer
from multiravens.agents.acting.policy import refine, refine_turn
from multiravens.agents.networks.correlation import (
    correlate,
    correlate_by_fourier,
    correlate_by_products,
    correlate_directly,
    rotated_crops,
)
from multiravens.agents.networks.isometric import Isometric, ResidualBlock
from multiravens.agents.networks.modular.bank import Bank
from multiravens.agents.networks.modular.streams import ModularStreams
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.resnet43 import OriginalStreams, ResNet43
from multiravens.agents.networks.transporter import (
    PlaceLogits,
    SplitStreams,
    StackedStreams,
    StreamMaps,
    Streams,
    Transporter,
    match_turns,
)
from multiravens.agents.training.objectives import Labels, equivalent_turns, score
from multiravens.agents.training.session import learn, network_of
from multiravens.agents.training.trainer import Trainer
from tests import synthetic


def plain_correlate(maps: Tensor, kernels: Tensor) -> Tensor:
    """`correlate` as the sum that it stands for, by convolution."""
    size = kernels.shape[-1]
    before = size // 2
    padded = functional.pad(maps, (before, size - 1 - before, before, size - 1 - before))
    return torch.stack(
        [functional.conv2d(one[None], kernel.transpose(0, 1))[0] for one, kernel in zip(padded, kernels, strict=True)]
    )


@pytest.mark.parametrize("size", [8, 9, 13])
@pytest.mark.parametrize("function", [correlate, correlate_by_fourier, correlate_directly, correlate_by_products])
def test_the_fast_correlations_are_the_plain_one(function: Any, size: int) -> None:
    maps = torch.randn(2, 3, 21, 14, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    kernels = torch.randn(2, 3, 4, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    # The Fourier transform is taken in single precision, as in training.
    torch.testing.assert_close(
        function(maps.float(), kernels.float()).double(), plain_correlate(maps, kernels), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("fast", [correlate_by_fourier, correlate_directly, correlate_by_products])
def test_the_gradients_of_the_fast_correlations_are_the_plain_ones(fast: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(*shape, generator=generator) for shape in ((2, 3, 21, 14), (2, 3, 4, 8, 8))]
    weights = torch.randn(2, 4, 21, 14, generator=generator)
    gradients = []
    for function in (fast, plain_correlate):
        maps, kernels = (tensor.clone().requires_grad_() for tensor in inputs)
        (function(maps, kernels) * weights).sum().backward()
        gradients.append((maps.grad, kernels.grad))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


def test_an_unturned_crop_is_cut_out_as_it_is() -> None:
    maps = torch.randn(1, 2, 20, 16, generator=torch.Generator().manual_seed(0))
    crop = rotated_crops(maps, torch.tensor([[9.0, 7.0]]), 6, 4)
    torch.testing.assert_close(crop[0, :, 0], maps[0, :, 6:12, 4:10], atol=1e-5, rtol=0)


def test_a_quarter_turn_takes_columns_to_rows() -> None:
    maps = torch.zeros(1, 1, 20, 16)
    maps[0, 0, 9, 10] = 1.0  # three columns beyond the centre
    crop = rotated_crops(maps, torch.tensor([[9.0, 7.0]]), 9, 4)[0, 0]
    for turn, (row, column) in enumerate([(4, 7), (7, 4), (4, 1), (1, 4)]):
        assert crop[turn, row, column] > 0.99


class Fixed(Streams):
    """Streams whose query is given and whose key is given."""

    def __init__(self, query: Tensor, key: Tensor) -> None:
        super().__init__()
        self.query, self.key = query, key

    def forward(self, images: Tensor, tasks: Tasks) -> StreamMaps:
        return StreamMaps(images[:, 0], None, self.query, self.key)


def test_turning_the_query_shifts_the_rotation_axis_of_the_place_logits() -> None:
    rotations, size = 36, 40
    rows, columns = torch.meshgrid(torch.arange(size) - 20.0, torch.arange(size) - 20.0, indexing="ij")
    generator = torch.Generator().manual_seed(3)

    def query(turn: float) -> Tensor:
        """A smooth pattern about the middle, turned."""
        x = math.cos(turn) * columns + math.sin(turn) * rows
        y = math.cos(turn) * rows - math.sin(turn) * columns
        waves = torch.stack([(0.3 * x).sin() + 0.5 * (0.2 * y).cos(), (0.25 * y + 0.1 * x).sin()])
        return (waves * torch.exp(-(x**2 + y**2) / 60))[None]

    key = torch.randn(1, 2, size, size, generator=generator)
    picks, images = torch.tensor([[20, 20]]), torch.zeros(1, 4, size, size)
    places, tasks = torch.tensor([[18, 23]]), Tasks.of([0])
    before = Transporter(Fixed(query(0.0), key), 4, 16, rotations, 1, 16)(images, picks, places, tasks).places
    turns_before = match_turns(query(0.0), key, rotations)
    for steps in (1, 9, 20):
        turned = query(2 * math.pi * steps / rotations)
        after = Transporter(Fixed(turned, key), 4, 16, rotations, 1, 16)(images, picks, places, tasks).places
        turns_after = match_turns(turned, key, rotations)
        # What is already turned by m steps needs m fewer.
        difference = (after.logits() - before.logits().roll(-steps, dims=1)).abs().max() / before.logits().abs().max()
        assert difference < 0.05, (steps, difference)
        difference = (turns_after - turns_before.roll(-steps, dims=1)).abs().max() / turns_before.abs().max()
        assert difference < 0.05, (steps, difference)


@pytest.mark.parametrize(
    ("turn", "period", "below", "above", "share"),
    [
        (0.0, 2 * math.pi, [0], [1], 0.0),
        (42.5, 2 * math.pi, [4], [5], 0.25),
        (-5.0, 2 * math.pi, [35], [0], 0.5),
        (12.0, math.pi, [1, 19], [2, 20], 0.2),
        (-44.0, math.pi / 2, [4, 13, 22, 31], [5, 14, 23, 32], 0.6),
        (33.0, 0.0, list(range(36)), list(range(36)), 0.3),
    ],
)
def test_equivalent_turns(turn: float, period: float, below: list[int], above: list[int], share: float) -> None:
    right, shares = equivalent_turns(torch.tensor([math.radians(turn)]), torch.tensor([period]), 36)
    assert [right[0, side].nonzero().flatten().tolist() for side in (0, 1)] == [below, above]
    assert shares[0].tolist() == pytest.approx([1 - share, share], abs=1e-4)


def random_places(cell: int = 2) -> PlaceLogits:
    generator = torch.Generator().manual_seed(0)
    return PlaceLogits(
        torch.randn(3, 4, 6 // cell, 8 // cell, generator=generator), torch.randn(3, 6, 8, generator=generator)
    )


@pytest.mark.parametrize("cell", [1, 2])
def test_places_in_two_parts_are_their_sum(cell: int) -> None:
    places = random_places(cell)
    logits = places.logits()
    torch.testing.assert_close(places.pixel_logits(), logits.logsumexp(1))
    turns = places.turns(torch.tensor([[5.2, 1.8]] * 3))
    torch.testing.assert_close(turns.log_softmax(1), logits[:, :, 5, 2].log_softmax(1))


def test_the_loss_shares_labels_and_sums_equivalent_turns() -> None:
    places = PlaceLogits(*(part[:1] for part in random_places()))
    turns = torch.tensor([[[True, False, True, False], [False, True, False, True]]])
    labels = Labels(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 3.25]]), turns, torch.tensor([[0.7, 0.3]]))
    turn_logits = torch.tensor([[0.3, -1.0, 2.0, 0.1]])
    outcome = score(torch.zeros(1, 6, 8), places, turn_logits, labels, 1.0)
    where, turn = places.logits().flatten().softmax(0).reshape(4, 6, 8).sum(0), turn_logits[0].softmax(0)
    expected = -0.75 * math.log(where[2, 3]) - 0.25 * math.log(where[2, 4])
    expected -= 0.7 * math.log(turn[0] + turn[2]) + 0.3 * math.log(turn[1] + turn[3])
    assert outcome.place.item() == pytest.approx(expected, abs=1e-4)
    assert outcome.pick.item() == pytest.approx(math.log(48), abs=1e-5)
    assert outcome.turned.item() == 1.0


def test_the_best_choice_is_refined_between_pixels_and_turns() -> None:
    rows, columns = np.meshgrid(np.arange(20), np.arange(16), indexing="ij")
    spot = np.exp(-((rows - 7.3) ** 2 + (columns - 9.6) ** 2)).astype(np.float32)
    assert refine(spot) == pytest.approx((7.3, 9.6), abs=0.15)
    turns = np.exp(-((np.arange(12) - 2.6) ** 2)).astype(np.float32)
    assert refine_turn(turns) == pytest.approx(2.6, abs=0.15)
    assert refine_turn(np.roll(turns, -3)) % 12 == pytest.approx(11.6, abs=0.15)


def test_a_residual_block_is_the_identity_at_first() -> None:
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(ResidualBlock(16)(x), x)


def small(channels: int, pixels: int, patches: int) -> nn.Module:
    return Isometric(channels, pixels, patches, width=16, depth=2, fine=8)


def framed(channels: int, pixels: int, patches: int) -> nn.Module:
    return Isometric(channels, pixels, patches, width=16, depth=0, fine=8)


@pytest.mark.parametrize(
    ("streams", "goals"),
    [
        (lambda: StackedStreams(small, 1), 1),
        (lambda: StackedStreams(small, 0), 0),
        (lambda: SplitStreams(small, 2), 2),
        (lambda: OriginalStreams(ResNet43, 1), 1),
        (lambda: ModularStreams(framed, 1, problems=["a", "b"], blocks=2, depth=3), 1),
    ],
    ids=["stack", "no goal", "split", "original", "modular"],
)
def test_every_parameter_gets_a_gradient(streams: Any, goals: int) -> None:
    torch.manual_seed(0)
    network = Transporter(streams(), 4 * (1 + goals), 8, 4)
    for module in network.modules():  # zero-initialised convolutions pass no gradient on at first
        if isinstance(module, ResidualBlock):
            nn.init.normal_(module.convolve[1].weight, std=0.1)  # type: ignore[arg-type]
        if isinstance(module, Bank):
            nn.init.normal_(module.weight, std=0.1)
    images = torch.randn(2, 4 * (1 + goals), 32, 16)
    pick, places, turns, *_ = network(
        images,
        torch.tensor([[9.5, 7.0], [20.0, 8.2]]),
        torch.tensor([[3.0, 4.0], [9.0, 9.1]]),
        Tasks.of([0, 1]),
    )
    place = places.logits()
    assert pick.shape == (2, 32, 16) and place.shape == (2, 4, 32, 16) and turns.shape == (2, 4)
    # No cross-entropy: it does not change when a last bias shifts all logits, whose gradient is then rounding alone.
    (
        pick.logsumexp((1, 2)) + place.logsumexp((1, 2, 3)) - 2 * pick[:, 3, 3] - 2 * place[:, 1, 4, 4] - turns[:, 0]
    ).sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_original_has_the_published_size() -> None:
    parameters = sum(parameter.numel() for parameter in ResNet43(4, 1).parameters())
    assert parameters == pytest.approx(9.83e6, rel=0.1)


def test_conditioning_chooses_the_images_it_says() -> None:
    pointers, steps, counts = [0, 2, 3], [0, 4, 7], [4, 4, 4]
    assert NoGoal().choose(pointers, steps, counts).shape == (3, 0)
    assert FinalGoal().choose(pointers, steps, counts).tolist() == [[3], [3], [3]]
    assert StepGoal().choose(pointers, steps, counts).tolist() == [[0], [3], [3]]
    assert NextGoals(2).choose(pointers, steps, counts).tolist() == [[0, 1], [2, 3], [3, 3]]
    with pytest.raises(ValueError, match="ahead=0"):
        NextGoals(0)


def view(reached: list[int], misplaced: bool = False) -> View:
    """Three blocks that move from left to right one by one; those named have been moved."""
    table = np.full((40, 20, 3), 90, np.uint8)

    def picture(moved: list[int], lost: bool = False) -> tuple[np.ndarray, np.ndarray]:
        color, height = table.copy(), np.zeros((40, 20), np.float32)
        for block in range(3):
            column = 12 if block in moved else 2
            column = 7 if lost and block == 2 else column
            at = np.s_[4 + 12 * block : 9 + 12 * block, column : column + 5]
            color[at], height[at] = (200, 60 * block, 40), 0.02
        return color, height

    goals = [picture(list(range(count + 1))) for count in range(3)]
    color, height = picture(reached, misplaced)
    return View(
        color,
        height,
        *picture([]),
        np.stack([goal[0] for goal in goals]),
        np.stack([goal[1] for goal in goals]),
        step=0,
        pointer=None,
        seed=0,
    )


def test_the_visual_pointer_tells_the_first_sub_goal_that_does_not_hold() -> None:
    assert [visual_pointer(view(list(range(count)))) for count in range(4)] == [0, 1, 2, 3]
    assert visual_pointer(view([1, 2])) == 0  # the first was undone
    assert visual_pointer(view([0, 1], misplaced=True)) == 2  # the last one lies neither here nor there


def test_sixteen_bits_score_as_thirty_two_and_leave_pixels_where_they_are(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[Trainer] = []
    given: list[Tensor] = []

    def make(*arguments: Any, **options: Any) -> Trainer:
        trainers.append(Trainer(*arguments, **options))
        return trainers[-1]

    monkeypatch.setattr("multiravens.agents.training.session.Trainer", make)
    for precision, steps in (("32-true", 60), ("bf16-mixed", 1)):
        words = [f"precision={precision}", f"steps={steps}", f"run='{tmp_path / precision}'", f"data='{data}'"]
        config = synthetic.configured("problems=[synthetic]", "demos=6", "backbone=small", *words)
        learn(config, ["synthetic"], *network_of(config), config)
    fine, coarse = trainers
    coarse.network.load_state_dict(fine.network.state_dict())
    forward = Transporter.forward

    def noted(self: Transporter, images: Tensor, picks: Tensor, places: Tensor, tasks: Any) -> Any:
        given.append(torch.cat([picks, places]))
        return forward(self, images, picks, places, tasks)

    monkeypatch.setattr(Transporter, "forward", noted)
    samples = np.arange(len(fine.data.steps.pick))
    with torch.no_grad():
        scored = [trainer.score(trainer.send(samples)) for trainer in trainers]
    expected, found = (torch.stack([*each.losses.values(), *each.figures.values()]).mean(1) for each in scored)
    assert torch.equal(given[0], given[1])
    torch.testing.assert_close(found[:2], expected[:2], atol=0.02, rtol=0.02)  # losses
    torch.testing.assert_close(found[2:], expected[2:], atol=0.05, rtol=0)  # accuracies
