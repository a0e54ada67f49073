"""Weights of pseudo labels by the error that is expected of them."""

from torch import Tensor


def error_weight(disagreement: Tensor, scale: float) -> Tensor:
    """Weight pixels by how far two predictions of the same image agree: exp(-disagreement / scale).

    In regression a prediction says nothing about its own error; where two predictions differ, at least one is wrong.
    MaskingDepth (Baek et al., IROS 2024) weights pseudo labels by exp(-u) with an uncertainty u that a network learns;
    here the disagreement takes the place of u.

    Args:
        disagreement: of two predictions, (N, 1, H, W) in [0, 1], see `Task.disagreement`.
        scale: disagreement at which the weight is 1/e; above 0.

    Returns:
        (N, 1, H, W) in [0, 1].
    """
    return (-disagreement / scale).exp()
