"""Rotation of crops by small angles, with the pixels around them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors

from semipix.data.files.resize import by_channel
from semipix.data.files.sizes import Size


def reach(crop: Size, angle: float) -> Size:
    """Pixels above (and below) and left (and right) of a crop that its rotation shows.

    Args:
        crop: height and width.
        angle: in radians.
    """
    if not angle:
        return 0, 0
    height, width = crop
    cosine, sine = abs(math.cos(angle)), abs(math.sin(angle))
    covered = height * cosine + width * sine, height * sine + width * cosine
    down, across = (max(0, math.ceil((new - old) / 2)) + 1 for new, old in zip(covered, crop, strict=True))
    return down, across


def rotated(inpt: Any, crop: Size, angle: float) -> Any:
    """Rotate an image or a target counterclockwise about its centre, and keep its middle.

    Masks, trimaps and unknown regions are taken from the nearest pixel, images and maps are interpolated bilinearly.

    Args:
        inpt: a tv_tensor (..., H, W) with at least `reach` more pixels on each side than the crop.
        crop: height and width of the result.
        angle: in radians; 0 returns the tensor as it is, which then has the size of the crop.
    """
    if not angle:
        return inpt
    plain = inpt.as_subclass(Tensor)
    rows, columns = _places(plain.shape[-2:], crop, angle)

    def nearest(values: Tensor) -> Tensor:
        return values[..., rows.round().long(), columns.round().long()]

    def bilinear(values: Tensor) -> Tensor:
        height, width = values.shape[-2:]
        grid = torch.stack([2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1], dim=-1)
        return F.grid_sample(values[None], grid[None], align_corners=True)[0]

    if isinstance(inpt, tv_tensors.Mask):
        return tv_tensors.wrap(nearest(plain), like=inpt)
    return tv_tensors.wrap(by_channel(inpt, plain, nearest, bilinear), like=inpt)


def _places(size: Any, crop: Size, angle: float) -> tuple[Tensor, Tensor]:
    """Row and column (height, width) of the larger image that each pixel of the rotated crop shows."""
    (down, across), (middle_row, middle_column) = (
        [torch.arange(side) - (side - 1) / 2 for side in crop],
        [(side - 1) / 2 for side in size],
    )
    cosine, sine = math.cos(angle), math.sin(angle)
    rows = middle_row + cosine * down[:, None] + sine * across
    columns = middle_column - sine * down[:, None] + cosine * across
    return rows, columns
