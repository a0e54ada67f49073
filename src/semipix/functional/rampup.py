"""Ramp-up of the weights of unsupervised terms at the start of training."""

import math


def sigmoid_rampup(epoch: float, rampup_epochs: float) -> float:
    """A factor that grows from exp(-5) to 1: exp(-5 (1 - t)^2), with t = epoch / rampup_epochs.

    Laine and Aila, "Temporal Ensembling for Semi-Supervised Learning" (ICLR 2017). GCT's released code uses this curve,
    while its paper writes of a cosine.

    Args:
        epoch: fractional epoch, at least 0.
        rampup_epochs: length of the ramp-up in epochs; 0 means no ramp-up.

    Returns:
        A factor in (0, 1].
    """
    if rampup_epochs <= 0:
        return 1.0
    t = min(max(epoch / rampup_epochs, 0.0), 1.0)
    return math.exp(-5.0 * (1.0 - t) ** 2)
