"""DIDN: a denoiser made of a chain of small U-Nets."""

import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.checkpointing import chain
from semipix.models.padding import check_image_size, cropped, pad_to_multiple

STRIDE = 8
"""Product of the strides: one stride-2 convolution before the blocks, two in each block."""

RECONSTRUCTIONS = 4
"""Residual pairs of convolutions in the reconstruction block; with its last convolution it has nine."""


class DIDN(nn.Module):
    """Deep iterative down-up network (Yu, Park and Jeong, "DIDN", CVPR Workshops 2019).

    The network has these parts:

    1. A 3x3 convolution and a convolution of stride 2.
    2. Down-up blocks at half resolution: small U-Nets with strided convolutions and pixel shuffles.
    3. One reconstruction block of nine convolutions, applied to the output of every down-up block.
    4. Enhancement: a 1x1 and a 3x3 convolution of all reconstructions, and a pixel shuffle.

    The image is added to the output. Images need sides of at least 8 pixels. Sides that are not multiples of 8 are
    padded by reflection, and the output is cropped to the image's size.

    Args:
        in_channels: channels of the images.
        channels: channels of the output; the image is added if it has the same number.
        width: channels of the features, two and four times as many on the two lower levels; 16 can be trained on a CPU.
        blocks: number of down-up blocks.
        checkpointing: compute the blocks again in the backward pass instead of keeping their activations; needs less
            memory and more time.

    Raises:
        SemipixError: the width is not a positive multiple of 4, or the number of blocks is below 1.
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
            raise SemipixError(f"model.width={width}: expected a positive multiple of 4; set for example 16, 64 or 256")
        if blocks < 1:
            raise SemipixError(f"model.blocks={blocks}: expected 1 or more; set for example 6, as in the paper")
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
        output = cropped(self.last(gathered + self.enhanced(gathered)), image.shape[-2:])
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
    """Residual pairs of convolutions and one last convolution; the input is added to the output.

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
    """A convolution followed by a PReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2), nn.PReLU())


def _pair(width: int) -> nn.Sequential:
    """Two 3x3 convolutions."""
    return nn.Sequential(_convolution(width, width), _convolution(width, width))


def _up(channels: int) -> nn.Sequential:
    """A 1x1 convolution and a pixel shuffle: half the channels at twice the size."""
    return nn.Sequential(nn.Conv2d(channels, 2 * channels, 1), nn.PixelShuffle(2))
