"""Groups of images that are computed in one batch."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

BATCH_PIXELS = {"cpu": 2**17, "cuda": 2**22}
"""Pixels of a batch by type of device: enough small images to use the processor well; a large image is a batch."""


def batch_pixels(device: str) -> int:
    """Pixels of a batch on a type of device, such as `cpu`."""
    return BATCH_PIXELS.get(device, BATCH_PIXELS["cuda"])


def batches_of_equal_size(images: Sequence[Tensor], device: str) -> list[list[int]]:
    """Group images into batches: images of one size, in batches of about equal length and at most `batch_pixels`.

    Args:
        images: tensors (..., H, W).
        device: type of the device, such as `cpu`.

    Returns:
        For each batch the indices of its images.
    """
    indices_of_shape: dict[torch.Size, list[int]] = {}
    for index, image in enumerate(images):
        indices_of_shape.setdefault(image.shape, []).append(index)
    batches = []
    for shape, indices in indices_of_shape.items():
        most = max(1, batch_pixels(device) // math.prod(shape[-2:]))
        size = math.ceil(len(indices) / math.ceil(len(indices) / most))
        batches += [indices[start : start + size] for start in range(0, len(indices), size)]
    return batches
