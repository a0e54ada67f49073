"""Similarity of two images over their valid pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from semipix.functional.precision import at_least_float32

EXACT = 1e-10
"""Mean squared error of 100 dB, the largest PSNR: that of an exact image would be infinite, and so would means."""

WINDOW = 11
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
    best: Tensor = -10 * torch.log10(ratio.new_tensor(EXACT))
    return ratio.clamp(max=best)


def ssim(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Structural similarity of images (Wang et al., IEEE TIP 2004), the mean over the windows without ignored pixels.

    A window is 11x11 pixels, all of them inside the image: nothing is mirrored at the border.

    Args:
        prediction: (B, C, H, W) in [0, 1].
        target: (B, C, H, W) in [0, 1].
        valid: (B, 1, H, W) bool, False at ignored pixels.

    Returns:
        A scalar in [-1, 1]; NaN if there is no such window, as in images with a side below 11 pixels.
    """
    if min(target.shape[-2:]) < WINDOW:
        return prediction.new_tensor(torch.nan)
    known = F.max_pool2d((~valid).float(), WINDOW, stride=1) == 0  # (B, 1, H - 10, W - 10), by the window's centre
    if not known.any():
        return prediction.new_tensor(torch.nan)
    seen = at_least_float32(prediction)
    wanted = torch.where(valid, at_least_float32(target), seen)
    with torch.autocast(seen.device.type, enabled=False):  # variances are small differences
        _, maps = structural_similarity_index_measure(seen, wanted, data_range=1.0, return_full_image=True)
    inner = maps[..., WINDOW // 2 : -(WINDOW // 2), WINDOW // 2 : -(WINDOW // 2)]  # torchmetrics mirrors at borders
    found: Tensor = inner[known.expand_as(inner)].mean()
    return found
