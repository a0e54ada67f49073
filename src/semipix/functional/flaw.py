"""Flaw maps: their dense targets, their normalisation, and the exchange of predictions that they control.

Ke et al., "Guided Collaborative Training for Pixel-wise Semi-Supervised Learning" (ECCV 2020), Section 3 and
Appendix A. All maps are (B, C, H, W) of any H and W; no function changes an argument.
"""

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.precision import at_least_float32

Pair = tuple[Tensor, Tensor]

SILENT_MAXIMUM = 0.1
"""A flaw map whose maximum is at most this becomes 0 everywhere."""

FUSION_SOFTNESS = 0.1
"""Difference of two flaws at which the better prediction weighs e times as much."""


def _odd(size: int) -> int:
    """The next odd number, at least 1: a kernel size."""
    return max(1, size + 1 if size % 2 == 0 else size)


def _kernel(size: int) -> Tensor:
    """Gaussian weights (size,) whose sum is 1, with sigma = 0.3 ((size - 1) / 2 - 1) + 0.8, in double precision."""
    sigma = 0.3 * ((size - 1) * 0.5 - 1) + 0.8
    offset = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    weight = torch.exp(-(offset**2) / (2 * sigma**2))
    return weight / weight.sum()


@functools.lru_cache(maxsize=64)
def _blur_matrix(side: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A matrix (side, side) whose product with a line is the blurred line.

    At the borders the line is reflected without repeating its outermost value.
    """
    reach = torch.arange(size) - size // 2
    places = (torch.arange(side).unsqueeze(1) + reach).abs()  # (side, size)
    places = torch.minimum(places, 2 * (side - 1) - places).abs()
    matrix = torch.zeros(side, side, dtype=torch.float64)
    matrix.scatter_add_(1, places, _kernel(size).expand(side, size))
    return matrix.to(device, dtype, non_blocking=True)


def gaussian_blur(maps: Tensor, share: int) -> Tensor:
    """Blur maps (B, 1, H, W) with kernels of H / share by W / share pixels, reflecting at the borders.

    The kernel is separable, and each of its two passes is computed as a matrix product: the kernels are long, and
    hardware multiplies matrices faster than it convolves single channels with long kernels.
    """
    height, width = maps.shape[-2:]
    device = maps.device
    with torch.autocast(device.type, enabled=False):  # half precision is too coarse for comparing flaws
        rows = _blur_matrix(height, _odd(height // share), maps.dtype, device)
        columns = _blur_matrix(width, _odd(width // share), maps.dtype, device)
        return rows @ maps @ columns.T


def _dilate(maps: Tensor) -> Tensor:
    """The maximum over each pixel's 3x3 neighbourhood."""
    return F.max_pool2d(maps, kernel_size=3, stride=1, padding=1)


def _extrema(maps: Tensor) -> Pair:
    """Smallest and largest value of each map, (B, 1, 1, 1) twice."""
    return maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)


@torch.no_grad()
def flaw_target(prediction: Tensor, target: Tensor, *, mu: float, nu: int, valid: Tensor | None = None) -> Tensor:
    """The dense target of the flaw detector, made of a prediction's sparse error: pipeline C of Appendix A.

    The error is summed over channels, scaled by mu and blurred, then dilated and blurred nu times. At last each map is
    scaled to [0, 1].

    Args:
        prediction: activated prediction (B, C, H, W) in [0, 1].
        target: label in prediction space (B, C, H, W).
        mu: scale of the summed error.
        nu: how many times the error is dilated and blurred again.
        valid: (B, 1, H, W) bool, False at ignored pixels, which count as no error.

    Returns:
        (B, 1, H, W) in [0, 1], without gradient.

    Raises:
        ValueError: prediction and target differ in shape.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} differ in shape")
    error = (at_least_float32(prediction) - at_least_float32(target)).abs().sum(1, keepdim=True) * mu
    if valid is not None:
        error = error.masked_fill(~valid, 0.0)
    flaw = gaussian_blur(error, 8)
    for _ in range(nu):
        flaw = gaussian_blur(_dilate(flaw), 4)
    smallest, largest = _extrema(flaw)
    return (flaw - smallest) / (largest - smallest + 1e-9)


@torch.no_grad()
def normalize_flaw(flaw: Tensor, shown: Tensor | None = None) -> Tensor:
    """Smooth the detector's raw maps and scale each to [0, 1], so that the maps of two predictions can be compared.

    Args:
        flaw: raw flaw map (B, 1, H, W).
        shown: (B, 1, H, W) bool, the pixels at which the images show something. What the detector says of the others,
            where it is not trained, changes nothing. None if these are all.

    Returns:
        (B, 1, H, W) in [0, 1], without gradient; all 0 for a map whose maximum is at most 0.1, and 0 where nothing is
        shown.
    """
    raw = at_least_float32(flaw).clamp(min=0)
    if shown is None:
        smooth = gaussian_blur(raw, 16)
        smallest, largest = _extrema(smooth)
    else:
        # A mean over the shown pixels around each; the kernel's middle keeps the weight of a shown pixel above 0.
        weight = gaussian_blur(shown.to(raw), 16)
        smooth = (gaussian_blur(raw.masked_fill(~shown, 0.0), 16) / weight).masked_fill(~shown, 0.0)
        smallest = smooth.masked_fill(~shown, torch.inf).amin((1, 2, 3), keepdim=True)
        largest = smooth.amax((1, 2, 3), keepdim=True)
    scaled = (smooth - smallest) / (largest - smallest + 1e-9)
    if shown is not None:
        scaled = scaled.masked_fill(~shown, 0.0)
    return torch.where(largest > SILENT_MAXIMUM, scaled, torch.zeros_like(scaled))


def fuse(predictions: Pair, flaws: Pair, softness: float = FUSION_SOFTNESS) -> Tensor:
    """Fuse the predictions of a pair of models: a mean that gives more weight to the lower flaw at each pixel.

    Args:
        predictions: two maps (B, C, H, W) in [0, 1].
        flaws: two raw flaw maps (B, 1, H, W); values outside of [0, 1] are clamped.
        softness: difference of flaws at which the better prediction weighs e times as much.

    Returns:
        (B, C, H, W) in [0, 1], between the two predictions at each pixel.
    """
    first, second = (at_least_float32(flaw).clamp(0, 1) for flaw in flaws)
    first_weight = ((second - first) / softness).sigmoid()
    return first_weight * predictions[0] + (1 - first_weight) * predictions[1]


@torch.no_grad()
def directions(flaws: Pair, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Decide for each pixel which model learns from the other.

    Args:
        flaws: two normalised flaw maps (B, 1, H, W) in [0, 1].
        threshold: flaw above which a prediction is not used as a target (the paper's xi).

    Returns:
        first_learns: (B, 1, H, W) bool, the second model's flaw is lower and at most the threshold (Eq. 4).
        second_learns: (B, 1, H, W) bool, the same with the models exchanged.
        both_flawed: (B, 1, H, W) bool, both flaws exceed the threshold (Eq. 7).
    """
    first, second = flaws
    first_learns = (second < first) & (second <= threshold)
    second_learns = (first < second) & (first <= threshold)
    return first_learns, second_learns, (first > threshold) & (second > threshold)


@torch.no_grad()
def exchange(predictions: Pair, flaws: Pair, threshold: float) -> tuple[Pair, Tensor]:
    """Let each model learn a pixel from the other where the other's flaw is lower (Eq. 4 and 5).

    Args:
        predictions: two maps (B, C, H, W) in [0, 1].
        flaws: two normalised flaw maps (B, 1, H, W) in [0, 1].
        threshold: flaw above which a prediction is not used as a target (the paper's xi).

    Returns:
        goals: two maps (B, C, H, W) without gradient, the targets of the two models: the other model's prediction where
            its flaw is lower and at most the threshold, otherwise the model's own prediction.
        both_flawed: (B, 1, H, W) bool, pixels where both flaws exceed the threshold (Eq. 7).

    Raises:
        ValueError: the predictions differ in shape, or the flaw maps do.
    """
    first, second = predictions
    if first.shape != second.shape or flaws[0].shape != flaws[1].shape:
        raise ValueError(f"the pair differs in shape: {[tuple(map.shape) for map in (*predictions, *flaws)]}")
    first_learns, second_learns, both_flawed = directions(flaws, threshold)
    goals = torch.where(first_learns, second, first), torch.where(second_learns, first, second)
    return goals, both_flawed
