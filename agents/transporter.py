"""The Transporter factorisation: where to pick, and then where and at which turn what is picked matches.

Images are (N, C, H, W) float: for the observation and each goal image red, green, blue and height. Rows run along +y,
columns along +x, turns from +x to +y.

Reference: Zeng et al. 2010.14406; goals: Seita et al. 2012.03385; sequences: Lim et al. 2109.07578.
Departs: features are computed once and rotated; one network gives all three streams; what turns is matched on coarser
cells than pixels, and a logit of each pixel, whatever the turn, tells the place to the pixel.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.correlation import correlate, rotated_crops

CHANNELS = 4
"""Of one image: red, green, blue and height."""


class Maps(NamedTuple):
    """What a network sees in a batch of images.

    Attributes:
        pick: (N, H, W) logits of picking at each pixel.
        place: (N, H, W) logits of placing at each pixel that do not depend on pick and turn; None for none.
        query: (N, D, H, W) features of what could be picked.
        key: (N, D, H, W) features of where it could be placed.
    """

    pick: Tensor
    place: Tensor | None
    query: Tensor
    key: Tensor


class StackedStreams(nn.Module):
    """One network that sees observation and goals as channels of one image and gives pick, query and key.

    Args:
        backbone: makes a network from its channels in and out.
        goals: goal images beside the observation.
        features: D, of query and key.
    """

    def __init__(self, backbone: Callable[[int, int], nn.Module], goals: int, features: int = 8) -> None:
        super().__init__()
        self.features = features
        self.network = backbone(CHANNELS * (1 + goals), 2 + 2 * features)

    def forward(self, images: Tensor) -> Maps:
        """(N, 4 (1 + goals), H, W) to maps."""
        out = self.network(images)
        return Maps(out[:, 0], out[:, 1], out[:, 2 : 2 + self.features], out[:, 2 + self.features :])


class SplitStreams(nn.Module):
    """GCTN's split: the pick sees observation and goals stacked; the goals' features multiply query and key.

    Args:
        backbone: makes a network from its channels in and out.
        goals: goal images beside the observation, 1 or more.
        features: D, of query and key.

    Raises:
        ValueError: without a goal there is nothing to split.

    Reference: Seita et al. 2012.03385.
    """

    def __init__(self, backbone: Callable[[int, int], nn.Module], goals: int, features: int = 8) -> None:
        super().__init__()
        if goals < 1:
            raise ValueError("fusion=split needs a goal; use fusion=stack for an agent without one")
        self.features = features
        self.picking = backbone(CHANNELS * (1 + goals), 1)
        self.scene = backbone(CHANNELS, 1 + 2 * features)
        self.goal = backbone(CHANNELS * goals, 1 + 2 * features)

    def forward(self, images: Tensor) -> Maps:
        """(N, 4 (1 + goals), H, W) to maps."""
        placing = self.scene(images[:, :CHANNELS]) * self.goal(images[:, CHANNELS:])
        query, key = placing[:, 1 : 1 + self.features], placing[:, 1 + self.features :]
        return Maps(self.picking(images)[:, 0], placing[:, 0], query, key)


class Places(NamedTuple):
    """Logits of placing at each turn and pixel, in two parts that add up.

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

    def total(self) -> Tensor:
        """(N,) logarithm of the sum of the exponentials of all logits, without adding them up one by one."""
        within = functional.pixel_unshuffle(self.pixels[:, None], self.cell).logsumexp(1, keepdim=True)
        return (self.cells + within).flatten(1).logsumexp(1)

    def at(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Logits (N, P, R) at pixels given by rows and columns (N, P)."""
        samples = torch.arange(len(rows), device=rows.device)[:, None]
        cells = self.cells[samples, :, rows // self.cell, columns // self.cell]
        return cells + self.pixels[samples, rows, columns][..., None]


class Transporter(nn.Module):
    """Scores picks and, for a given pick, places.

    Args:
        streams: gives `Maps`, and may have a method `kernels` of its own.
        crop: side of the square round the pick that is matched [pixels].
        rotations: R, turns that are told apart.
        cell: C, side of the cells that are matched [pixels]; it divides the images' sides and the crop.
    """

    def __init__(self, streams: nn.Module, crop: int = 32, rotations: int = 36, cell: int = 2) -> None:
        super().__init__()
        self.streams, self.rotations = streams, rotations
        self.cell = 1 if hasattr(streams, "kernels") else cell
        self.crop = crop // self.cell

    def forward(self, images: Tensor, picks: Tensor) -> tuple[Tensor, Places]:
        """Score every pick, and every place of what is picked.

        Args:
            images: (N, C, H, W).
            picks: (N, 2) row and column of the picks that places are scored for, between pixels if need be.

        Returns:
            Pick logits (N, H, W) and place logits.
        """
        maps: Maps = self.streams(images)
        return maps.pick, self.places(images, maps, picks)

    def places(self, images: Tensor, maps: Maps, picks: Tensor) -> Places:
        """Score places for picks (N, 2), from what the streams made of the images."""
        kernels = self._kernels(images, maps, picks.to(images.dtype))
        # Sums of many products start out large; this keeps their logits near 1 at first, for any crop.
        scale = (kernels.shape[1] * self.crop**2) ** -0.5
        cells = correlate(self._pooled(maps.key), kernels * scale)
        return Places(cells, torch.zeros_like(maps.pick) if maps.place is None else maps.place)

    def _kernels(self, images: Tensor, maps: Maps, picks: Tensor) -> Tensor:
        own = getattr(self.streams, "kernels", None)
        if own is not None:
            return torch.as_tensor(own(images, picks, self.crop, self.rotations))
        # A pixel's middle in units of cells, counted between cells' middles.
        centres = (picks - (self.cell - 1) / 2) / self.cell
        return rotated_crops(self._pooled(maps.query), centres, self.crop, self.rotations)

    def _pooled(self, maps: Tensor) -> Tensor:
        return functional.avg_pool2d(maps, self.cell) if self.cell > 1 else maps
