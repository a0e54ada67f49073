"""Thresholds of pseudo labels that differ between classes."""

import torch
from torch import Tensor


@torch.no_grad()
def class_confidence(average: Tensor, prediction: Tensor, decay: float = 0.9, counted: Tensor | None = None) -> Tensor:
    """The running mean of the confidence with which each class is predicted.

    Args:
        average: the mean so far, (K,); 0 for a class that was not predicted yet. It is not changed.
        prediction: distributions over classes (N, K, H, W).
        decay: weight of the old mean, in [0, 1]; the first value of a class is taken as it is.
        counted: (N, 1, H, W) bool: the pixels that count; None for all.

    Returns:
        The new mean, (K,). Classes that are not predicted here keep theirs.
    """
    confidence, label = prediction.float().max(1)  # (N, H, W) each
    label, confidence = label.flatten(), confidence.flatten().double()  # sums in float32 end to grow at 2^24 pixels
    weight = torch.ones_like(confidence) if counted is None else counted.flatten().to(confidence)
    zeros = torch.zeros_like(average, dtype=torch.float64)
    count = zeros.index_add(0, label, weight)
    mean = (zeros.index_add(0, label, weight * confidence) / count.clamp(min=1)).to(average)
    moved = torch.where(average > 0, average.lerp(mean, 1 - decay), mean)
    return torch.where(count > 0, moved, average)


def class_thresholds(average: Tensor, threshold: float | Tensor) -> Tensor:
    """Lower a threshold for the classes that a network is less sure of.

    The threshold of a class is scaled by its mean confidence in comparison with that of the class with the highest one,
    as in FreeMatch (Wang et al., ICLR 2023). FreeMatch takes the mean probability of a class over all samples instead,
    and FlexMatch (Zhang et al., NeurIPS 2021) the number of its sure samples. Both are small for a class of few pixels
    also if the network is sure of them, and would then accept nearly every pixel as a label of a rare class.

    Args:
        average: mean confidence of each class, (K,), from `class_confidence`; a class with 0 keeps the threshold.
        threshold: of the surest class, in [0, 1], or above 1 where nothing is sure enough.

    Returns:
        The threshold of each class, (K,).
    """
    known = average > 0
    scaled = threshold * average / average.max().clamp(min=1e-6)
    return torch.where(known, scaled, threshold * torch.ones_like(average))
