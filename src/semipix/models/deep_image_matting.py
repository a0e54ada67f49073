"""Deep Image Matting: a VGG-16 encoder, a decoder that unpools with the encoder's indices, and a refinement stage."""

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import VGG16_Weights

from semipix.errors import SemipixError
from semipix.models.checkpointing import runner
from semipix.models.padding import check_image_size, cropped, pad_to_multiple
from semipix.models.pretrained import Normalize, download

DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions in each stage of VGG-16."""

FACTORS = (1, 2, 4, 8, 8)
"""Channels of each stage as multiples of the width."""

STRIDE = 2 ** len(DEPTHS)
"""Product of the poolings' strides, and the smallest side of an image."""

PRETRAINED_WIDTH = 64
"""The width of torchvision's VGG-16."""


class DeepImageMatting(nn.Module):
    """Deep Image Matting (Xu, Price, Cohen and Huang, CVPR 2017): image and trimap to alpha.

    The encoder is VGG-16 on four channels. Each decoder stage unpools with the indices of the encoder's pooling and
    applies a 5x5 convolution. The refinement stage takes image and alpha and adds a correction. At width 64, encoder
    and decoder have 28,297,153 parameters and the refinement has 76,801.

    Three things differ from the paper. Its sixth encoder stage, VGG's first fully connected layer as a 7x7 convolution
    of 4096 channels, has 103 million parameters; here it is a 3x3 convolution of 512 channels, followed by the
    decoder's 1x1 convolution. Weights that are not pretrained are initialised by He et al. and not by Glorot, with
    which the activations vanish after five unpoolings; alpha starts close to 1/2. All stages are trained together.

    Images in [0, 1] of at least 32x32 pixels are normalised by ImageNet's statistics, or by those of their bands. Sides
    that are not multiples of 32 are padded by reflection, and the output is cropped to the image's size.

    Args:
        in_channels: channels of the images. Channels after red, green and blue (the trimap) are scaled to [-1, 1].
        channels: channels of the output.
        width: channels of the first stage, and of the refinement.
        pretrained: start from torchvision's ImageNet weights; those of the trimap's channel start at zero, unless all
            channels are bands (`band_mean`).
        checkpointing: compute the stages again in the backward pass instead of keeping their activations; needs less
            memory and more time.
        band_mean, band_std: see `SMP`.

    Raises:
        SemipixError: the width is below 1, there are no pretrained weights of this width, or they cannot be downloaded.
    """

    def __init__(
        self,
        in_channels: int = 4,
        channels: int = 1,
        width: int = PRETRAINED_WIDTH,
        pretrained: bool = False,
        checkpointing: bool = False,
        band_mean: Sequence[float] | None = None,
        band_std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if width < 1:
            raise SemipixError(f"model.width={width}: expected 1 or more; set for example 64, as in the paper")
        if pretrained and width != PRETRAINED_WIDTH:
            raise SemipixError(
                f"model.width={width}: pretrained weights are for width {PRETRAINED_WIDTH}; set model.pretrained=false"
            )
        self.run = runner(checkpointing)
        widths = [factor * width for factor in FACTORS]
        before = [in_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(
            Pooling(_convolutions(first, then, depth))
            for first, then, depth in zip(before, widths, DEPTHS, strict=True)
        )
        self.bottom = nn.Sequential(
            _convolutions(widths[-1], widths[-1], 1), _convolutions(widths[-1], widths[-1], 1, kernel=1)
        )
        after = [*reversed(widths[:-1]), width]
        layers = [_convolutions(first, then, 1, kernel=5) for first, then in zip(reversed(widths), after, strict=True)]
        last = nn.Conv2d(width, channels, 5, padding=2)
        layers[-1].append(last)  # part of the last stage, so that checkpointing keeps no full-size activations
        self.decoder = nn.ModuleList(map(Unpooling, layers))
        bands = {} if band_mean is None or band_std is None else {"mean": band_mean, "std": band_std}
        self.refinement = Refinement(in_channels if bands else min(in_channels, 3), channels, width)
        self.normalize = Normalize(in_channels, **bands)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer, middle in ((last, 0.5), (self.refinement.last, 0.0)):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.constant_(layer.bias, middle)
        if pretrained:
            self._load_vgg(spread=bool(bands))

    def _load_vgg(self, spread: bool) -> None:
        """Load ImageNet weights into the encoder.

        Args:
            spread: repeat the first convolution's weights of red, green and blue over all channels; without it those of
                further channels are zero.
        """
        weights = download(
            lambda: VGG16_Weights.IMAGENET1K_V1.get_state_dict(progress=False, check_hash=True),
            "true",
            key="pretrained",
        )
        convolutions = [module for module in self.encoder.modules() if isinstance(module, nn.Conv2d)]
        names = [name for name in weights if name.startswith("features.") and name.endswith(".weight")]
        with torch.no_grad():
            for convolution, name in zip(convolutions, names, strict=True):
                known = weights[name][:, : convolution.in_channels]
                if spread and convolution is convolutions[0]:
                    known = adapt_input_conv(convolution.in_channels, weights[name])
                convolution.weight.zero_()
                convolution.weight[:, : known.shape[1]] = known
                if convolution.bias is not None:
                    convolution.bias.copy_(weights[name.replace("weight", "bias")])

    def forward(self, image: Tensor) -> Tensor:
        """Images with their trimap (N, C_in, H, W) in [0, 1] to raw alpha (N, K, H, W) of unbounded range.

        Raises:
            SemipixError: a side is smaller than 32.
        """
        check_image_size(image, STRIDE, "DeepImageMatting")
        padded = self.normalize(pad_to_multiple(image, STRIDE, "reflect"))
        features, pooling_indices = padded, []
        for stage in self.encoder:
            features, indices = self.run(stage, features)
            pooling_indices.append(indices)
        features = self.run(self.bottom, features)
        for stage in self.decoder:
            features = self.run(stage, features, pooling_indices.pop())
        alpha: Tensor = self.run(self.refinement, padded, features)
        return cropped(alpha, image.shape[-2:])


class Pooling(nn.Module):
    """A stage of the encoder: convolutions and a max pooling that returns its indices.

    Args:
        layers: the layers before the pooling.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, C, H, W) to pooled features (N, C', H/2, W/2) and the indices of their maxima."""
        pooled, indices = F.max_pool2d(self.layers(features), 2, return_indices=True)
        return pooled, indices


class Unpooling(nn.Module):
    """A stage of the decoder: a max unpooling and convolutions.

    Args:
        layers: the layers after the unpooling.
    """

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, features: Tensor, indices: Tensor) -> Tensor:
        """Features (N, C, H, W) and the indices of a pooling to features (N, C', 2H, 2W)."""
        output: Tensor = self.layers(F.max_unpool2d(features, indices, [2, 2]))
        return output


class Refinement(nn.Module):
    """The second stage: four 3x3 convolutions at full resolution correct the alpha of the first.

    Args:
        colours: the image's channels without the trimap: all of them where they are bands.
        channels: channels of alpha.
        width: channels of the inner layers.
    """

    def __init__(self, colours: int, channels: int, width: int) -> None:
        super().__init__()
        self.colours = colours
        self.layers = _convolutions(colours + channels, width, 3)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, image: Tensor, alpha: Tensor) -> Tensor:
        """The normalised image (N, C_in, H, W) and raw alpha (N, K, H, W) to refined alpha of the same shape."""
        features = self.layers(torch.cat([image[:, : self.colours], alpha.to(image.dtype)], dim=1))
        correction: Tensor = self.last(features)
        return alpha + correction


def _convolutions(in_channels: int, channels: int, depth: int, kernel: int = 3) -> nn.Sequential:
    """Convolutions that keep the size, each followed by a ReLU."""
    sizes = [in_channels, *[channels] * depth]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.ReLU()]
    return nn.Sequential(*layers)
