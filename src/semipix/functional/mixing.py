"""CutMix: paste a box of one image into another, and the same box of its labels and masks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

RATIO = (0.3, 1 / 0.3)
"""Smallest and largest height of a box as a multiple of its width."""


def cutmix_mask(
    like: Tensor, area: tuple[float, float] = (0.25, 0.5), probability: float = 1.0, ratio: tuple[float, float] = RATIO
) -> Tensor:
    """Draw a box for each image at a random place (Yun et al., ICCV 2019; for segmentation French et al., BMVC 2020).

    Boxes are drawn from torch's global generator on the CPU, so that they do not depend on the device.

    Args:
        like: images (N, C, H, W) that give number, size and device of the masks.
        area: smallest and largest share of the image that a box covers.
        probability: share of the images that get a box.
        ratio: smallest and largest height of a box as a multiple of its width, both as shares of the image's sides.

    Returns:
        (N, 1, H, W) bool, True inside the box; all False for an image without one.
    """
    height, width = like.shape[-2:]
    masks = torch.zeros(len(like), 1, height, width, dtype=torch.bool, device=like.device)
    for mask in masks:
        draw = torch.rand(5).tolist()
        if draw[0] >= probability:
            continue
        share = area[0] + (area[1] - area[0]) * draw[1]
        # The box has to fit: its relative height is between `share` (as wide as the image) and 1.
        low, high = (math.log(min(max(math.sqrt(share * limit), share), 1.0)) for limit in ratio)
        tall = math.exp(low + (high - low) * draw[2])
        rows, columns = round(height * tall), round(width * share / tall)
        top, left = round((height - rows) * draw[3]), round((width - columns) * draw[4])
        mask[:, top : top + rows, left : left + columns] = True
    return masks


def mix(mask: Tensor, maps: Tensor) -> Tensor:
    """Paste a box of the previous map of the batch into each map; the first map gets the box of the last.

    Args:
        mask: (N, 1, H, W) bool, True inside the box.
        maps: images, predictions or weights (N, C, H, W).

    Returns:
        (N, C, H, W), mixed.
    """
    return torch.where(mask, maps.roll(1, 0), maps)


def mix_shown(mask: Tensor, shown: Tensor | None) -> Tensor | None:
    """`mix` for the pixels (N, 1, H, W) that images show, which may be None for all of them."""
    return None if shown is None else mix(mask, shown)


def joined(shown: Sequence[Tensor | None]) -> Tensor | None:
    """The pixels that several views of the same images show, one after the other; None if these are all."""
    parts = [part for part in shown if part is not None]
    return torch.cat(parts) if parts else None
