"""HDRNet: enhancement by local affine transforms that a bilateral grid holds."""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.functional.precision import at_least_float32
from semipix.models.padding import check_image_size

GRID_STRIDE = 16
"""Pixels of the low-resolution image per cell of the grid."""

CURVE_POINTS = 16
"""Hinges of each curve of the guide."""

SMALLEST = 8


class HDRNet(nn.Module):
    """Deep bilateral learning (Gharbi et al., "HDRNet", SIGGRAPH 2017), with the learned guide of pointwise curves.

    A small copy of the image makes a grid of affine transforms, 16x16 in space and 8 in the guide's brightness. Each
    pixel of the full image finds its transform between them by place and guide, and is transformed. The whole image is
    seen at once, at any size, and an output has edges where the image has some.

    As in the paper, convolutions start by He et al. and the guide as the mean of the colours. Two things are ours: the
    predicted transforms start close to the identity, so that few labels go into what is to change, and there is no
    batch norm, so that images do not depend on each other. 482,080 parameters for 3 channels in and out.

    Args:
        in_channels: channels of the images.
        channels: channels of the output.
        width: channels of the first convolution, 2, 4 and 8 times as many further on.
        bins: cells of the grid along the guide.
        resolution: side of the small copy in pixels, a multiple of 64; a cell of the grid covers 16 of its pixels.

    Raises:
        SemipixError: an argument is out of range.
    """

    whole_image = True

    def __init__(
        self, in_channels: int = 3, channels: int = 3, width: int = 8, bins: int = 8, resolution: int = 256
    ) -> None:
        super().__init__()
        for key, value in (("width", width), ("bins", bins)):
            if value < 1:
                raise SemipixError(f"model.{key}={value}: expected 1 or more; set 8 as in the paper, say")
        if resolution < 64 or resolution % 64:
            raise SemipixError(
                f"model.resolution={resolution}: expected a multiple of 64; set 256 as in the paper, say"
            )
        self.in_channels, self.channels, self.bins, self.resolution = in_channels, channels, bins, resolution
        features = 8 * width
        sizes = (in_channels, width, 2 * width, 4 * width, features)
        self.low_level = nn.Sequential(*(_halved(*pair) for pair in itertools.pairwise(sizes)))
        self.local_features = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
        )
        self.global_features = nn.Sequential(
            _halved(features, features),
            _halved(features, features),
            nn.Flatten(),
            nn.Linear(features * (resolution // GRID_STRIDE // 4) ** 2, 4 * features),
            nn.ReLU(),
            nn.Linear(4 * features, 2 * features),
            nn.ReLU(),
            nn.Linear(2 * features, features),
        )
        self.transforms = nn.Conv2d(features, channels * (in_channels + 1) * bins, 1)
        self.guide = Guide(in_channels)
        self._initialise()

    def _initialise(self) -> None:
        """He's weights, zero biases; transforms near the identity."""
        for part in (self.low_level, self.local_features, self.global_features):
            for module in part.modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                    if module.bias is not None:
                        nn.init.zeros_(module.bias)
        identity = torch.eye(self.channels, self.in_channels + 1)
        identity[:, -1] = 0.0
        nn.init.normal_(self.transforms.weight, std=0.01)
        if self.transforms.bias is not None:
            with torch.no_grad():
                self.transforms.bias.copy_(identity.flatten().repeat_interleave(self.bins))

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) to outputs (N, K, H, W) of unbounded range, at least float32.

        Raises:
            SemipixError: a side is smaller than 8.
        """
        check_image_size(image, SMALLEST, "HDRNet")
        image = at_least_float32(image)
        transforms = slice_grid(self.grid(image), self.guide(image))  # (N, K (C_in + 1), H, W)
        return transform(image, transforms)

    def grid(self, image: Tensor) -> Tensor:
        """The bilateral grid (N, K (C_in + 1), bins, 16, 16) of images (N, C_in, H, W)."""
        side = (self.resolution, self.resolution)
        small = F.interpolate(image, size=side, mode="bilinear", align_corners=False, antialias=True)
        seen = self.low_level(small)  # (N, 8 width, 16, 16)
        fused = F.relu(self.local_features(seen) + self.global_features(seen)[..., None, None])
        flat: Tensor = self.transforms(fused)
        return flat.reshape(len(flat), -1, self.bins, *flat.shape[-2:])


class Guide(nn.Module):
    """Where along the grid a pixel looks: a mix of its colours, each bent by a piecewise linear curve.

    Args:
        in_channels: channels of the images.
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.colours = nn.Conv2d(in_channels, in_channels, 1)
        self.hinges = nn.Parameter(
            torch.linspace(0, 1, CURVE_POINTS + 1)[:-1, None, None, None].repeat(1, in_channels, 1, 1)
        )
        slopes = torch.zeros(CURVE_POINTS, in_channels, 1, 1)
        slopes[0] = 1.0  # the identity on [0, 1]
        self.slopes = nn.Parameter(slopes)
        self.mix = nn.Conv2d(in_channels, 1, 1)
        nn.init.dirac_(self.colours.weight)
        nn.init.constant_(self.mix.weight, 1 / in_channels)
        for layer in (self.colours, self.mix):
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Images (N, C_in, H, W) in [0, 1] to guides (N, 1, H, W), about [0, 1]."""
        colours = self.colours(image)
        curved = torch.zeros_like(colours)
        for hinge, slope in zip(self.hinges, self.slopes, strict=True):  # one by one: a full image 16 times is too much
            curved = curved + slope * F.relu(colours - hinge)
        guide: Tensor = self.mix(curved)
        return guide


def slice_grid(grid: Tensor, guide: Tensor) -> Tensor:
    """Look up each pixel in a bilateral grid by trilinear interpolation.

    Cells have their centres at (i + 1/2) / cells of the image's height and width, and of the guide's range [0, 1];
    beyond the outermost centres the outermost cell holds. So any size of image is cut from the same grid.

    Args:
        grid: (N, C, D, H_grid, W_grid).
        guide: (N, 1, H, W).

    Returns:
        (N, C, H, W), at least float32: half precision would misplace pixels of a large image.
    """
    grid, guide = at_least_float32(grid), at_least_float32(guide)
    height, width = guide.shape[-2:]
    # Pixel centres, between -1 and 1 at the image's edges.
    rows = (2 * torch.arange(height, dtype=guide.dtype, device=guide.device) + 1) / height - 1
    columns = (2 * torch.arange(width, dtype=guide.dtype, device=guide.device) + 1) / width - 1
    depth = 2 * guide.squeeze(1) - 1  # (N, H, W)
    where = torch.stack(
        [columns[None, None].expand_as(depth), rows[None, :, None].expand_as(depth), depth], dim=-1
    ).unsqueeze(1)  # (N, 1, H, W, 3)
    sliced = F.grid_sample(grid.to(guide.dtype), where, mode="bilinear", padding_mode="border", align_corners=False)
    return sliced.squeeze(2)


def transform(image: Tensor, transforms: Tensor) -> Tensor:
    """Apply to each pixel its affine transform.

    Args:
        image: (N, C_in, H, W).
        transforms: (N, K (C_in + 1), H, W); for each output channel the weights of the image's, then the offset.

    Returns:
        (N, K, H, W).
    """
    count, inputs, height, width = image.shape
    each = transforms.reshape(count, -1, inputs + 1, height, width)  # (N, K, C_in + 1, H, W)
    return (each[:, :, :-1] * image.unsqueeze(1)).sum(2) + each[:, :, -1]


def _halved(in_channels: int, channels: int) -> nn.Sequential:
    """A convolution that halves the size, and ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), nn.ReLU())
