"""An isometric residual network: every block has the same shape, at one resolution and one width."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to what comes in; the identity at first.

    Args:
        width: channels in and out.
        groups: of the group normalisation.

    Reference: Zhmoginov et al. 2107.10963 (isometric); He et al. 1603.05027 (pre-activation).
    """

    def __init__(self, width: int, groups: int = 8) -> None:
        super().__init__()
        self.normalise = nn.ModuleList(nn.GroupNorm(groups, width) for _ in range(2))
        self.convolve = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        last = self.convolve[1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        change = x
        for normalise, convolve in zip(self.normalise, self.convolve, strict=True):
            change = convolve(functional.relu(normalise(change), inplace=True))
        return torch.add(x, change)


class Isometric(nn.Module):
    """Patches in, residual blocks at the patches' resolution, pixels out.

    The head sees the image once more beside the blocks' features, so that it can place edges to the pixel.

    Args:
        channels: of the image.
        outputs: channels out.
        width: of the blocks.
        depth: number of blocks.
        stride: side of a patch [pixels]; it divides the image's sides.
        fine: channels of the head at full resolution.
    """

    def __init__(
        self, channels: int, outputs: int, width: int = 64, depth: int = 6, stride: int = 4, fine: int = 16
    ) -> None:
        super().__init__()
        self.stride = stride
        self.stem = nn.Conv2d(channels * stride**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.normalise = nn.GroupNorm(8, width)
        self.widen = nn.Conv2d(width, fine * stride**2, 1)
        self.merge = nn.Conv2d(fine + channels, fine, 3, padding=1)
        self.head = nn.Conv2d(fine, outputs, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to (N, outputs, H, W)."""
        patches = functional.pixel_unshuffle(images, self.stride)
        x = self.blocks(self.stem(patches))
        x = self.widen(functional.relu(self.normalise(x)))
        x = functional.pixel_shuffle(x, self.stride)
        x = functional.relu(self.merge(torch.cat([x, images], dim=1)), inplace=True)
        return torch.as_tensor(self.head(x))
