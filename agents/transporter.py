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


class Transporter(nn.Module):
    """Scores picks and, for a given pick, places.

    Args:
        streams: gives `Maps`, and may have a method `kernels` of its own.
        crop: side of the square round the pick that is matched [pixels].
        rotations: R, turns that are told apart.
        cell: side of the cells that are matched [pixels]; it divides the images' sides and the crop.
    """

    def __init__(self, streams: nn.Module, crop: int = 32, rotations: int = 36, cell: int = 2) -> None:
        super().__init__()
        self.streams, self.rotations = streams, rotations
        self.cell = 1 if hasattr(streams, "kernels") else cell
        self.crop = crop // self.cell

    def forward(self, images: Tensor, picks: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Score everything.

        Args:
            images: (N, C, H, W).
            picks: (N, 2) row and column of the picks that places are scored for; the best ones if None.

        Returns:
            Pick logits (N, H, W), place logits (N, R, H, W) and the picks (N, 2).
        """
        maps: Maps = self.streams(images)
        if picks is None:
            picks = best_pixels(maps.pick)
        kernels = self._kernels(images, maps, picks)
        # Sums of many products start out large; this keeps their logits near 1 at first, for any crop.
        scale = (kernels.shape[1] * self.crop**2) ** -0.5
        places = correlate(self._pooled(maps.key), kernels * scale)
        if self.cell > 1:
            places = functional.interpolate(places, scale_factor=self.cell, mode="bilinear", align_corners=False)
        if maps.place is not None:
            places = places + maps.place[:, None]
        return maps.pick, places, picks

    def _kernels(self, images: Tensor, maps: Maps, picks: Tensor) -> Tensor:
        own = getattr(self.streams, "kernels", None)
        if own is not None:
            return torch.as_tensor(own(images, picks, self.crop, self.rotations))
        # A pixel's middle in units of cells, between cells' middles.
        centres = (picks.to(maps.query.dtype) - (self.cell - 1) / 2) / self.cell
        return rotated_crops(self._pooled(maps.query), centres, self.crop, self.rotations)

    def _pooled(self, maps: Tensor) -> Tensor:
        return functional.avg_pool2d(maps, self.cell) if self.cell > 1 else maps


def best_pixels(logits: Tensor) -> Tensor:
    """Row and column (N, 2) of the largest of (N, H, W)."""
    width = logits.shape[-1]
    best = logits.flatten(1).argmax(1)
    return torch.stack([best // width, best % width], dim=1)
