"""Conformal risk control: which pixels to accept, so that few of the accepted ones are wrong on new images.

Angelopoulos, Bates, Fisch, Lei and Schuster, "Conformal Risk Control" (ICLR 2024). The loss of an image at a threshold
is the mean error of its pixels whose error map is at most the threshold. This loss is not monotone, so that it is
replaced by its maximum over all smaller thresholds, which is.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


class Accepted(NamedTuple):
    """Which pixels are accepted.

    Attributes:
        threshold: largest value of the error map that is accepted; below 0 where no pixel is.
        guaranteed: whether the expected risk on new images is at most the asked one.
        needed: images with which a guarantee is possible at all.
    """

    threshold: float
    guaranteed: bool
    needed: int


def monotone_losses(estimates: Vector, errors: Vector, thresholds: Vector) -> Vector:
    """The loss of one image at each threshold: mean error of the accepted pixels, 0 where none is, made monotone.

    Args:
        estimates: error map of some pixels of the image, (P,).
        errors: their true errors in [0, 1], (P,).
        thresholds: ascending, (T,).
    """
    order = np.argsort(estimates, kind="stable")
    sums = np.concatenate([[0.0], np.cumsum(errors[order])])
    # the means after each pixel at which the next one's estimate is greater: the thresholds between those of the grid
    counts = np.arange(1, len(order) + 1)
    means = sums[1:] / counts
    whole = np.append(np.diff(estimates[order]) > 0, True)
    highest = np.concatenate([[0.0], np.maximum.accumulate(np.where(whole, means, 0.0))])
    return np.asarray(highest[np.searchsorted(estimates[order], thresholds, side="right")])


def accept(thresholds: Sequence[float], losses: Sequence[Sequence[float]], risk: float) -> Accepted:
    """The largest threshold at which the risk of a new image is at most the asked one.

    With n images the mean loss L is accepted where n / (n + 1) L + 1 / (n + 1) <= risk. If even a loss of 0 is not,
    there are too few images for a guarantee, and the mean loss itself is compared with the risk.

    Args:
        thresholds: ascending.
        losses: for each image its monotone loss at each threshold, in [0, 1].
        risk: largest mean error of the accepted pixels, in (0, 1).
    """
    images = len(losses)
    needed = math.ceil(1 / risk - 1 - 1e-9)
    means = np.mean(np.asarray(losses, np.float64), axis=0)
    guaranteed = images >= needed
    bounds = (images * means + 1) / (images + 1) if guaranteed else means
    fitting = np.flatnonzero(bounds <= risk + 1e-12)
    return Accepted(float(thresholds[fitting[-1]]) if len(fitting) else -1.0, guaranteed, needed)
