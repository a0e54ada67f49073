"""Cues of an error: maps of a prediction whose values differ between right and wrong pixels.

An error map is a function of a weighted sum of cues, of their means around the pixel and of their means over the image
(see `semipix.training.calibration`). To add a cue, add it to `probability_cues` or `value_cues`, and raise `VERSION`.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.precision import at_least_float32

VERSION = 1
"""Raised when a cue is added, removed or computed in another way, since older calibrations are wrong then."""

WINDOWS = (5, 17, 49)
"""Sides, in pixels of the network's output, of the windows over which each cue is averaged."""

OF_IMAGE = ("softmax", "entropy", "disagreement", "flaw", "difference", "change", "gradient")
"""Cues whose means over the image are used too."""

ASCENDING = (
    *("softmax", "doubt", "margin", "entropy", "other", "mean", "disagreement", "other_label"),
    *("difference", "flaw", "flaw_logit"),
)
"""Cues that are higher the less sure a network is, or the more a pair differs: they can only speak for an error."""

SMALLEST_PROBABILITY = 1e-6
"""Probabilities are moved this far away from 0 and 1 before their logit is taken."""

SMALLEST_FLAW = 1e-3
"""The same for flaw maps."""

SMALLEST_DIFFERENCE = 1e-3
"""Added to differences, as shares of the range, before their logarithm is taken."""


def probability_cues(predictions: Sequence[Tensor], flaw: Tensor | None) -> dict[str, Tensor]:
    """Cues of a classification of pixels.

    Args:
        predictions: probabilities (N, K, H, W), those whose errors are asked for first. Of several, the last two are
            those of two networks, which are compared with each other.
        flaw: the detector's map (N, 1, h, w) in [0, 1] of the first, or None.

    Returns:
        Maps (N, 1, H, W) by name.
    """
    prediction = at_least_float32(predictions[0])
    classes = prediction.shape[1]
    (largest, second), labels = _two_largest(prediction)
    share = prediction.clamp(min=1e-12)
    cues = {
        "softmax": _logit(1 - largest),
        "doubt": 1 - largest,
        "margin": (second.clamp(min=SMALLEST_PROBABILITY) / largest).log(),
        "entropy": -(share * share.log()).sum(1, keepdim=True) / math.log(classes),
    }
    if len(predictions) > 1:
        first, other = (at_least_float32(each) for each in predictions[-2:])
        elsewhere = other if len(predictions) == 2 else torch.minimum(first, other)
        mean = (first + other) / 2
        cues |= {
            "other": _logit(1 - elsewhere.gather(1, labels)),
            "mean": _logit(1 - mean.gather(1, labels)),
            "disagreement": 1 - (first * other).sum(1, keepdim=True),
            "other_label": (first.max(1).indices != other.max(1).indices).unsqueeze(1).to(mean),
        }
    return cues | _flaw_cues(flaw, prediction)


def pair_cues(own: Tensor, other: Tensor) -> Tensor:
    """The cues of a pair of classifications that say most, for networks that read them in every training step.

    Args:
        own: probabilities (N, K, H, W) whose errors are asked for.
        other: those of another network.

    Returns:
        (N, 4, H, W): logits of the probabilities that the own label is wrong by the own prediction, by the other one
        (the mean over the classes that share the largest own probability) and by their mean, and of the probability
        that labels drawn from both differ.
    """
    own, other = at_least_float32(own).contiguous(), at_least_float32(other).contiguous()
    largest = own.amax(1, keepdim=True)  # without the label, whose search takes far longer
    chosen = own.detach() == largest.detach()
    elsewhere = (other * chosen).sum(1, keepdim=True) / chosen.sum(1, keepdim=True)
    agreement = (own * other).sum(1, keepdim=True)
    return _logit(1 - torch.cat([largest, elsewhere, (largest + elsewhere) / 2, agreement], dim=1))


def value_cues(predictions: Sequence[Tensor], flaw: Tensor | None, image: Tensor) -> dict[str, Tensor]:
    """Cues of a regression of pixels.

    Args:
        predictions: values (N, K, H, W) in [0, 1], those whose errors are asked for first. Of several, the last two are
            those of two networks, which are compared with each other.
        flaw: the detector's map (N, 1, h, w) in [0, 1] of the first, or None.
        image: the network's input (N, C, h, w) in [0, 1].

    Returns:
        Maps (N, 1, H, W) by name.
    """
    prediction = at_least_float32(predictions[0])
    cues = {"gradient": _log(_gradient(prediction)), "brightness": prediction.mean(1, keepdim=True)}
    if len(predictions) > 1:
        first, other = (at_least_float32(each) for each in predictions[-2:])
        cues["difference"] = _log((first - other).abs().mean(1, keepdim=True))
    if image.shape[1] == prediction.shape[1]:
        seen = _resized(at_least_float32(image), prediction)
        cues["change"] = _log((prediction - seen).abs().mean(1, keepdim=True))
        cues["detail"] = _log(_gradient(seen))
    return cues | _flaw_cues(flaw, prediction)


def local_mean(maps: Tensor, window: int) -> Tensor:
    """Means (N, C, H, W) over the part of a square window around each pixel that is inside of the maps.

    Args:
        maps: (N, C, H, W).
        window: side of the window, odd.
    """
    return _mean_along(_mean_along(maps, window, -1), window, -2).to(maps.dtype)


def feature_names(cues: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of all features of these cues: those that vary from pixel to pixel, and those of the image."""
    pixel = [*cues, *(f"{name}@{window}" for window in WINDOWS for name in cues)]
    return pixel, [f"{name}@image" for name in cues if name in OF_IMAGE]


def is_ascending(feature: str) -> bool:
    """Whether a feature, a cue or a mean of one, can only speak for an error."""
    return feature.partition("@")[0] in ASCENDING


def weighted_sum(cues: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """The sum (N, 1, H, W) of the pixels' features, each multiplied by its weight; 0 for features without one.

    Sums and means can be exchanged, so that there is one mean for each window and not one for each cue.
    """
    total: Tensor | None = None
    for window in (None, *WINDOWS):
        part: Tensor | None = None
        for name, values in cues.items():
            weight = weights.get(name if window is None else f"{name}@{window}", 0.0)
            if weight:
                part = values * weight if part is None else part.add(values, alpha=weight)
        if part is not None:
            part = part if window is None else local_mean(part, window)
            total = part if total is None else total + part
    return torch.zeros_like(next(iter(cues.values()))) if total is None else total


def _two_largest(prediction: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """The two largest values (N, 1, H, W) over the classes, and the class of the first (N, 1, H, W)."""
    largest, labels = prediction.max(1, keepdim=True)  # much faster than torch.topk
    second = prediction.scatter(1, labels, -1.0).amax(1, keepdim=True)
    return (largest, second), labels


def _flaw_cues(flaw: Tensor | None, prediction: Tensor) -> dict[str, Tensor]:
    if flaw is None:
        return {}
    flaw = _resized(at_least_float32(flaw), prediction).clamp(0, 1)
    return {"flaw": flaw, "flaw_logit": flaw.clamp(SMALLEST_FLAW, 1 - SMALLEST_FLAW).logit()}


def _logit(probability: Tensor) -> Tensor:
    return probability.logit(SMALLEST_PROBABILITY)


def _log(difference: Tensor) -> Tensor:
    return (difference + SMALLEST_DIFFERENCE).log()


def _gradient(maps: Tensor) -> Tensor:
    """Mean over channels of the absolute differences to the pixels below and to the right, (N, 1, H, W)."""
    padded = F.pad(maps, (0, 1, 0, 1), mode="replicate")
    down, right = padded[..., 1:, :-1] - maps, padded[..., :-1, 1:] - maps
    return (down.abs() + right.abs()).mean(1, keepdim=True)


def _resized(maps: Tensor, like: Tensor) -> Tensor:
    if maps.shape[-2:] == like.shape[-2:]:
        return maps
    return F.interpolate(maps, like.shape[-2:], mode="bilinear")


def _mean_along(maps: Tensor, window: int, dim: int) -> Tensor:
    """Means along one dimension, by differences of cumulative sums, which take the same time for any window."""
    length, reach = maps.shape[dim], window // 2
    exact = torch.float32 if maps.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
    sums = F.pad(maps.cumsum(dim, dtype=exact).movedim(dim, -1), (1, 0))
    places = torch.arange(length, device=maps.device)
    low, high = (places - reach).clamp(min=0), (places + reach + 1).clamp(max=length)
    return ((sums[..., high] - sums[..., low]) / (high - low)).movedim(-1, dim)
