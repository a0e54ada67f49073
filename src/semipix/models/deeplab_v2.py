"""DeepLab v2: a dilated ResNet under summed atrous heads."""

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
SMALLEST = 33
HEAD_LEARNING_RATE = 10.0
"""The heads start from nothing and learn ten times as fast as the backbone, as in the paper."""


class DeepLabV2(nn.Module):
    """DeepLab v2 with the large field of view (Chen et al., "DeepLab", PAMI 2018), the segmentation model of GCT.

    Images in [0, 1] of at least 33x33 pixels are normalised inside by ImageNet's statistics. The coarse map is resized
    bilinearly with corners aligned, as DeepLab does: outputs then lie on a grid of output_stride k + 1 pixels.

    Args:
        in_channels: channels of the images; what follows red, green and blue is brought to [-1, 1], and its pretrained
            weights start at zero.
        channels: channels of the output.
        backbone: name of any convolutional timm model that can be dilated.
        output_stride: 8 or 16, pixels of the image per pixel of the coarse map.
        pretrained: start from the ImageNet weights that timm downloads.
        checkpointing: compute the backbone's blocks twice and keep less: for large images and batches.

    Attributes:
        window: which rows of a larger image the next images are, so that their maps fit together; None for whole ones.

    Raises:
        SemipixError: timm has no such backbone, it cannot be dilated, or its weights cannot be had.
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
            zero_extra_channels(network, in_channels)
        if checkpointing:
            checkpoint_stages(network, key="backbone")
        self.backbone: nn.Module = network
        self.heads = nn.ModuleList(_head(network.num_features, channels, rate) for rate in RATES)
        self.normalize = Normalize(in_channels)
        self.output_stride = output_stride

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to outputs (N, K, H, W) of unbounded range."""
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """The backbone's one feature map of images (N, C_in, H, W) in [0, 1].

        Raises:
            SemipixError: a side is smaller than 33.
        """
        check_image_size(image, SMALLEST, "DeepLabV2")
        return [self.backbone(self.normalize(image))]

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The feature map to outputs (N, K, H, W) of images of this height and width."""
        (seen,) = features
        coarse = sum((head(seen) for head in self.heads[1:]), start=self.heads[0](seen))
        height, width = size
        whole = height if self.window is None else self.window.height
        return resize_aligned(coarse, (height, width), self.window, self.output_stride, -(-whole // self.output_stride))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Backbone and heads, with the factor `lr_scale` of each one's learning rate."""
        return [
            {"params": list(self.backbone.parameters()), "lr_scale": 1.0},
            {"params": list(self.heads.parameters()), "lr_scale": HEAD_LEARNING_RATE},
        ]


def _head(features: int, channels: int, rate: int) -> nn.Conv2d:
    """One atrous 3x3 convolution from normal(0, 0.01)."""
    head = nn.Conv2d(features, channels, kernel_size=3, padding=rate, dilation=rate)
    nn.init.normal_(head.weight, std=0.01)
    if head.bias is not None:
        nn.init.zeros_(head.bias)
    return head
