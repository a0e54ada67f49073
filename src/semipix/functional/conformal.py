"""Conformal risk control: which pixels to accept, so that few of the accepted ones are wrong on new images.

Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control" (ICLR 2024). The loss of an image at a threshold
is the mean error of its accepted pixels, those whose error map is at most the threshold. This loss is not monotone, so
that it is replaced by its maximum over all smaller thresholds, which is.

At small thresholds a few pixels of an image are accepted, and if one of them is wrong, the maximum stays high at all
greater thresholds. So the sum of errors is divided by at least a tenth of the image's pixels (`LEAST`): of an image of
which less is accepted, the loss is smaller than the mean error of the accepted pixels.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


LEAST = 0.1
"""Share of an image's pixels by which its sum of errors is divided, if fewer are accepted."""


TOLERANCE = 1e-9
"""By which numbers may differ that are equal but for rounding."""


class Accepted(NamedTuple):
    """Which pixels are accepted.

    Attributes:
        threshold: largest value of the error map that is accepted; below 0 where no pixel is.
        guaranteed: whether the expected risk on new images is at most the asked one.
        needed: images of the same losses with which there is a guarantee for some pixels; None if no number suffices,
            since the pixels with the lowest values are not right often enough.
    """

    threshold: float
    guaranteed: bool
    needed: int | None


def monotone_losses(estimates: Vector, errors: Vector, thresholds: Vector) -> Vector:
    """The monotone loss of one image at each threshold, see above; 0 where no pixel is accepted.

    Args:
        estimates: error map of some pixels of the image, (P,).
        errors: their true errors in [0, 1], (P,).
        thresholds: ascending, (T,).
    """
    order = np.argsort(estimates, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(errors[order])])
    means = sums[1:] / np.maximum(np.arange(1, len(order) + 1), LEAST * len(order))
    # Only where the next pixel's estimate is greater there is a threshold between them.
    whole = np.append(np.diff(estimates[order]) > 0, True)
    highest = np.concatenate([[0.0], np.maximum.accumulate(np.where(whole, means, 0.0))])
    return np.asarray(highest[np.searchsorted(estimates[order], thresholds, side="right")])


def accept(thresholds: Sequence[float], losses: Sequence[Sequence[float]], risk: float) -> Accepted:
    """The largest threshold at which the risk of a new image is at most the asked one.

    With n images the mean loss L is accepted where n / (n + 1) L + 1 / (n + 1) <= risk. If it is nowhere, there are too
    few images for a guarantee, and the threshold is that of the smallest risk that n images can guarantee: the largest
    at which L is what it is at the first. So who asks for less risk never gets more pixels.

    Args:
        thresholds: ascending.
        losses: for each image its monotone loss at each threshold, in [0, 1].
        risk: largest mean error of the accepted pixels, in (0, 1).
    """
    images = len(losses)
    means = np.mean(np.asarray(losses, np.float64), axis=0)
    room = risk - float(means[0])
    if room <= TOLERANCE:
        return Accepted(-1.0, False, None)
    needed = math.ceil((1 - risk) / room - TOLERANCE)
    guaranteed = images >= needed
    bounds = (images * means + 1) / (images + 1)
    fitting = bounds <= (risk if guaranteed else bounds[0]) + TOLERANCE
    return Accepted(float(thresholds[np.flatnonzero(fitting)[-1]]), guaranteed, needed)
