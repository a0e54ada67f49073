"""PSPNet on any encoder of timm that can be dilated."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import Tensor

from semipix.errors import SemipixError
from semipix.models.on_encoder import OnEncoder
from semipix.models.pretrained import OFFLINE_ENCODER

DEPTH = 5
"""The encoder is used whole and dilated, as in the paper."""


class PSPNet(OnEncoder):
    """Pyramid scene parsing network (Zhao et al., "PSPNet", CVPR 2017): what is at a place depends on the whole scene.

    The dilated encoder's last map is pooled to 1x1, 2x2, 3x3 and 6x6 cells, which join it. The network is that of
    segmentation-models-pytorch: one 1x1 convolution merges the pyramid where the paper has a 3x3, and there is no
    auxiliary loss.

    Images in [0, 1] are normalised inside and padded to multiples of the output stride; the output is cropped back.

    Args:
        in_channels: channels of the images; what follows red, green and blue is brought to [-1, 1], and its pretrained
            weights start at zero.
        channels: channels of the output.
        encoder: name of any convolutional timm model that can be dilated, `resnet50` and `resnet101` in the paper.
        pretrained: start from ImageNet weights. Those of the default encoder come from an installed package, those of
            others are downloaded by timm.
        output_stride: 8 or 16, pixels of the image per pixel of the last map.
        width: channels of the merged pyramid.
        dropout: share of the merged pyramid's channels that training leaves out.

    Raises:
        SemipixError: timm has no such encoder, it cannot be dilated, or its weights cannot be had.
    """

    whole_image = True

    def __init__(
        self,
        in_channels: int,
        channels: int,
        encoder: str = OFFLINE_ENCODER,
        pretrained: bool = True,
        output_stride: int = 8,
        width: int = 512,
        dropout: float = 0.1,
    ) -> None:
        if output_stride not in (8, 16):
            raise SemipixError(f"model.output_stride={output_stride}: expected 8 or 16; set one of them")
        if not 0 <= dropout < 1:
            raise SemipixError(f"model.dropout={dropout}: expected a number from 0 to below 1")
        super().__init__(
            smp.PSPNet,
            encoder,
            pretrained,
            unfit=f"cannot be dilated to output stride {output_stride}",
            encoder_depth=DEPTH,
            output_stride=output_stride,
            upsampling=output_stride,
            psp_out_channels=width,
            psp_dropout=dropout,
            in_channels=in_channels,
            classes=channels,
        )

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's last feature map of images (N, C_in, H, W) in [0, 1]: the only one that counts."""
        return super().features(image)[-1:]

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """The feature map to outputs (N, K, H, W) of images of this height and width."""
        output: Tensor = self.network.segmentation_head(self.network.decoder(list(features)))
        return output[..., : size[0], : size[1]]
