"""HDRNet: enhancement by local affine transforms, which are stored in a bilateral grid."""

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
"""Points at which each curve of the guide changes its slope."""

SMALLEST_SIDE = 8
"""Pixels that both sides of an image need."""


class HDRNet(nn.Module):
    """Deep bilateral learning (Gharbi et al., "HDRNet", SIGGRAPH 2017), with the learned guide of pointwise curves.

    A network computes a grid of affine transforms from a small copy of the image. The grid has 16x16 cells in space and
    8 along the guide, a gray image that is computed from the full image. Each pixel of the full image interpolates its
    transform from the grid, at its place and its guide value, and is transformed by it. So images may have any size,
    and the output keeps the image's edges.

    As in the paper, convolutions are initialised by He et al., and the guide starts as the mean of the colours. Two
    things differ from the paper: the transforms start close to the identity, so that few labels suffice, and there is
    no batch norm, so that images of a batch do not influence each other. With 3 input and output channels the network
    has 482,080 parameters.

    Args:
        in_channels: channels of the images.
        channels: channels of the output.
        width: channels of the first convolution; the next ones have 2, 4 and 8 times as many.
        bins: cells of the grid along the guide.
        resolution: side of the small copy in pixels, a multiple of 64; a cell of the grid covers 16x16 of its pixels.

    Raises:
        SemipixError: width or bins is below 1, or the resolution is not a positive multiple of 64.
    """

    whole_image = True

    def __init__(
        self, in_channels: int = 3, channels: int = 3, width: int = 8, bins: int = 8, resolution: int = 256
    ) -> None:
        super().__init__()
        for key, value in (("width", width), ("bins", bins)):
            if value < 1:
                raise SemipixError(f"model.{key}={value}: expected 1 or more; set for example 8, as in the paper")
        if resolution < 64 or resolution % 64:
            raise SemipixError(
                f"model.resolution={resolution}: expected a multiple of 64; set for example 256, as in the paper"
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
        """He's initialisation with zero biases; the transforms start near the identity."""
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
        check_image_size(image, SMALLEST_SIDE, "HDRNet")
        image = at_least_float32(image)
        transforms = slice_grid(self.grid(image), self.guide(image))  # (N, K (C_in + 1), H, W)
        return transform(image, transforms)

    def grid(self, image: Tensor) -> Tensor:
        """The bilateral grid (N, K (C_in + 1), bins, 16, 16) of images (N, C_in, H, W)."""
        side = (self.resolution, self.resolution)
        small = F.interpolate(image, size=side, mode="bilinear", align_corners=False, antialias=True)
        features = self.low_level(small)  # (N, 8 width, 16, 16)
        fused = F.relu(self.local_features(features) + self.global_features(features)[..., None, None])
        flat: Tensor = self.transforms(fused)
        return flat.reshape(flat.shape[0], -1, self.bins, *flat.shape[-2:])


class Guide(nn.Module):
    """Each pixel's place along the grid's third axis: a sum of its colours after piecewise linear curves.

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
        """Images (N, C_in, H, W) in [0, 1] to guides (N, 1, H, W), roughly in [0, 1]."""
        colours = self.colours(image)
        curved = torch.zeros_like(colours)
        for hinge, slope in zip(
            self.hinges, self.slopes, strict=True
        ):  # not all at once: that takes 16 times the memory
            curved = curved + slope * F.relu(colours - hinge)
        guide: Tensor = self.mix(curved)
        return guide


def slice_grid(grid: Tensor, guide: Tensor) -> Tensor:
    """Look up each pixel in a bilateral grid by trilinear interpolation.

    The centre of cell i is at (i + 1/2) / (number of cells) of the image's height or width, or of the guide's range
    [0, 1]. Beyond the outermost centres the outermost cell is used. So one grid serves images of any size.

    Args:
        grid: (N, C, D, H_grid, W_grid).
        guide: (N, 1, H, W).

    Returns:
        (N, C, H, W), at least float32, since half precision is too coarse for positions in a large image.
    """
    grid, guide = at_least_float32(grid), at_least_float32(guide)
    height, width = guide.shape[-2:]
    # Positions of the pixels' centres; the image's edges are at -1 and 1.
    rows = (2 * torch.arange(height, dtype=guide.dtype, device=guide.device) + 1) / height - 1
    columns = (2 * torch.arange(width, dtype=guide.dtype, device=guide.device) + 1) / width - 1
    depth = 2 * guide.squeeze(1) - 1  # (N, H, W)
    where = torch.stack(
        [columns[None, None].expand_as(depth), rows[None, :, None].expand_as(depth), depth], dim=-1
    ).unsqueeze(1)  # (N, 1, H, W, 3)
    sliced = F.grid_sample(grid.to(guide.dtype), where, mode="bilinear", padding_mode="border", align_corners=False)
    return sliced.squeeze(2)


def transform(image: Tensor, transforms: Tensor) -> Tensor:
    """Apply its own affine transform to each pixel.

    Args:
        image: (N, C_in, H, W).
        transforms: (N, K (C_in + 1), H, W); for each output channel the weights of the image's channels, then the
            offset.

    Returns:
        (N, K, H, W).
    """
    count, inputs, height, width = image.shape
    each = transforms.reshape(count, -1, inputs + 1, height, width)  # (N, K, C_in + 1, H, W)
    return (each[:, :, :-1] * image.unsqueeze(1)).sum(2) + each[:, :, -1]


def _halved(in_channels: int, channels: int) -> nn.Sequential:
    """A convolution that halves the size, followed by a ReLU."""
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, stride=2, padding=1), nn.ReLU())
