"""U-Net on any encoder of timm."""

from collections.abc import Sequence
from typing import Any

import segmentation_models_pytorch as smp
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.pretrained import (
    OFFLINE_ENCODER,
    OFFLINE_MEAN,
    OFFLINE_STD,
    Normalize,
    check_encoder,
    download,
    offline_weights,
)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015) on a pretrained encoder, for images of any size.

    Images in [0, 1] are normalised inside and padded to what the encoder divides by; the output is cropped back.

    Args:
        in_channels: channels of the images; what follows red, green and blue is brought to [-1, 1].
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
        super().__init__()
        check_encoder(encoder, key="encoder")
        options: dict[str, Any] = {
            "encoder_depth": len(decoder_channels),
            "decoder_channels": tuple(decoder_channels),
            "in_channels": in_channels,
            "classes": channels,
        }
        try:
            network, any_size = _make(encoder, None, options)
        except (ValueError, AssertionError, IndexError) as error:
            raise SemipixError(
                f"model.encoder={encoder}: gives no pyramid of {len(decoder_channels)} feature maps ({error});"
                f" use an encoder such as {OFFLINE_ENCODER}, resnet50 or convnext_tiny"
            ) from error
        statistics = network.encoder.model.pretrained_cfg
        mean, std = statistics["mean"], statistics["std"]
        if pretrained and encoder == OFFLINE_ENCODER:
            backbone = network.encoder.model
            weights = offline_weights(in_channels)
            backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
            mean, std = [OFFLINE_MEAN] * 3, [OFFLINE_STD] * 3
        elif pretrained:
            network, any_size = download(lambda: _make(encoder, True, options), encoder, key="encoder")
        self.network: Any = network
        self.normalize = Normalize(in_channels, mean, std)
        self.multiple: int = network.encoder.output_stride if any_size else statistics["input_size"][-1]

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to outputs (N, K, H, W) of unbounded range."""
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's feature maps of images (N, C_in, H, W) in [0, 1], finest first, of the padded image."""
        height, width = image.shape[-2:]
        # Edge pixels are repeated: zeros would be an edge that is not in the image, and a reflection can be too short.
        below, right = -height % self.multiple, -width % self.multiple
        padded = F.pad(self.normalize(image), (0, right, 0, below), mode="replicate")
        maps: list[Tensor] = self.network.encoder(padded)
        return list(maps[1:])  # the first is the image

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps to outputs (N, K, H, W) of images of this height and width."""
        padded = [side + -side % self.multiple for side in size]
        image = features[0].new_empty((0, 0, *padded))  # the decoder reads its size alone
        output: Tensor = self.network.segmentation_head(self.network.decoder([image, *features]))
        return output[..., : size[0], : size[1]]


def _make(encoder: str, weights: bool | None, options: dict[str, Any]) -> tuple[Any, bool]:
    """segmentation-models-pytorch's U-Net on a timm encoder, and whether it takes more than multiples of one size."""
    name = f"tu-{encoder}"
    try:
        # Window transformers insist on their training size unless told otherwise; other encoders refuse the option.
        return smp.Unet(name, encoder_weights=weights, strict_img_size=False, **options), True
    except TypeError:
        network = smp.Unet(name, encoder_weights=weights, **options)
        return network, not network.encoder.model.pretrained_cfg["fixed_input_size"]
