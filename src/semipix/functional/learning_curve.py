"""The metric as a function of the number of labels: what a value is worth in labels, and what more labels would bring.

A learning curve is a - b n^-c over n labels, or a - b exp(-n / tau), which levels off sooner (pow3 and exp3 in Viering
and Loog, "The Shape of Learning Curves: a Review", IEEE TPAMI 2023). With few points three parameters cannot be told
apart. So c and tau are some fixed values, a and b are fitted by least squares, and each curve that the points do not
contradict counts: an interval is the union of theirs. Where the last two points do not differ measurably, a curve that
is level from there on counts too.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from semipix.functional.bootstrap import ANY, LEVEL, Floats, Interval, Range, interval

EXPONENTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Values of c; 0 stands for a + b log n, which never ends to rise."""

SCALES = (0.15, 0.2, 0.3, 0.5, 1.0)
"""Values of tau, as shares of the largest number of labels."""

FEWEST = 3
"""Numbers of labels from which something is said about others."""

ROUNDING = 1e-18
"""Squared misfit of a label count that is only rounding."""


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


class Extrapolation(NamedTuple):
    """Fitted learning curves at some numbers of labels.

    Attributes:
        estimates: (P,) their mean, weighted by how well they fit; NaN where no curve fits.
        drawn: (E, B, P) draws of each of the E curves that fit.
    """

    estimates: Floats
    drawn: Floats

    @property
    def fits(self) -> bool:
        """Whether there is a curve that the points do not contradict."""
        return len(self.drawn) > 0

    def interval_of(self, weights: Sequence[float] | Floats, within: Range = ANY) -> Interval:
        """The interval of a weighted sum of the P points, such as their difference: the union over the curves."""
        combined = np.asarray(weights, dtype=float)
        estimate = float(self.estimates @ combined)
        each = [interval(estimate, drawn @ combined, within=within) for drawn in self.drawn]
        if not each:
            return Interval(math.nan, math.nan, math.nan)
        return Interval(estimate, min(found.low for found in each), max(found.high for found in each))


def extrapolate(
    labels: Sequence[int], estimates: Floats, drawn: Floats, points: Sequence[float], *, within: Range = ANY
) -> Extrapolation:
    """The fitted learning curves at other numbers of labels.

    A curve fits if its distance from the estimates is none that draws seldom have: not above the quantile `LEVEL` of
    the distances that the draws' deviations from the estimates have from curves of this kind.

    Args:
        labels: G numbers of labels, at least 2 different ones.
        estimates: (G,) the metric at each.
        drawn: (B, G) draws of it, see `semipix.functional.bootstrap.draw_means`.
        points: P numbers of labels.
        within: the values that the metric can have; curves end there.

    Raises:
        ValueError: there are fewer than 2 different numbers of labels.
    """
    if len(set(labels)) < 2:
        raise ValueError(f"{len(set(labels))} numbers of labels found, at least 2 expected")
    variance = drawn.var(axis=0) if len(drawn) else np.zeros(len(labels))
    precision = 1 / np.sqrt(variance) if (variance > 0).all() else np.ones(len(labels))
    curves, misfits = [], []
    for before, after in zip(_designs(labels, labels[-1]), _designs(points, labels[-1]), strict=True):
        solve = np.linalg.pinv(before * precision[:, None]) * precision  # (2, G)
        residual = (np.eye(len(labels)) - before @ solve) * precision[:, None]  # (G, G)
        misfit = float(((residual @ estimates) ** 2).sum())
        usual = (((drawn - estimates) @ residual.T) ** 2).sum(1)
        if not len(usual) or misfit <= max(np.quantile(usual, LEVEL), ROUNDING * (precision**2).sum()):
            curves.append(after @ solve)  # (P, G)
            misfits.append(misfit)
    if interval(0.0, drawn[:, -1] - drawn[:, -2]).excludes() or not len(drawn):
        level = []
    else:
        level = [_level(labels, points)]
        misfits += [min(misfits, default=0.0)]
    if not curves and not level:
        return Extrapolation(np.full(len(points), math.nan), np.empty((0, len(drawn), len(points))))
    likelihoods = np.exp(-(np.array(misfits) - min(misfits)) / 2)
    found = np.stack([*curves, *level])
    mean = np.einsum("c,cpg,g->p", likelihoods / likelihoods.sum(), found, estimates)
    return Extrapolation(np.clip(mean, *within), np.clip(np.einsum("cpg,bg->cbp", found, drawn), *within))


def _level(labels: Sequence[int], points: Sequence[float]) -> Floats:
    """Weights (P, G) of the metric at each count: straight over log n, and level from the last but one on."""
    ends = np.eye(len(labels))
    ends[-2:] = ends[-2:].mean(0)
    known = np.log(labels)
    return np.stack([np.interp(np.log(points), known, column) for column in ends.T], 1)


def _designs(counts: Sequence[float], most: int) -> list[Floats]:
    """For each curve the two columns (G, 2) whose weighted sum it is."""
    numbers = np.asarray(counts, dtype=float)
    shapes = [np.log(numbers) if exponent == 0 else -(numbers**-exponent) for exponent in EXPONENTS]
    shapes += [-np.exp(-numbers / (scale * most)) for scale in SCALES]
    return [np.stack([np.ones_like(numbers), shape], 1) for shape in shapes]
