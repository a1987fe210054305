"""The Transporter factorisation: where to pick, and then where and at which turn what is picked matches.

Images are (N, C, H, W) float: for the observation and each goal image red, green, blue and height. Rows run along +y,
columns along +x, turns from +x to +y.

Reference: Zeng et al. 2010.14406; goals: Seita et al. 2012.03385; sequences: Lim et al. 2109.07578.
Departs: features are computed once and rotated; one network gives all three streams.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from multiravens.agents.correlation import correlate, rotated_crops

CHANNELS = 4
"""Of one image: red, green, blue and height."""


class Maps(NamedTuple):
    """What a network sees in a batch of images.

    Attributes:
        pick: (N, H, W) logits of picking at each pixel.
        query: (N, D, H, W) features of what could be picked.
        key: (N, D, H, W) features of where it could be placed.
    """

    pick: Tensor
    query: Tensor
    key: Tensor


class StackedStreams(nn.Module):
    """One network that sees observation and goals as channels of one image and gives pick, query and key.

    Args:
        backbone: makes a network from its channels in and out.
        goals: goal images beside the observation.
        features: D, of query and key.
    """

    def __init__(self, backbone: Callable[[int, int], nn.Module], goals: int, features: int = 3) -> None:
        super().__init__()
        self.features = features
        self.network = backbone(CHANNELS * (1 + goals), 1 + 2 * features)

    def forward(self, images: Tensor) -> Maps:
        """(N, 4 (1 + goals), H, W) to maps."""
        out = self.network(images)
        return Maps(out[:, 0], out[:, 1 : 1 + self.features], out[:, 1 + self.features :])


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

    def __init__(self, backbone: Callable[[int, int], nn.Module], goals: int, features: int = 3) -> None:
        super().__init__()
        if goals < 1:
            raise ValueError("fusion=split needs a goal; use fusion=stack for an agent without one")
        self.features = features
        self.picking = backbone(CHANNELS * (1 + goals), 1)
        self.scene = backbone(CHANNELS, 2 * features)
        self.goal = backbone(CHANNELS * goals, 2 * features)

    def forward(self, images: Tensor) -> Maps:
        """(N, 4 (1 + goals), H, W) to maps."""
        placing = self.scene(images[:, :CHANNELS]) * self.goal(images[:, CHANNELS:])
        return Maps(self.picking(images)[:, 0], placing[:, : self.features], placing[:, self.features :])


class Transporter(nn.Module):
    """Scores picks and, for a given pick, places.

    Args:
        streams: gives `Maps`, and may have a method `kernels` of its own.
        crop: K, side of the square round the pick that is matched [pixels].
        rotations: R, turns that are told apart.
    """

    def __init__(self, streams: nn.Module, crop: int = 32, rotations: int = 36) -> None:
        super().__init__()
        self.streams, self.crop, self.rotations = streams, crop, rotations

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
        return maps.pick, correlate(maps.key, kernels * scale), picks

    def _kernels(self, images: Tensor, maps: Maps, picks: Tensor) -> Tensor:
        own = getattr(self.streams, "kernels", None)
        if own is not None:
            return torch.as_tensor(own(images, picks, self.crop, self.rotations))
        return rotated_crops(maps.query, picks.to(maps.query.dtype), self.crop, self.rotations)


def best_pixels(logits: Tensor) -> Tensor:
    """Row and column (N, 2) of the largest of (N, H, W)."""
    width = logits.shape[-1]
    best = logits.flatten(1).argmax(1)
    return torch.stack([best // width, best % width], dim=1)
