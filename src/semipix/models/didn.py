"""DIDN: a denoiser that goes down and up again and again."""

import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.checkpointing import chain
from semipix.models.padding import check_image_size, pad_to_multiple

STRIDE = 8
"""One stride-2 convolution before the blocks, two within each."""

RECONSTRUCTIONS = 4
"""Residual pairs of convolutions in the reconstruction block, which has one more convolution: nine in all."""


class DIDN(nn.Module):
    """Deep iterative down-up network (Yu, Park and Jeong, "DIDN", CVPR Workshops 2019).

    A 3x3 and a stride-2 convolution; down-up blocks at half resolution, small U-Nets with strided convolutions down and
    pixel shuffles up; one reconstruction block of nine convolutions, which sees the output of every down-up block;
    enhancement: a 1x1 and a 3x3 convolution of all of them, and a pixel shuffle. The image is added to the output.

    Images have sides of at least 8; those that are no multiple of 8 are reflected at the edge and cropped back.

    Args:
        in_channels: channels of the images.
        channels: channels of the output; the image is added where it has as many.
        width: channels of the features, twice and four times as many on the two levels below; 16 trains on a CPU.
        blocks: down-up blocks.
        checkpointing: compute down-up and reconstruction blocks twice and keep less: for large images and widths.

    Raises:
        SemipixError: the width is no positive multiple of 4, or there are no blocks.
    """

    def __init__(
        self,
        in_channels: int = 3,
        channels: int = 3,
        width: int = 256,
        blocks: int = 6,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if width < 4 or width % 4:
            raise SemipixError(f"model.width={width}: expected a positive multiple of 4; set 16, 64 or 256, say")
        if blocks < 1:
            raise SemipixError(f"model.blocks={blocks}: expected 1 or more; set 6 as the paper, say")
        whole = chain(checkpointing)
        self.first = nn.Sequential(_convolution(in_channels, width), _convolution(width, width, stride=2))
        self.blocks = nn.ModuleList(whole(DownUpBlock(width)) for _ in range(blocks))
        self.reconstruction = whole(Reconstruction(width))
        self.gathered = _convolution(blocks * width, width, kernel=1)
        self.enhanced = _convolution(width, width)
        self.last = nn.Sequential(nn.PixelShuffle(2), nn.Conv2d(width // 4, channels, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) to outputs (N, K, H, W) of unbounded range.

        Raises:
            SemipixError: a side is smaller than 8.
        """
        check_image_size(image, STRIDE, "DIDN")
        features = self.first(pad_to_multiple(image, STRIDE, "reflect"))
        reconstructions: list[Tensor] = []
        for block in self.blocks:
            features = block(features)
            reconstructions.append(self.reconstruction(features))
        gathered = self.gathered(torch.cat(reconstructions, dim=1))
        output: Tensor = self.last(gathered + self.enhanced(gathered))[..., : image.shape[-2], : image.shape[-1]]
        return output + image if output.shape == image.shape else output


class DownUpBlock(nn.Module):
    """A U-Net of three levels whose input is added to its output.

    Args:
        width: channels of input and output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.level1 = _pair(width)
        self.down1 = _convolution(width, 2 * width, stride=2)
        self.level2 = _convolution(2 * width, 2 * width)
        self.down2 = _convolution(2 * width, 4 * width, stride=2)
        self.level3 = _convolution(4 * width, 4 * width)
        self.up2 = _up(4 * width)
        self.join2 = nn.Conv2d(4 * width, 2 * width, 1)
        self.return2 = _convolution(2 * width, 2 * width)
        self.up1 = _up(2 * width)
        self.join1 = nn.Conv2d(2 * width, width, 1)
        self.return1 = _pair(width)
        self.last = _convolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W), sides divisible by 4, to the same shape."""
        first = features + self.level1(features)  # (N, C, H, W)
        second = self.down1(first)  # (N, 2C, H/2, W/2)
        second = second + self.level2(second)
        third = self.down2(second)  # (N, 4C, H/4, W/4)
        third = third + self.level3(third)
        second = self.join2(torch.cat([self.up2(third), second], dim=1))
        second = second + self.return2(second)
        first = self.join1(torch.cat([self.up1(second), first], dim=1))
        first = first + self.return1(first)
        output: Tensor = self.last(first)
        return output + features


class Reconstruction(nn.Module):
    """Residual pairs of convolutions, one more convolution, and the input added.

    Args:
        width: channels of input and output.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pairs = nn.ModuleList(_pair(width) for _ in range(RECONSTRUCTIONS))
        self.last = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to the same shape."""
        inner = features
        for pair in self.pairs:
            inner = inner + pair(inner)
        output: Tensor = self.last(inner)
        return output + features


def _convolution(in_channels: int, channels: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """A convolution and its PReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2), nn.PReLU())


def _pair(width: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(_convolution(width, width), _convolution(width, width))


def _up(channels: int) -> nn.Sequential:
    """Twice the channels by a 1x1 convolution, shuffled into half of them at twice the size."""
    return nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), nn.PixelShuffle(2))
