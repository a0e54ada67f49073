"""The metric as a function of the number of labels: what a value is worth in labels, and what more labels would bring.

A learning curve is a - b n^-c over n labels. With few points its three parameters cannot be told apart. So c is one of
`EXPONENTS`, a and b are fitted by least squares, and c counts by how well its curve fits.
"""

import math
from collections.abc import Sequence

import numpy as np

from semipix.functional.bootstrap import Floats

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Values of c: from 0, which stands for a + b log n that never ends to rise, to 1, which flattens soon."""

FEWEST = 3
"""Numbers of labels from which something is said about others."""


def labels_needed(labels: Sequence[int], curve: Floats, value: Floats) -> Floats:
    """The number of labels at which a curve first reaches a value, straight between its points over log n.

    Args:
        labels: G numbers of labels, increasing.
        curve: (..., G) the metric at each; larger is better.
        value: (...) that has to be reached.

    Returns:
        Numbers (...): 0 where the curve begins at or above the value, infinity where it never reaches it.
    """
    found = np.full(np.shape(value), math.inf)
    reached = curve >= np.asarray(value)[..., None]
    for index in range(len(labels) - 1, 0, -1):  # an earlier crossing replaces a later one
        low, high = curve[..., index - 1], curve[..., index]
        rise = np.where(high > low, high - low, 1.0)
        share = np.clip((value - low) / rise, 0, 1)
        at = np.exp((1 - share) * math.log(labels[index - 1]) + share * math.log(labels[index]))
        found = np.where(reached[..., index] & ~reached[..., index - 1], at, found)
    return np.where(reached[..., 0], 0.0, found)


def extrapolate(
    labels: Sequence[int], estimates: Floats, drawn: Floats, points: Sequence[float], *, seed: int = 0
) -> tuple[Floats, Floats]:
    """The fitted learning curve at other numbers of labels.

    Args:
        labels: G numbers of labels, at least 2 different ones.
        estimates: (G,) the metric at each.
        drawn: (B, G) draws of it, see `semipix.functional.bootstrap.draw_means`.
        points: P numbers of labels.
        seed: of the exponents that are drawn.

    Returns:
        The curve (P,), averaged over the exponents, and its draws (B, P), each of a drawn exponent.

    Raises:
        ValueError: there are fewer than 2 different numbers of labels.
    """
    if len(set(labels)) < 2:
        raise ValueError(f"{len(set(labels))} numbers of labels found, at least 2 expected")
    variance = np.nanvar(drawn, axis=0)
    precision = 1 / np.sqrt(variance) if (variance > 0).all() else np.ones(len(labels))
    fits, misfits = [], []
    for exponent in EXPONENTS:
        design = _design(labels, exponent)
        solve = np.linalg.pinv(design * precision[:, None]) * precision  # (2, G)
        fits.append(_design(points, exponent) @ solve)  # (P, G)
        misfits.append(float((((estimates - design @ solve @ estimates) * precision) ** 2).sum()))
    likelihoods = np.exp(-(np.array(misfits) - min(misfits)) / 2)
    shares = likelihoods / likelihoods.sum()
    chosen = np.random.default_rng(seed).choice(len(EXPONENTS), size=len(drawn), p=shares)
    curves = np.einsum("bpg,bg->bp", np.stack(fits)[chosen], drawn)
    return np.einsum("c,cpg,g->p", shares, np.stack(fits), estimates), curves


def _design(labels: Sequence[float], exponent: float) -> Floats:
    """The two columns (G, 2) whose weighted sum is the curve."""
    counts = np.asarray(labels, dtype=float)
    return np.stack([np.ones_like(counts), np.log(counts) if exponent == 0 else -(counts**-exponent)], 1)
