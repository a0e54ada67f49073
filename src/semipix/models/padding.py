"""Padding of images to sides that a network can divide, and a check of their smallest side."""

from collections.abc import Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.errors import SemipixError


def pad_to_multiple(
    image: Tensor, multiple: int, mode: Literal["replicate", "reflect"] = "replicate", smallest: int = 0
) -> Tensor:
    """Pad at the bottom and on the right, so that both sides are multiples of a number.

    Args:
        image: (N, C, H, W).
        multiple: the number that divides both sides afterwards.
        mode: `replicate` repeats edge pixels and works for any size; `reflect` continues noise and texture, but needs
            sides of at least `multiple`.
        smallest: smallest length of both sides afterwards, in pixels.

    Returns:
        (N, C, H', W'); its upper left part is the image.
    """
    height, width = image.shape[-2:]
    padded_height, padded_width = padded_size((height, width), multiple, smallest)
    below, right = padded_height - height, padded_width - width
    # In an export sides are symbols, and a condition would hold for some sizes only.
    if torch.compiler.is_exporting() or below or right:
        return F.pad(image, (0, right, 0, below), mode=mode)
    return image


def padded_size(size: Sequence[int], multiple: int, smallest: int = 0) -> tuple[int, int]:
    """Height and width of an image of this height and width after `pad_to_multiple`."""
    height, width = (side if smallest <= multiple else cast(int, torch.sym_max(side, smallest)) for side in size)
    # Written as a product, in which an export sees that it can be divided.
    return multiple * ((height + multiple - 1) // multiple), multiple * ((width + multiple - 1) // multiple)


def cropped(output: Tensor, size: Sequence[int]) -> Tensor:
    """The upper left part (N, C, *size) of maps of a padded image."""
    # In an export sides are symbols. Elsewhere the gradient of a part would be a copy, and lose its memory format.
    if not torch.compiler.is_exporting() and tuple(output.shape[-2:]) == tuple(size):
        return output
    return output.narrow(-2, 0, size[0]).narrow(-1, 0, size[1])


def check_image_size(image: Tensor, smallest: int, model: str) -> None:
    """Check that images are not too small for a network.

    Args:
        image: (N, C, H, W).
        smallest: pixels that both sides need.
        model: the network's name.

    Raises:
        SemipixError: a side is smaller.
    """
    height, width = image.shape[-2:]
    if min(height, width) < smallest:
        raise SemipixError(
            f"data.crop: {height}x{width} (height x width) found, but {model} expects at least {smallest}x{smallest}; "
            f"set data.crop={smallest} or more, and use images of at least that size"
        )
