"""The flaw detector of GCT."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.functional.resizing import Window, resize_aligned
from semipix.models.detector import Detector

CHANNELS = (64, 128, 128, 256, 256, 512, 512, 1)
STRIDES = (2, 2, 1, 2, 1, 2, 1, 2)
STRIDE = 32
"""Pixels of the input per pixel of the coarse map: the product of the strides."""

KERNEL = 4
SLOPE = 0.2

Norm = Literal["batch", "batch_instance"]


class BatchInstanceNorm(nn.Module):
    """Batch norm for the first half of the channels, instance norm without affine weights for the second half."""

    whole_image = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.split = channels // 2
        self.batch = nn.BatchNorm2d(self.split)
        self.instance = nn.InstanceNorm2d(channels - self.split)

    def forward(self, features: Tensor) -> Tensor:
        """Features (N, C, H, W) to the same shape."""
        return torch.cat([self.batch(features[:, : self.split]), self.instance(features[:, self.split :])], dim=1)


class FlawDetector(Detector):
    """Predicts where a prediction is wrong: Appendix B of Ke et al., "Guided Collaborative Training" (ECCV 2020).

    Eight 4x4 convolutions; batch norm and leaky ReLU follow each but the last. Sides need at least 64 pixels and may
    have any length above. Convolutions before a norm have no bias, since the norm would subtract it.

    Args:
        in_channels: channels of the image.
        channels: channels of the prediction.
        norm: "batch" as in the paper, or "batch_instance" as in the released code.
        scale: factor in (0, 1] by which image and prediction are resized first; the cost of a pass is proportional to
            its square.

    Attributes:
        window: which rows of a larger image the next images are, so that the outputs of several windows fit together;
            None for whole images.

    Raises:
        ValueError: the norm is unknown, or the scale is out of range.
    """

    probabilistic: ClassVar[bool] = False
    window: Window | None = None

    def __init__(self, in_channels: int, channels: int, norm: Norm = "batch", scale: float = 1.0) -> None:
        super().__init__()
        if norm not in ("batch", "batch_instance"):
            raise ValueError(f"norm {norm!r} is unknown, expected 'batch' or 'batch_instance'")
        if not 0 < scale <= 1:
            raise ValueError(f"scale {scale} found, a number above 0 and at most 1 expected")
        self.scale = scale
        self.in_channels = in_channels
        self.channels = channels
        widths = (in_channels + channels, *CHANNELS)
        last = len(CHANNELS) - 1
        self.convolutions = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], KERNEL, stride=STRIDES[i], bias=i == last) for i in range(last + 1)
        )
        make_norm = nn.BatchNorm2d if norm == "batch" else BatchInstanceNorm
        self.norms = nn.ModuleList(make_norm(width) for width in CHANNELS[:last])

    def forward(
        self,
        image: Tensor,
        own: Tensor,
        other: Tensor | None = None,
        features: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Raw flaw map of a prediction. The paper's detector does not look at the other prediction.

        Args:
            image: (N, C_in, H, W) in [0, 1].
            own: activated prediction (N, K, H, W) in [0, 1].
            other: ignored.
            features: ignored.

        Returns:
            (N, 1, H, W) of unbounded range, trained to be 0 where the prediction is right and 1 where it is wrong.

        Raises:
            ValueError: image and prediction differ in N, H or W, or have other numbers of channels than this detector.
        """
        batch, _, height, width = image.shape
        expected = (batch, self.in_channels, height, width), (batch, self.channels, height, width)
        if (tuple(image.shape), tuple(own.shape)) != expected:
            raise ValueError(
                f"image {tuple(image.shape)} and prediction {tuple(own.shape)}, expected shapes"
                f" (N, {self.in_channels}, H, W) and (N, {self.channels}, H, W) with the same N, H and W"
            )
        joined = torch.cat([image, own], dim=1)
        if self.scale != 1:
            size = [max(1, round(side * self.scale)) for side in (height, width)]
            joined = F.interpolate(joined, size=size, mode="area")
        if next(self.convolutions.parameters()).is_contiguous():  # use the memory format of the weights
            joined = joined.contiguous()
        # Padding comes before the leaky ReLU, which keeps zeros: the ReLU and the next convolution then keep one tensor
        # for their backward passes, which saves a third of the memory of the activations.
        maps = pad_same(joined, STRIDES[0])
        for convolution, norm, following in zip(self.convolutions[:-1], self.norms, STRIDES[1:], strict=True):
            maps = F.leaky_relu(pad_same(norm(convolution(maps)), following), SLOPE, inplace=True)
        flaw = self.convolutions[-1](maps)
        whole = height if self.window is None else self.window.height
        coarse = -(-max(1, round(whole * self.scale)) // STRIDE)
        return resize_aligned(flaw, (height, width), self.window, STRIDE / self.scale, coarse)


def pad_same(features: Tensor, stride: int) -> Tensor:
    """Pad (N, C, H, W) with zeros so that a convolution gives ceil(side / stride) pixels.

    An odd number of zeros has one more at the bottom or on the right.
    """
    pads = []
    for side in features.shape[:-3:-1]:  # width first, as in F.pad's argument
        total = ((side + stride - 1) // stride - 1) * stride + KERNEL - side  # never below 0, since KERNEL > stride
        pads += [total // 2, total - total // 2]
    return F.pad(features, pads)
