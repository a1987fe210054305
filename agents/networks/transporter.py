"""The Transporter factorisation: first the pick, then the place and the turn at which the picked object matches.

Images are (N, C, H, W) float: for the observation and each goal image red, green, blue and height. Rows run along +y,
columns along +x, turns from +x to +y.

Reference: Zeng et al. 2010.14406; goals: Seita et al. 2012.03385; sequences: Lim et al. 2109.07578.
Departs: one network gives all three streams, and features are computed once and rotated. Every turn is matched over the
whole table on coarse cells only; a logit of each pixel tells the place to the pixel, and small networks that look at
the pick and the place alone tell the turn there at full resolution.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.networks.correlation import correlate, rotated_crops
from multiravens.agents.networks.network import CHANNELS, Network
from multiravens.agents.networks.patched import PerProblem, Tasks


class StreamMaps(NamedTuple):
    """Outputs of the three streams for a batch of images.

    Attributes:
        pick: (N, H, W) logits of picking at each pixel.
        place: (N, H, W) logits of placing at each pixel that do not depend on pick and turn; None for none.
        query: (N, D, h, w) features of what could be picked, on a grid that divides the pixels'.
        key: (N, D, h, w) features of where it could be placed.
    """

    pick: Tensor
    place: Tensor | None
    query: Tensor
    key: Tensor


class Streams(Network):
    """Makes maps of images: one network or several.

    Args:
        problems: that it is made for; plain networks treat all alike.
        features: D, of query and key.

    Attributes:
        coarse: turns are matched over the whole table on cells only; otherwise at every pixel.
    """

    coarse = True

    def __init__(self, problems: Sequence[str] = (), features: int = 0) -> None:
        super().__init__(problems)
        self.features = features

    def per_task(self, module: nn.Module) -> nn.Module:
        """A module that takes the problems as its last input, as these streams want it."""
        return module

    def penalty(self, images: Tensor) -> Tensor:
        """Term that is added to the loss; it does not depend on the images' content."""
        return images.new_zeros(())

    def kernels(self, images: Tensor, query: Tensor, picks: Tensor, size: int, rotations: int) -> Tensor:
        """Features (N, D, R, K, K) of what lies about the picks in every turn.

        Args:
            images: (N, C, H, W).
            query: (N, D, h, w) of `StreamMaps`, on cells if turns are matched on cells.
            picks: (N, 2) row and column, in pixels of query.
            size: K.
            rotations: R.
        """
        return rotated_crops(query, picks, size, rotations)


Backbone = Callable[[int, int, int], nn.Module]
"""Makes a network from its channels in, and its channels out for each pixel and for each patch."""


class StackedStreams(Streams):
    """One network that sees observation and goals as channels of one image and gives pick, query and key.

    Args:
        backbone: makes a network.
        goals: goal images beside the observation.
        features: D, of query and key.
        problems: that it is made for.
    """

    def __init__(self, backbone: Backbone, goals: int, features: int = 8, problems: Sequence[str] = ()) -> None:
        super().__init__(problems, features)
        self.network = backbone(CHANNELS * (1 + goals), 2, 2 * features)

    def forward(self, images: Tensor, tasks: Tasks) -> StreamMaps:
        """(N, 4 (1 + goals), H, W), of problems, to maps."""
        pixels, patches = self.network(images)
        # Split at once: the gradients of slices would be pictures of zeros, added up.
        pick, place = pixels.unbind(1)
        query, key = patches.split(self.features, dim=1)
        return StreamMaps(pick, place, query, key)


class SplitStreams(Streams):
    """GCTN's split: the pick sees observation and goals stacked; the goals' features multiply query and key.

    Args:
        backbone: makes a network.
        goals: goal images beside the observation, 1 or more.
        features: D, of query and key.
        problems: that it is made for.

    Raises:
        ValueError: without a goal there is nothing to split.

    Reference: Seita et al. 2012.03385.
    """

    def __init__(self, backbone: Backbone, goals: int, features: int = 8, problems: Sequence[str] = ()) -> None:
        super().__init__(problems, features)
        if goals < 1:
            raise ValueError("fusion=split needs a goal; use fusion=stack for an agent without one")
        self.picking = backbone(CHANNELS * (1 + goals), 1, 0)
        self.scene = backbone(CHANNELS, 1, 2 * features)
        self.goal = backbone(CHANNELS * goals, 1, 2 * features)

    def forward(self, images: Tensor, tasks: Tasks) -> StreamMaps:
        """(N, 4 (1 + goals), H, W), of problems, to maps."""
        scene, goal = self.scene(images[:, :CHANNELS]), self.goal(images[:, CHANNELS:])
        query, key = (scene[1] * goal[1]).split(self.features, dim=1)
        return StreamMaps(self.picking(images)[0][:, 0], (scene[0] * goal[0])[:, 0], query, key)


class Turns(nn.Module):
    """Tells turns at full resolution, from what lies about the pick and about the place.

    Args:
        channels: of the images.
        crop: K, side of the squares [pixels].
        rotations: R, turns that are told apart.
        width: channels inside.
        features: that are matched.
    """

    def __init__(self, channels: int, crop: int, rotations: int, width: int = 32, features: int = 8) -> None:
        super().__init__()
        self.crop, self.rotations = crop, rotations
        self.picked_encoder, self.target_encoder = (_layers(channels, width, features) for _ in range(2))

    def forward(self, images: Tensor, picks: Tensor, places: Tensor, tasks: Tasks) -> Tensor:
        """Logits (N, R) for images (N, C, H, W), picks (N, 2) and places (N, 2); problems are treated alike."""
        picked, target = (
            encoder(rotated_crops(images, at.float(), self.crop, 1)[:, :, 0])
            for encoder, at in ((self.picked_encoder, picks), (self.target_encoder, places))
        )
        return match_turns(picked, target, self.rotations)


def match_turns(picked: Tensor, target: Tensor, rotations: int) -> Tensor:
    """Logits (N, R) of turning features (N, D, K, K) onto others (N, D, K, K), both about index K // 2."""
    size = picked.shape[-1]
    turned = rotated_crops(picked, picked.new_full((len(picked), 2), size // 2), size, rotations)
    return (turned * target[:, :, None]).sum((1, 3, 4)) * _scale(turned)


def _layers(channels: int, width: int, features: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(width, features, 3, padding=1),
    )


class PlaceLogits(NamedTuple):
    """Logits of placing at each turn and pixel, in parts that add up.

    Attributes:
        cells: (N, R, H / C, W / C) of each turn and cell of C x C pixels.
        pixels: (N, H, W) of each pixel, whatever the turn.
    """

    cells: Tensor
    pixels: Tensor

    @property
    def cell(self) -> int:
        """C, side of a cell [pixels]."""
        return self.pixels.shape[-1] // self.cells.shape[-1]

    def logits(self) -> Tensor:
        """(N, R, H, W) the sums."""
        repeated = self.cells.repeat_interleave(self.cell, dim=2).repeat_interleave(self.cell, dim=3)
        return repeated + self.pixels[:, None]

    def pixel_logits(self) -> Tensor:
        """(N, H, W) logits of placing at each pixel at any turn."""
        any_turn = self.cells.logsumexp(1)
        return self.pixels + any_turn.repeat_interleave(self.cell, dim=1).repeat_interleave(self.cell, dim=2)

    def turns(self, at: Tensor) -> Tensor:
        """(N, R) logits of the turns at the pixels nearest to (N, 2), up to a constant of each sample."""
        rows, columns = (
            at[:, axis].round().long().clamp(0, self.pixels.shape[axis + 1] - 1) // self.cell for axis in range(2)
        )
        return self.cells[torch.arange(len(at), device=at.device), :, rows, columns]


class NetworkOutput(NamedTuple):
    """Output of a network for a batch.

    Attributes:
        pick: (N, H, W) logits of picking at each pixel.
        places: of what was picked.
        turns: (N, R) logits there, up to a constant of each sample.
        penalty: what is added to the loss.
        query: (N, D, h, w) features of what could be picked, of `StreamMaps`.
        key: (N, D, h, w) features of where it could be placed, of `StreamMaps`.
    """

    pick: Tensor
    places: PlaceLogits
    turns: Tensor
    penalty: Tensor
    query: Tensor
    key: Tensor


class Transporter(Network):
    """Scores picks, for a given pick places, and for given ones turns.

    Args:
        streams: gives `StreamMaps`.
        channels: of the images.
        crop: K, side of the square round pick and place that is matched at full resolution [pixels].
        rotations: R, turns that are told apart.
        cell: C, side of the cells that are matched over the whole table [pixels]; it divides the images' sides, and the
            grid of the streams' features divides it.
        reach: side of the square round the pick that is matched over the whole table [cells].

    Attributes:
        features: D, of query and key.
    """

    def __init__(
        self, streams: Streams, channels: int, crop: int = 16, rotations: int = 36, cell: int = 4, reach: int = 8
    ) -> None:
        super().__init__(streams.problems)
        self.streams, self.rotations, self.features = streams, rotations, streams.features
        # Without cells the square is as large: the original's 64 x 64 pixels at full resolution.
        self.cell, self.reach = (cell, reach) if streams.coarse else (1, cell * reach)
        self.near = streams.per_task(Turns(channels, crop, rotations)) if streams.coarse else None

    def forward(self, images: Tensor, picks: Tensor, places: Tensor, tasks: Tasks) -> NetworkOutput:
        """Score every pick, every place of what is picked, and every turn there.

        Args:
            images: (N, C, H, W).
            picks: (N, 2) row and column of the picks that places are scored for, between pixels if need be.
            places: (N, 2) of the places that turns are scored for.
            tasks: the problems, as `Streams.index` gives them.
        """
        maps: StreamMaps = self.streams(images, tasks)
        scored = self.places(images, maps, picks)
        turns = self.turns(images, picks, places, scored, tasks)
        return NetworkOutput(maps.pick, scored, turns, self.streams.penalty(images), maps.query, maps.key)

    def places(self, images: Tensor, maps: StreamMaps, picks: Tensor) -> PlaceLogits:
        """Score places for picks (N, 2), from what the streams made of the images."""
        # A pixel's middle in units of cells, counted between cells' middles.
        centres = (picks.float() - (self.cell - 1) / 2) / self.cell
        kernels = self.streams.kernels(images, self._pooled(maps.query, images), centres, self.reach, self.rotations)
        cells = correlate(self._pooled(maps.key, images), kernels * _scale(kernels))
        return PlaceLogits(cells, torch.zeros_like(maps.pick) if maps.place is None else maps.place)

    def turns(self, images: Tensor, picks: Tensor, places: Tensor, scored: PlaceLogits, tasks: Tasks) -> Tensor:
        """Score the turns (N, R) of what lies about picks (N, 2) at places (N, 2), for their problems."""
        logits = scored.turns(places)
        return logits if self.near is None else logits + self.near(images, picks, places, tasks)

    @property
    def order_lr_scale(self) -> float:  # type: ignore[override]
        """Share of the learning rate that is for `mixing_logits`."""
        return self.streams.order_lr_scale

    def index(self, problem: str) -> int:
        return self.streams.index(problem)

    def anneal(self, share: float) -> None:
        self.streams.anneal(share)

    def settle(self) -> None:
        self.streams.settle()

    def summary(self) -> dict[str, Any]:
        return self.streams.summary()

    def mixing_logits(self) -> list[nn.Parameter]:
        return self.streams.mixing_logits()

    def own(self, problem: str) -> list[nn.Module]:
        index = self.streams.index(problem)
        return [module.of(index) for module in self.modules() if isinstance(module, PerProblem)]

    def _pooled(self, maps: Tensor, images: Tensor) -> Tensor:
        side = self.cell * maps.shape[-1] // images.shape[-1]
        return functional.avg_pool2d(maps, side) if side > 1 else maps


def _scale(kernels: Tensor) -> float:
    """Sums of many products start out large; this keeps their logits near 1 at first, for any square (.., K, K)."""
    return float((kernels.shape[1] * kernels.shape[-1] ** 2) ** -0.5)
