"""The original Transporter's networks, for comparison: three 43-layer residual networks; one takes 36 crops.

Reference: Zeng et al. 2010.14406; sizes as in google-research/ravens.
Departs: the pick sees the image as it is, where the original pads it to a square for rotations that it does not use.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from multiravens.agents.networks.correlation import rotated_crops
from multiravens.agents.networks.network import CHANNELS
from multiravens.agents.networks.patched import Tasks
from multiravens.agents.networks.transporter import StreamMaps, Streams

_STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))  # channels and stride on the way down
_UP = (256, 128, 64)


class _Block(nn.Module):
    """Bottleneck of three convolutions, with a projected shortcut where the shape changes."""

    def __init__(
        self, inside: int, outside: int, stride: int = 1, middle: int | None = None, final_relu: bool = True
    ) -> None:
        super().__init__()
        middle = middle or outside
        self.convolutions = nn.ModuleList(
            [
                nn.Conv2d(inside, middle, 1, stride=stride),
                nn.Conv2d(middle, middle, 3, padding=1),
                nn.Conv2d(middle, outside, 1),
            ]
        )
        changed = inside != outside or stride != 1
        self.shortcut = nn.Conv2d(inside, outside, 1, stride=stride) if changed else nn.Identity()
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for index, convolution in enumerate(self.convolutions):
            y = convolution(y)
            if index < 2:
                y = functional.relu(y)
        y = y + self.shortcut(x)
        return functional.relu(y) if self.final_relu else y


class ResNet43(nn.Module):
    """43 layers, three times halved and doubled again, without normalisation.

    Args:
        channels: in.
        outputs: channels out.
    """

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, 64, 3, padding=1)
        down: list[nn.Module] = []
        inside = 64
        for outside, stride in _STAGES:
            down += [_Block(inside, outside, stride), _Block(outside, outside)]
            inside = outside
        self.down = nn.Sequential(*down)
        up: list[nn.Module] = []
        for outside in _UP:
            up += [_Block(inside, outside), _Block(outside, outside), nn.UpsamplingBilinear2d(scale_factor=2)]
            inside = outside
        self.up = nn.Sequential(*up)
        self.head = nn.Sequential(
            _Block(inside, outputs, middle=16, final_relu=False), _Block(outputs, outputs, middle=16, final_relu=False)
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W), sides multiples of 8, to (N, outputs, H, W)."""
        x = functional.relu(self.stem(images))
        return torch.as_tensor(self.head(self.up(self.down(x))))


class OriginalStreams(Streams):
    """Three networks; what is picked is cut out of the image in every rotation before its network sees it.

    Args:
        backbone: makes a network from its channels in and out.
        goals: goal images beside the observation.
        features: of query and key.
        problems: that it is made for.
    """

    coarse = False

    def __init__(
        self,
        backbone: Callable[[int, int], nn.Module],
        goals: int,
        features: int = 3,
        problems: Sequence[str] = (),
    ) -> None:
        super().__init__(problems, features)
        channels = CHANNELS * (1 + goals)
        self.picking = backbone(channels, 1)
        self.query = backbone(channels, features)
        self.key = backbone(channels, features)

    def forward(self, images: Tensor, tasks: Tasks) -> StreamMaps:
        """(N, 4 (1 + goals), H, W) to maps, of which the query is left out; all problems alike."""
        return StreamMaps(self.picking(images)[:, 0], None, images[:, :0], self.key(images))

    def kernels(self, images: Tensor, query: Tensor, picks: Tensor, size: int, rotations: int) -> Tensor:
        """Features (N, D, R, K, K) of every rotated crop of the images round the picks (N, 2); query is not used."""
        crops = rotated_crops(images, picks.to(images.dtype), size, rotations)
        count, channels = crops.shape[:2]
        features = self.query(crops.transpose(1, 2).reshape(count * rotations, channels, size, size))
        return features.reshape(count, rotations, -1, size, size).transpose(1, 2)
