"""Padding of images to sides that a network can divide, and a check of their smallest side."""

from typing import Literal

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
    below, right = (max(0, smallest - side) + -max(smallest, side) % multiple for side in (height, width))
    return F.pad(image, (0, right, 0, below), mode=mode) if below or right else image


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
