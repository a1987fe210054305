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
    """Patches in, residual blocks at the patches' resolution, and out come features of patches and of pixels.

    What tells the pixel needs edges that the patches' features lose: the image is seen once more there, in patches of
    half the side, and goes through one block together with those features.

    Args:
        channels: of the image.
        pixels: channels out at the image's resolution.
        patches: channels out at the patches' resolution; 0 for none.
        width: of the blocks.
        depth: number of blocks.
        stride: side of a patch [pixels], even; it divides the image's sides.
        fine: channels at half of the patches' side.

    Raises:
        ValueError: a size is too small, or stride is odd.
    """

    def __init__(
        self,
        channels: int,
        pixels: int,
        patches: int,
        width: int = 64,
        depth: int = 6,
        stride: int = 4,
        fine: int = 32,
    ) -> None:
        super().__init__()
        if stride % 2 or stride < 2:
            raise ValueError(f"stride={stride}: give an even number of pixels, 2 or more")
        for name, value, least in (("width", width, 1), ("depth", depth, 0), ("fine", fine, 1)):
            if value < least:
                raise ValueError(f"{name}={value}: give {least} or more")
        self.stride = stride
        self.stem = nn.Conv2d(channels * stride**2, width, 3, padding=1)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(depth)))
        self.normalise = nn.GroupNorm(8, width)
        self.patches = nn.Conv2d(width, patches, 1) if patches else None
        self.widen = nn.Conv2d(width, 4 * fine, 1)
        self.edges = nn.Conv2d(channels * (stride // 2) ** 2, fine, 3, padding=1)
        self.refine = ResidualBlock(fine)
        self.pixels = nn.Conv2d(fine, pixels * (stride // 2) ** 2, 1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """(N, channels, H, W) to (N, pixels, H, W) and (N, patches, H / stride, W / stride)."""
        return self.finish(self.blocks(self.begin(images)), images)

    def begin(self, images: Tensor) -> Tensor:
        """(N, channels, H, W) to what the blocks see, (N, width, H / stride, W / stride)."""
        return torch.as_tensor(self.stem(functional.pixel_unshuffle(images, self.stride)))

    def finish(self, x: Tensor, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Turn the blocks' output for the images into features of pixels and of patches."""
        half = self.stride // 2
        x = functional.relu(self.normalise(x))
        near = functional.pixel_shuffle(self.widen(x), 2) + self.edges(functional.pixel_unshuffle(images, half))
        near = functional.relu(self.refine(near))
        return functional.pixel_shuffle(self.pixels(near), half), None if self.patches is None else self.patches(x)
