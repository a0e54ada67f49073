"""Labels with errors, from which a flaw detector can learn what errors look like."""

import torch
from torch import Tensor

from semipix.functional.cues import local_mean
from semipix.functional.mixing import cutmix_mask

AREA = (0.05, 0.4)
"""Smallest and largest share of an image in which a label is wrong."""

SHIFT = 0.125
"""Largest distance by which a label is shifted, as a share of the image's sides."""

WINDOWS = (1, 5, 9)
"""Sides of the windows over which a label is averaged, since predictions are not as sharp as labels; in pixels."""


def corrupted_labels(labels: Tensor, chosen: Tensor) -> Tensor:
    """Labels that are shifted a little, have a box of their own mirror image, and are blurred.

    All random numbers are drawn from torch's global generator on the CPU.

    Args:
        labels: in prediction space, (N, K, H, W) in [0, 1].
        chosen: (N,) bool on the CPU, the images whose labels are corrupted.

    Returns:
        Maps of the same shape and range; the channels of a distribution still add up to 1.
    """
    found = labels.clone()
    height, width = labels.shape[-2:]
    for index in chosen.nonzero().flatten().tolist():
        label = labels[index : index + 1]
        rows, columns = ((2 * torch.rand(2) - 1) * SHIFT).tolist()
        shifted = _shifted(label, round(rows * height), round(columns * width))
        box = cutmix_mask(label, AREA)
        window = WINDOWS[int(torch.randint(len(WINDOWS), ()))]
        found[index] = local_mean(torch.where(box, shifted.flip(-1), shifted), window)[0]
    return found


def _shifted(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Maps (1, K, H, W) moved down and to the right; the first row and column are repeated."""
    height, width = maps.shape[-2:]
    down = (torch.arange(height, device=maps.device) - rows).clamp(0, height - 1)
    right = (torch.arange(width, device=maps.device) - columns).clamp(0, width - 1)
    return maps[:, :, down][:, :, :, right]
