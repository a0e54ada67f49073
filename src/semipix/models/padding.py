"""Images whose sides a network does not divide by: padded before, cropped after."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from semipix.errors import SemipixError


def pad_to_multiple(
    image: Tensor, multiple: int, mode: Literal["replicate", "reflect"] = "replicate", smallest: int = 0
) -> Tensor:
    """Pad below and on the right, so that both sides are multiples.

    Args:
        image: (N, C, H, W).
        multiple: what the sides are to be divisible by.
        mode: `replicate` repeats edge pixels, whatever the size; `reflect` keeps the look of noise and texture, and
            needs sides of at least `multiple`.
        smallest: pixels that both sides have at least afterwards.

    Returns:
        (N, C, H', W'); the image is its upper left part.
    """
    height, width = image.shape[-2:]
    below, right = (max(0, smallest - side) + -max(smallest, side) % multiple for side in (height, width))
    return F.pad(image, (0, right, 0, below), mode=mode) if below or right else image


def check_image_size(image: Tensor, smallest: int, model: str) -> None:
    """Refuse images that are too small for a network.

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
            f"set data.crop={smallest} or more, and give it images of that size"
        )
