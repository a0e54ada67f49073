"""The fully convolutional discriminator of AdvSSL."""

import torch.nn.functional as F
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.functional.resizing import Window, resize_aligned

CHANNELS = (64, 128, 256, 512, 1)
KERNEL = 4
SLOPE = 0.2
STRIDE = SMALLEST = 2 ** len(CHANNELS)


class FCDiscriminator(nn.Module):
    """Tell labels from predictions, pixel by pixel: Hung et al., "Adversarial Learning" (BMVC 2018), Section 3.2.

    Five 4x4 convolutions of stride 2 with leaky ReLU between, and no norm; sides of at least 32 pixels.

    Args:
        channels: channels of the prediction.

    Attributes:
        window: which rows of a larger image the next images are, so that their maps fit together; None for whole ones.
    """

    window: Window | None = None

    def __init__(self, channels: int) -> None:
        super().__init__()
        widths = zip((channels, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, KERNEL, stride=2, padding=1) for before, after in widths
        )

    def forward(self, prediction: Tensor) -> Tensor:
        """How much each pixel looks like a label's.

        Args:
            prediction: activated prediction, or label in prediction space, (N, K, H, W) in [0, 1].

        Returns:
            Logits (N, 1, H, W), large where the pixel looks like a label's.

        Raises:
            SemipixError: a side is smaller than 32.
        """
        height, width = prediction.shape[-2:]
        if min(height, width) < SMALLEST:
            raise SemipixError(
                f"data.crop: {height}x{width} (height x width) found, but the discriminator halves sides five times "
                f"and expects at least {SMALLEST}; set data.crop={SMALLEST} or more"
            )
        features = prediction
        for convolution in self.convolutions[:-1]:
            features = F.leaky_relu(convolution(features), SLOPE)
        logits = self.convolutions[-1](features)
        whole = height if self.window is None else self.window.height
        return resize_aligned(logits, (height, width), self.window, STRIDE, whole // STRIDE)
