"""What networks of segmentation-models-pytorch on an encoder of timm have in common."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.models.pretrained import (
    OFFLINE_ENCODER,
    Normalize,
    check_encoder,
    download,
    input_statistics,
    offline_weights,
    zero_extra_channels,
)
from semipix.models.sizes import pad_to_multiple


class OnEncoder(nn.Module, ABC):
    """An encoder and what makes its feature maps an output, for images of any size.

    Images in [0, 1] are normalised inside and padded to what the encoder divides by; the output is cropped back.

    Args:
        architecture: the class of segmentation-models-pytorch.
        encoder: name of any timm model with feature maps.
        pretrained: start from ImageNet weights. Those of the default encoder come from an installed package, those of
            others are downloaded by timm. Channels after red, green and blue start at zero.
        unfit: what the error says of an encoder that the architecture cannot take.
        **options: keyword arguments of the architecture.

    Raises:
        SemipixError: timm has no such encoder, it does not fit, or its weights cannot be had.
    """

    def __init__(
        self, architecture: Callable[..., Any], encoder: str, pretrained: bool, unfit: str, **options: Any
    ) -> None:
        super().__init__()
        check_encoder(encoder, key="encoder")
        in_channels = options["in_channels"]
        try:
            network, any_size = _make(architecture, encoder, None, options)
        except (ValueError, AssertionError, IndexError, TypeError, NotImplementedError) as error:
            raise SemipixError(
                f"model.encoder={encoder}: {unfit} ({' '.join(str(error).split())}); use an encoder such as"
                f" {OFFLINE_ENCODER}, resnet50 or convnext_tiny"
            ) from error
        settings = network.encoder.model.pretrained_cfg
        mean, std = input_statistics(encoder, settings)
        if pretrained and encoder == OFFLINE_ENCODER:
            backbone = network.encoder.model
            weights = offline_weights(in_channels)
            backbone.load_state_dict({name: weights[name] for name in backbone.state_dict()})
        elif pretrained:
            network, any_size = download(lambda: _make(architecture, encoder, True, options), encoder, key="encoder")
        if pretrained:
            zero_extra_channels(network.encoder, in_channels)
        self.network: Any = network
        self.normalize = Normalize(in_channels, mean, std)
        self.multiple: int = network.encoder.output_stride if any_size else settings["input_size"][-1]

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to outputs (N, K, H, W) of unbounded range."""
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's feature maps of images (N, C_in, H, W) in [0, 1], finest first, of the padded image."""
        # Edge pixels are repeated: zeros would be an edge that is not in the image, and a reflection can be too short.
        maps: list[Tensor] = self.network.encoder(pad_to_multiple(self.normalize(image), self.multiple))
        return list(maps[1:])  # the first is the image

    @abstractmethod
    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Feature maps to outputs (N, K, H, W) of images of this height and width."""

    def padded(self, size: Sequence[int]) -> list[int]:
        """Height and width that the encoder saw of an image of this height and width."""
        return [side + -side % self.multiple for side in size]


def _make(
    architecture: Callable[..., Any], encoder: str, weights: bool | None, options: dict[str, Any]
) -> tuple[Any, bool]:
    """The network on a timm encoder, and whether it takes more than multiples of one size."""
    name = f"tu-{encoder}"
    try:
        # Window transformers insist on their training size unless told otherwise; other encoders refuse the option.
        return architecture(name, encoder_weights=weights, strict_img_size=False, **options), True
    except TypeError:
        network = architecture(name, encoder_weights=weights, **options)
        return network, not network.encoder.model.pretrained_cfg["fixed_input_size"]
