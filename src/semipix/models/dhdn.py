"""DHDN: a densely connected U-Net for denoising."""

import torch
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.checkpointing import chain
from semipix.models.padding import check_image_size, pad_to_multiple

LEVELS = 3
STRIDE = 2**LEVELS

START = 0.01
"""Share of the last layer's usual first weights."""


class DHDN(nn.Module):
    """Densely connected hierarchical network (Park, Yu and Jeong, "DHDN", CVPR Workshops 2019).

    Two dense residual blocks on each of four levels; pooling and a convolution lead down, a convolution and a pixel
    shuffle lead up; what entered the lowest level joins its output, and the image is added to the last layer's output.

    At width 128 the colour model has 168,195,125 parameters. Dense blocks are nine tenths of them; the number says what
    the figures leave open: convolutions between levels are 1x1 and keep (up) or double (down) their channels, first and
    last are 1x1, every convolution has a bias, and each is followed by a PReLU of one slope, the last one too. With 3x3
    convolutions down there would be no weights left for those up.

    Ours: where the image is added, the last layer starts with a hundredth of its usual weights, so that training starts
    from the image itself and not from noise that it has to unlearn.

    Images have sides of at least 8; those that are no multiple of 8 are reflected at the edge and cropped back.

    Args:
        in_channels: channels of the images.
        channels: channels of the output; the image is added where it has as many.
        width: channels of the first level, doubled on each of the three below; 16 trains on a CPU.
        checkpointing: compute dense blocks twice and keep less: for large images and widths.

    Raises:
        SemipixError: the width is no positive even number.
    """

    def __init__(self, in_channels: int = 3, channels: int = 3, width: int = 128, checkpointing: bool = False) -> None:
        super().__init__()
        if width < 2 or width % 2:
            raise SemipixError(f"model.width={width}: expected a positive even number; set 16, 32, 64 or 128, say")
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
                    parameter.mul_(START)

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
        output: Tensor = self.last(features)[..., : image.shape[-2], : image.shape[-1]]
        return output + image if output.shape == image.shape else output


class DenseBlock(nn.Module):
    """Three 3x3 convolutions, each of which sees the block's input and all before it; the input is added (DCR block).

    Args:
        channels: channels of input and output; the two inner convolutions give half as many.
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
    """A convolution that keeps the size, and its PReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, kernel, padding=kernel // 2), nn.PReLU())
