"""PSNR and SSIM of images, over their valid pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from semipix.functional.precision import at_least_float32

LARGEST_PSNR = 100.0
"""Limit in dB; the PSNR of equal images would be infinite, and so would be a mean with it."""

SSIM_WINDOW = 11
"""Side in pixels of SSIM's Gaussian window, whose sigma is 1.5."""


def psnr(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Peak signal-to-noise ratio over the valid pixels of all images together.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, 1, H, W) bool, False at ignored pixels.

    Returns:
        A scalar in dB, at most 100; NaN if no pixel is valid.
    """
    known = valid.expand_as(target)
    if not valid.any():
        return prediction.new_tensor(torch.nan)
    ratio: Tensor = peak_signal_noise_ratio(
        at_least_float32(prediction)[known], at_least_float32(target)[known], data_range=1.0
    )
    return ratio.clamp(max=LARGEST_PSNR)


def ssim(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004), averaged over the windows that contain no ignored pixel.

    A window has 11x11 pixels, all inside the image; there is no padding at the border.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, 1, H, W) bool, False at ignored pixels.

    Returns:
        A scalar in [-1, 1]; NaN if there is no such window, for example in images with a side below 11 pixels.
    """
    if min(target.shape[-2:]) < SSIM_WINDOW:
        return prediction.new_tensor(torch.nan)
    known = F.max_pool2d((~valid).float(), SSIM_WINDOW, stride=1) == 0  # (B, 1, H - 10, W - 10), at windows' centres
    if not known.any():
        return prediction.new_tensor(torch.nan)
    predicted = at_least_float32(prediction)
    wanted = torch.where(valid, at_least_float32(target), predicted)
    with torch.autocast(predicted.device.type, enabled=False):  # half precision is too coarse for variances
        _, maps = structural_similarity_index_measure(predicted, wanted, data_range=1.0, return_full_image=True)
    border = SSIM_WINDOW // 2  # torchmetrics pads the image by reflection, which changes the values there
    inner = maps[..., border:-border, border:-border]
    mean: Tensor = inner[known.expand_as(inner)].mean()
    return mean
