"""Errors of an alpha matte over the unknown region of its trimap.

Rhemann, Rother, Wang, Gelautz, Kohli and Rott, "A Perceptually Motivated Online Benchmark for Image Matting" (CVPR
2009). All maps are (H, W); values are in [0, 1]; `unknown` is bool. Sums are in thousands, as they are published.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.precision import at_least_float32

SIGMA = 1.4
"""Standard deviation in pixels of the Gaussian whose derivatives give the gradient."""

RADIUS = 4
"""Pixels on each side of that Gaussian's centre; beyond them it is below a hundredth of its maximum at the centre."""

THRESHOLDS = 10
"""Number of thresholds of the connected regions: 0.1, 0.2 ... 1."""

CONNECTIVITY_TOLERANCE = 0.15
"""Smaller distances of alpha from the pixel's level count as 0 (the paper's theta)."""


def sum_of_absolute_differences(prediction: Tensor, alpha: Tensor, unknown: Tensor) -> Tensor:
    """SAD in thousands, a scalar."""
    return (at_least_float32(prediction) - at_least_float32(alpha)).abs()[unknown].sum() / 1000


def mean_squared_error(prediction: Tensor, alpha: Tensor, unknown: Tensor) -> Tensor:
    """MSE over the unknown region, a scalar; NaN if the region is empty."""
    return (at_least_float32(prediction) - at_least_float32(alpha)).square()[unknown].mean()


def gradient_error(prediction: Tensor, alpha: Tensor, unknown: Tensor) -> Tensor:
    """Sum of squared differences of the gradients' magnitudes, in thousands, a scalar."""
    difference = gradient_magnitude(prediction) - gradient_magnitude(alpha)
    return difference.square()[unknown].sum() / 1000


def gradient_magnitude(alpha: Tensor) -> Tensor:
    """Magnitude (H, W) of a matte's first Gaussian derivatives; their kernels have Euclidean length 1."""
    maps = at_least_float32(alpha)
    offset = torch.arange(-RADIUS, RADIUS + 1, device=maps.device, dtype=maps.dtype)
    smooth = torch.exp(-(offset**2) / (2 * SIGMA**2))
    slope = -offset * smooth
    smooth, slope = smooth / smooth.norm(), slope / slope.norm()
    padded = F.pad(maps[None, None], (RADIUS,) * 4, mode="replicate")
    with torch.autocast(maps.device.type, enabled=False):
        down = F.conv2d(F.conv2d(padded, slope.view(1, 1, -1, 1)), smooth.view(1, 1, 1, -1))
        across = F.conv2d(F.conv2d(padded, smooth.view(1, 1, -1, 1)), slope.view(1, 1, 1, -1))
    return torch.hypot(down, across)[0, 0]


def connectivity_error(prediction: Tensor, alpha: Tensor, unknown: Tensor) -> Tensor:
    """Sum of absolute differences of the pixels' degrees of connectedness, in thousands, a scalar.

    For each threshold, the region is the largest connected set of pixels at which both mattes reach the threshold. A
    pixel's level is the last threshold up to which it was in the region each time. Its degree of connectedness is 1
    minus the distance of its alpha from the level; distances below 0.15 count as 0.
    """
    prediction, alpha = at_least_float32(prediction), at_least_float32(alpha)
    level = torch.zeros_like(alpha)
    inside = torch.ones_like(unknown)
    for step in range(1, THRESHOLDS + 1):
        threshold = step / THRESHOLDS
        inside = inside & largest_region((prediction >= threshold) & (alpha >= threshold))
        level = torch.where(inside, threshold, level)
    degrees = []
    for matte in (prediction, alpha):
        distance = matte - level
        degrees.append(1 - torch.where(distance >= CONNECTIVITY_TOLERANCE, distance, 0.0))
    return (degrees[0] - degrees[1]).abs()[unknown].sum() / 1000


def largest_region(active: Tensor) -> Tensor:
    """The largest region of active pixels that are connected by their sides, (H, W) bool.

    Of several equally large regions it is the first.

    Runs of active pixels in a row are merged with the runs that they touch in the next row, until nothing changes.

    Args:
        active: (H, W) bool.
    """
    if not active.any():
        return active.clone()
    starts = active.clone()
    starts[:, 1:] &= ~active[:, :-1]
    runs = (starts.flatten().cumsum(0) - 1).view_as(active)  # index of the run; defined only at active pixels
    touching = active[1:] & active[:-1]
    first = touching.clone()
    first[:, 1:] &= ~touching[:, :-1]  # one pixel for each pair of runs that touch
    above, below = runs[:-1][first], runs[1:][first]
    region = _merge(above, below, int(starts.sum()))[runs.clamp(min=0)]  # (H, W)
    sizes = region[active].bincount()
    return active & (region == sizes.argmax())


def _merge(first: Tensor, second: Tensor, count: int) -> Tensor:
    """The smallest index that each of `count` nodes is connected to by the edges first[i] - second[i]."""
    roots = torch.arange(count, device=first.device)
    while True:
        ends = roots[first], roots[second]
        merged = roots.scatter_reduce(0, torch.maximum(*ends), torch.minimum(*ends), "amin")
        for _ in range(max(1, math.ceil(math.log2(max(2, count))))):
            merged = merged[merged]
        if torch.equal(merged, roots):
            return roots
        roots = merged
