"""DeepLab v2: a dilated ResNet with atrous heads whose outputs are summed."""

from collections.abc import Sequence
from typing import Any

import timm
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.functional.resizing import Window, resize_aligned
from semipix.models.checkpointing import checkpoint_stages
from semipix.models.padding import check_image_size
from semipix.models.pretrained import Normalize, check_encoder, download, zero_extra_channels

RATES = (6, 12, 18, 24)
"""Dilations of the heads."""

SMALLEST_SIDE = 33
"""Pixels that both sides of an image need."""

HEAD_LEARNING_RATE = 10.0
"""Learning rate of the heads, which have no pretrained weights, relative to the backbone's, as in the paper."""


class DeepLabV2(nn.Module):
    """DeepLab v2 with the large field of view (Chen et al., "DeepLab", PAMI 2018), the segmentation model of GCT.

    Images in [0, 1] of at least 33x33 pixels are normalised by ImageNet's statistics. The coarse map is resized to the
    image's size bilinearly with aligned corners, as in DeepLab.

    Args:
        in_channels: channels of the images. Channels after red, green and blue are scaled to [-1, 1], and their
            pretrained weights start at zero, unless all channels are bands (`band_mean`).
        channels: channels of the output.
        backbone: name of any convolutional timm model that can be dilated.
        output_stride: 8 or 16, pixels of the image per pixel of the coarse map.
        pretrained: start from the ImageNet weights that timm downloads.
        checkpointing: compute the backbone's blocks again in the backward pass instead of keeping their activations;
            needs less memory and more time.
        band_mean, band_std: see `SMP`.

    Attributes:
        window: which rows of a larger image the next images are, so that the outputs of several windows fit together;
            None for whole images.

    Raises:
        SemipixError: timm has no such backbone, it cannot be dilated, or its weights cannot be downloaded.
    """

    window: Window | None = None

    def __init__(
        self,
        in_channels: int,
        channels: int,
        backbone: str = "resnet101",
        output_stride: int = 8,
        pretrained: bool = False,
        checkpointing: bool = False,
        band_mean: Sequence[float] | None = None,
        band_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        check_encoder(backbone, key="backbone")
        if output_stride not in (8, 16):
            raise SemipixError(f"model.output_stride={output_stride}: expected 8 or 16; set one of them")
        options: dict[str, Any] = {
            "in_chans": in_channels,
            "num_classes": 0,
            "global_pool": "",
            "output_stride": output_stride,
        }
        try:
            network: Any = timm.create_model(backbone, **options)
        except (TypeError, ValueError, AssertionError) as error:
            raise SemipixError(
                f"model.backbone={backbone}: cannot be made with output stride {output_stride} ({error});"
                " use a ResNet such as resnet101"
            ) from error
        if pretrained:
            network = download(
                lambda: timm.create_model(backbone, pretrained=True, **options), backbone, key="backbone"
            )
            if band_mean is None:
                zero_extra_channels(network, in_channels)
        if checkpointing:
            checkpoint_stages(network, key="backbone")
        self.backbone: nn.Module = network
        self.heads = nn.ModuleList(_head(network.num_features, channels, rate) for rate in RATES)
        bands = {} if band_mean is None or band_std is None else {"mean": band_mean, "std": band_std}
        self.normalize = Normalize(in_channels, **bands)
        self.output_stride = output_stride

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to outputs (N, K, H, W) of unbounded range."""
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """A list of the backbone's last feature map, of images (N, C_in, H, W) in [0, 1].

        Raises:
            SemipixError: a side is smaller than 33.
        """
        check_image_size(image, SMALLEST_SIDE, "DeepLabV2")
        return [self.backbone(self.normalize(image))]

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The feature map to outputs (N, K, H, W) of images of this height and width."""
        (feature,) = features
        coarse = sum((head(feature) for head in self.heads[1:]), start=self.heads[0](feature))
        height, width = size
        whole = height if self.window is None else self.window.height
        return resize_aligned(coarse, (height, width), self.window, self.output_stride, -(-whole // self.output_stride))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters of the backbone and of the heads, each with `lr_scale`, the factor on its learning rate."""
        return [
            {"params": list(self.backbone.parameters()), "lr_scale": 1.0},
            {"params": list(self.heads.parameters()), "lr_scale": HEAD_LEARNING_RATE},
        ]


def _head(features: int, channels: int, rate: int) -> nn.Conv2d:
    """One atrous 3x3 convolution, initialised from a normal distribution with standard deviation 0.01."""
    head = nn.Conv2d(features, channels, kernel_size=3, padding=rate, dilation=rate)
    nn.init.normal_(head.weight, std=0.01)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head
