"""How many images are computed at once."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BATCH_PIXELS = {"cpu": 2**17, "cuda": 2**22}
"""Pixels of a batch. A large image fills a processor by itself; small ones share what a batch costs once."""


def pixels_of_a_batch(device: str) -> int:
    """Pixels of a batch on a type of device."""
    return BATCH_PIXELS.get(device, BATCH_PIXELS["cuda"])


def parts_of_equal_size(images: Sequence[Tensor], device: str) -> list[list[int]]:
    """Which images to compute together: those of one size, evenly shared between batches of the device's size.

    Args:
        images: tensors (..., H, W).
        device: its type, as `cpu`.

    Returns:
        Indices of the images of each batch, all of one shape.
    """
    groups: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape, []).append(index)
    parts = []
    for shape, group in groups.items():
        most = max(1, pixels_of_a_batch(device) // math.prod(shape[-2:]))
        size = math.ceil(len(group) / math.ceil(len(group) / most))
        parts += [group[at : at + size] for at in range(0, len(group), size)]
    return parts
