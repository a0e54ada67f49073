"""U-Net on any encoder of timm."""

from collections.abc import Sequence

import segmentation_models_pytorch as smp
from torch import Tensor

from semipix.models.on_encoder import OnEncoder
from semipix.models.pretrained import OFFLINE_ENCODER


class UNet(OnEncoder):
    """U-Net (Ronneberger et al., MICCAI 2015) on a pretrained encoder, for images of any size.

    Images in [0, 1] are normalised inside and padded to what the encoder divides by; the output is cropped back.

    Args:
        in_channels: channels of the images; what follows red, green and blue is brought to [-1, 1], and its pretrained
            weights start at zero.
        channels: channels of the output.
        encoder: name of any timm model with feature maps, e.g. `resnet50` or `convnext_tiny.fb_in22k`.
        pretrained: start from ImageNet weights. Those of the default encoder come from an installed package, those of
            others are downloaded by timm.
        decoder_channels: channels of the decoder's stages, coarse to fine; their number is the encoder's depth.

    Raises:
        SemipixError: timm has no such encoder, it has no pyramid of feature maps, or its weights cannot be had.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        encoder: str = OFFLINE_ENCODER,
        pretrained: bool = True,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16),
    ) -> None:
        super().__init__(
            smp.Unet,
            encoder,
            pretrained,
            unfit=f"gives no pyramid of {len(decoder_channels)} feature maps",
            encoder_depth=len(decoder_channels),
            decoder_channels=tuple(decoder_channels),
            in_channels=in_channels,
            classes=channels,
        )

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps to outputs (N, K, H, W) of images of this height and width."""
        image = features[0].new_empty((0, 0, *self.padded(size)))  # the decoder reads its size alone
        output: Tensor = self.network.segmentation_head(self.network.decoder([image, *features]))
        return output[..., : size[0], : size[1]]
