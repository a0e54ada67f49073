"""Weights of pseudo labels by the error that is expected of them."""

from torch import Tensor

from semipix.functional.precision import at_least_float32


def error_weight(first: Tensor, second: Tensor, scale: float) -> Tensor:
    """Weight pixels by how far two predictions of the same image agree: exp(-|p1 - p2| / scale).

    In regression a prediction says nothing about its own error; where two predictions differ, at least one is wrong.
    MaskingDepth (Baek et al., IROS 2024) weights pseudo labels by exp(-u) with an uncertainty u that a network learns;
    here the difference takes the place of u.

    Args:
        first: predictions (N, K, H, W) in [0, 1].
        second: other predictions of the same images, of the same shape.
        scale: difference, a mean over channels, at which the weight is 1/e; above 0.

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    difference = (at_least_float32(first) - at_least_float32(second)).abs().mean(1, keepdim=True)
    return (-difference / scale).exp()
