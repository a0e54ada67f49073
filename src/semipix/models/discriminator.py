"""The fully convolutional discriminator of AdvSSL."""

import torch.nn.functional as F
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.functional.resizing import Window, resize_aligned

CHANNELS = (64, 128, 256, 512, 1)
KERNEL = 4
SLOPE = 0.2
STRIDE = 2 ** len(CHANNELS)
"""Pixels of the input per pixel of the coarse map, and the smallest side of an image."""


class FCDiscriminator(nn.Module):
    """Distinguishes labels from predictions, pixel by pixel: Hung et al., "Adversarial Learning" (BMVC 2018), 3.2.

    Five 4x4 convolutions of stride 2 with leaky ReLU between them and without norm. Sides need at least 32 pixels.

    Args:
        channels: channels of the prediction.

    Attributes:
        window: which rows of a larger image the next images are, so that the outputs of several windows fit together;
            None for whole images.
    """

    window: Window | None = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = zip((channels, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, KERNEL, stride=2, padding=1) for before, after in widths
        )

    def forward(self, prediction: Tensor) -> Tensor:
        """Logits of whether each pixel belongs to a label.

        Args:
            prediction: activated prediction, or label in prediction space, (N, K, H, W) in [0, 1].

        Returns:
            (N, 1, H, W), large where the pixel probably belongs to a label.

        Raises:
            SemipixError: a side is smaller than 32.
        """
        height, width = prediction.shape[-2:]
        if min(height, width) < STRIDE:
            raise SemipixError(
                f"data.crop: {height}x{width} (height x width) found, but the discriminator halves sides five times "
                f"and expects at least {STRIDE}; set data.crop={STRIDE} or more"
            )
        features = prediction
        for convolution in self.convolutions[:-1]:
            features = F.leaky_relu(convolution(features), SLOPE)
        logits = self.convolutions[-1](features)
        whole = height if self.window is None else self.window.height
        return resize_aligned(logits, (height, width), self.window, STRIDE, whole // STRIDE)
