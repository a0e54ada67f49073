"""The perturbations of feature maps in cross-consistency training.

Ouali, Hudelot and Tami, "Semi-Supervised Semantic Segmentation with Cross-Consistency Training" (CVPR 2020), Section
3.3; the quoted names are the paper's. All maps are (N, C, h, w); no function changes an argument, and gradients reach
the features through all of them. Random numbers come from torch's global generators.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.precision import at_least_float32

Decode = Callable[[Tensor], Tensor]
"""Feature maps (N, C, h, w) to outputs (N, K, H, W) before activation."""

PROBE = 0.1
"""Length of the probing step of `adversarial_noise`. The paper's 1e-6 is too small for float32."""


def feature_noise(features: Tensor, strength: float = 0.3) -> Tensor:
    """Scale each activation by its own factor ("F-Noise": z * n + z with n uniform in [-strength, strength]).

    Args:
        features: maps (N, C, h, w).
        strength: largest change, as a share of the activation.

    Returns:
        Maps of the same shape.
    """
    return features * torch.empty_like(features).uniform_(-strength, strength) + features


def feature_drop(features: Tensor, low: float = 0.7, high: float = 0.9) -> Tensor:
    """Remove the most active region of each image ("F-Drop").

    A pixel's activity is the mean magnitude of its channels. For features after a ReLU this equals the paper's mean;
    for signed features the mean would not measure activity.

    Args:
        features: maps (N, C, h, w).
        low, high: range of the threshold, drawn for each image, as a share of the image's largest activity.

    Returns:
        Maps of the same shape, 0 where the activity reaches the threshold.
    """
    activity = features.detach().abs().mean(1, keepdim=True)  # (N, 1, h, w)
    threshold = torch.empty_like(activity[..., :1, :1]).uniform_(low, high) * activity.amax((2, 3), keepdim=True)
    return features * (activity < threshold)


def channel_dropout(features: Tensor, probability: float = 0.5) -> Tensor:
    """Remove whole channels, each with this probability, and scale up the others ("DropOut", spatial).

    Args:
        features: maps (N, C, h, w).
        probability: share of the channels to remove.

    Returns:
        Maps of the same shape.
    """
    return F.dropout2d(features, probability)


def adversarial_noise(features: Tensor, decode: Decode, length: float = 2.0) -> Tensor:
    """Shift features in the direction that changes the decoder's prediction most ("I-VAT"; Miyato et al., PAMI 2018).

    One power iteration: the direction is the gradient of the KL divergence at a small random step. It is computed in
    float32 also under autocast, since half precision is too coarse for the small step. No parameter gets a gradient.

    Args:
        features: maps (N, C, h, w).
        decode: the decoder; its outputs are logits of classes.
        length: Euclidean length of the shift of each image's features.

    Returns:
        Maps of the same shape; the shift is a constant for gradients.
    """
    start = at_least_float32(features.detach())
    step = _unit(torch.rand_like(start) - 0.5).requires_grad_()
    with torch.enable_grad(), torch.autocast(features.device.type, enabled=False):
        with torch.no_grad():
            before = at_least_float32(decode(start)).log_softmax(1)
        after = at_least_float32(decode(start + PROBE * step)).log_softmax(1)
        change = F.kl_div(after, before, reduction="sum", log_target=True)
        (direction,) = torch.autograd.grad(change, step)
    return features + (length * _unit(direction)).to(features.dtype)


def mask_objects(features: Tensor, foreground: Tensor) -> Tensor:
    """Remove the features of objects, so that only their context remains ("Obj-Msk").

    Args:
        features: maps (N, C, h, w).
        foreground: (N, 1, H, W) bool, True where an object is predicted.

    Returns:
        Maps of the same shape.
    """
    return features * ~_resized(foreground, features)


def mask_context(features: Tensor, foreground: Tensor) -> Tensor:
    """Remove the features outside of objects, so that their context is missing ("Con-Msk").

    Args:
        features: maps (N, C, h, w).
        foreground: (N, 1, H, W) bool, True where an object is predicted.

    Returns:
        Maps of the same shape.
    """
    return features * _resized(foreground, features)


def _resized(mask: Tensor, features: Tensor) -> Tensor:
    """The mask's value at the centre of each feature, (N, 1, h, w) bool."""
    return F.interpolate(mask.to(features.dtype), features.shape[-2:], mode="nearest-exact") > 0


def _unit(maps: Tensor) -> Tensor:
    """Each image's maps scaled to Euclidean length 1; maps of zeros are not changed."""
    length: Tensor = torch.linalg.vector_norm(maps, dim=(1, 2, 3), keepdim=True)
    return maps / length.clamp(min=torch.finfo(maps.dtype).tiny)
