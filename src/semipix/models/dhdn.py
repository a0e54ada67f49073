"""DHDN: a densely connected U-Net for denoising."""

import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.checkpointing import chain
from semipix.models.padding import check_image_size, cropped, pad_to_multiple

LEVELS = 3
STRIDE = 2**LEVELS

LAST_LAYER_SCALE = 0.01
"""Factor on the last layer's initial weights."""


class DHDN(nn.Module):
    """Densely connected hierarchical network (Park, Yu and Jeong, "DHDN", CVPR Workshops 2019).

    Each of the four levels has two dense residual blocks. The way down is max pooling and a convolution, the way up a
    convolution and a pixel shuffle. The input of the lowest level is concatenated to its output, and the image is added
    to the last layer's output.

    At width 128 the colour model has 168,195,125 parameters, as the paper reports. The paper's text and figures leave
    some layers open; this choice gives that number: the convolutions between levels are 1x1 and keep (up) or double
    (down) their channels, the first and the last convolution are 1x1, every convolution has a bias, and a PReLU with
    one slope follows each of them, also the last one.

    One thing differs from the paper: where the image is added, the last layer starts with a hundredth of its usual
    initial weights, so that the untrained network returns almost the image itself.

    Images need sides of at least 8 pixels. Sides that are not multiples of 8 are padded by reflection, and the output
    is cropped to the image's size.

    Args:
        in_channels: channels of the images.
        channels: channels of the output; the image is added if it has the same number.
        width: channels of the first level, doubled on each of the three levels below; 16 can be trained on a CPU.
        checkpointing: compute the dense blocks again in the backward pass instead of keeping their activations; needs
            less memory and more time.

    Raises:
        SemipixError: the width is not a positive even number.
    """

    def __init__(self, in_channels: int = 3, channels: int = 3, width: int = 128, checkpointing: bool = False) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise SemipixError(
                f"model.width={width}: expected a positive even number; set for example 16, 32, 64 or 128"
            )
        level = chain(checkpointing)
        widths = [width << depth for depth in range(LEVELS + 1)]
        self.first = _activated(in_channels, width)
        self.encoder = nn.ModuleList(level(DenseBlock(size), DenseBlock(size)) for size in widths[:-1])
        self.down = nn.ModuleList(nn.Sequential(nn.MaxPool2d(2), _activated(size, 2 * size)) for size in widths[:-1])
        self.bottom = level(DenseBlock(widths[-1]), DenseBlock(widths[-1]))
        self.up = nn.ModuleList(
            nn.Sequential(_activated(4 * size, 4 * size), nn.PixelShuffle(2)) for size in reversed(widths[:-1])
        )
        self.decoder = nn.ModuleList(
            level(DenseBlock(2 * size), DenseBlock(2 * size)) for size in reversed(widths[:-1])
        )
        self.last = _activated(2 * width, channels)
        if channels == in_channels:
            with torch.no_grad():
                for parameter in self.last[0].parameters():
                    parameter.mul_(LAST_LAYER_SCALE)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) to outputs (N, K, H, W) of unbounded range.

        Raises:
            SemipixError: a side is smaller than 8.
        """
        check_image_size(image, STRIDE, "DHDN")
        features = self.first(pad_to_multiple(image, STRIDE, "reflect"))
        skipped: list[Tensor] = []
        for level, down in zip(self.encoder, self.down, strict=True):
            skipped.append(level(features))
            features = down(skipped[-1])
        features = torch.cat([features, self.bottom(features)], dim=1)
        for level, up in zip(self.decoder, self.up, strict=True):
            features = level(torch.cat([skipped.pop(), up(features)], dim=1))
        output = cropped(self.last(features), image.shape[-2:])
        return output + image if output.shape == image.shape else output


class DenseBlock(nn.Module):
    """Three 3x3 convolutions; each gets the block's input and all earlier outputs. The input is added (DCR block).

    Args:
        channels: channels of input and output; the first two convolutions have half as many outputs.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.first = _activated(channels, half, kernel=3)
        self.second = _activated(channels + half, half, kernel=3)
        self.third = _activated(channels + 2 * half, channels, kernel=3)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to the same shape."""
        seen = torch.cat([features, self.first(features)], dim=1)
        seen = torch.cat([seen, self.second(seen)], dim=1)
        output: Tensor = self.third(seen)
        return output + features


def _activated(in_channels: int, channels: int, kernel: int = 1) -> nn.Sequential:
    """A convolution that keeps the size, followed by a PReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2), nn.PReLU())
