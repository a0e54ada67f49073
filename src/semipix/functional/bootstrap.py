"""Intervals of metrics that are computed over all images together, by drawing images again with replacement.

A metric such as mIoU is no mean over images: it follows from sums over all of them. So each draw sums the figures of
the images that it drew, and computes the metric from the sums.

What varies in a comparison is twofold: the images that happen to be in the test set, and the training, which a seed
decides. A draw takes both into account:

1. Images: N of N images are drawn with replacement, the same ones for all runs that were measured on them. If they
   were drawn for each run, the images' share of the variance would shrink with the number of seeds, although further
   seeds bring no further images. Means of a few draws vary too little. So their distances from the estimate are
   enlarged by sqrt(N / (N - 1)) x t(N - 1) / z, the factor between a Student interval and that of the plain bootstrap
   (Hesterberg, "What Teachers Should Know About the Bootstrap", The American Statistician 2015). Images of one scene,
   such as frames of a video, are no independent ones: `ImageFigures.summed_by` makes one of them before.
2. Seeds: with 3 seeds, drawing them with replacement cannot leave the range from the worst to the best, which contains
   the true mean in only 75 % of all cases. So their part is drawn from Student's t distribution with the seeds'
   deviation, which is exact for normally distributed values, be they 3 or 30.

An interval is that of the percentiles of the draws. BCa intervals would correct for skewness, but their acceleration is
defined for one sample of independent values, not for images and seeds that are crossed. The simulations in
tests/functional/test_bootstrap.py show that the percentiles contain the truth as often as they should.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

Metric = Callable[[Floats, Floats], Floats]
"""Sums of numerators and denominators (..., K) to values (...)."""

SAMPLES = 2000
"""Draws of an interval."""

LEVEL = 0.95
"""Share of all cases in which an interval contains the truth."""

CHUNK = 2**22
"""Numbers of a matrix of draws x images that are in memory at a time."""


Range = tuple[float, float]
"""The lowest and the highest value of a metric."""

ANY: Range = (-math.inf, math.inf)
"""Of metrics such as PSNR."""

SHARE: Range = (0.0, 1.0)
"""Of metrics such as IoU."""


class Interval(NamedTuple):
    """An estimate and the bounds between which the truth is.

    All three are NaN where the metric has no value, and the bounds alone where only one image says something.
    """

    estimate: float
    low: float
    high: float

    def excludes(self, value: float = 0.0) -> bool:
        """Whether a value is out of the bounds; False if they are NaN."""
        return self.low > value or self.high < value


@dataclass(frozen=True)
class ImageFigures:
    """What each image adds to the metric of one run.

    Attributes:
        names: of the N images; runs are paired by them.
        numerators: (N, K), for mIoU each class's intersections in pixels; K is 1 for other metrics.
        denominators: (N, K), for mIoU each class's unions.
    """

    names: tuple[str, ...]
    numerators: Floats
    denominators: Floats

    def __post_init__(self) -> None:
        if not len(self.names) == len(self.numerators) == len(self.denominators) > 0:
            raise ValueError("names, numerators and denominators have to be of the same images, at least one")

    def value(self, metric: Metric) -> float:
        """The metric over all images, each of them once."""
        return float(metric(self.numerators.sum(0), self.denominators.sum(0)))

    def summed_by(self, groups: Sequence[str]) -> "ImageFigures":
        """The figures of groups of images, such as those of one scene, which are no independent images.

        Args:
            groups: the group of each image.
        """
        names = sorted(set(groups))
        rows = np.array([[group == name for group in groups] for name in names], dtype=float)  # (G, N)
        return ImageFigures(tuple(names), rows @ self.numerators, rows @ self.denominators)

    @property
    def informative(self) -> int:
        """The number of images that say something: of a single class, those in whose label or prediction it is."""
        return len(self.names) if self.denominators.shape[1] > 1 else int((self.denominators > 0).sum())


def mean_ratio(numerators: Floats, denominators: Floats) -> Floats:
    """Mean over K of numerators / denominators, without those whose denominator is 0: mIoU, or a mean over images.

    Args:
        numerators: (..., K).
        denominators: (..., K).

    Returns:
        Values (...); NaN where all denominators are 0.
    """
    there = denominators > 0
    ratios = np.divide(numerators, denominators, out=np.zeros_like(numerators), where=there)
    with np.errstate(invalid="ignore"):
        return np.asarray(ratios.sum(-1) / there.sum(-1))


def root_mean_ratio(numerators: Floats, denominators: Floats) -> Floats:
    """The root of `mean_ratio`: the RMSE of summed squares and counts."""
    return np.sqrt(mean_ratio(numerators, denominators))


def paired_difference(
    first: Sequence[ImageFigures],
    second: Sequence[ImageFigures],
    metric: Metric = mean_ratio,
    *,
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Interval:
    """How much higher the metric of the first runs is than that of the second ones, the mean over their seeds.

    Args:
        first: a run for each seed.
        second: runs of the same seeds in the same order, each measured on the images of its partner.
        metric: of sums of numerators and denominators.
        samples: draws.
        level: of the interval, such as 0.95.
        seed: of the draws.

    Returns:
        The difference with its interval; of one seed, the interval is over images alone.

    Raises:
        ValueError: there are no runs, their number differs, or partners were measured on different images.
    """
    estimates, drawn = draw_means([first, second], metric, samples=samples, level=level, seed=seed)
    return interval(float(estimates[0] - estimates[1]), drawn[:, 0] - drawn[:, 1], level)


def mean_interval(
    runs: Sequence[ImageFigures],
    metric: Metric = mean_ratio,
    *,
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
    within: Range = ANY,
) -> Interval:
    """The mean of a metric over the seeds of one variant; see `paired_difference` and `interval`."""
    estimates, drawn = draw_means([runs], metric, samples=samples, level=level, seed=seed)
    return interval(float(estimates[0]), drawn[:, 0], level, within)


def interval(estimate: float, drawn: Floats, level: float = LEVEL, within: Range = ANY) -> Interval:
    """The interval of an estimate by the percentiles of its draws; draws without a value, NaN, are left out.

    Args:
        estimate: of all images.
        drawn: (B,) estimates of draws.
        level: of the interval, such as 0.95.
        within: the values that the metric can have. Draws are spread by Student's t and can leave this range.
    """
    finite = drawn[~np.isnan(drawn)]
    if math.isnan(estimate) or not len(finite):
        return Interval(estimate, math.nan, math.nan)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate, max(float(low), within[0]), min(float(high), within[1]))


def draw_means(
    groups: Sequence[Sequence[ImageFigures]],
    metric: Metric = mean_ratio,
    *,
    samples: int = SAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Draws of the mean over seeds of several groups of runs, all from the same images and seeds.

    Any function of the groups' means has an interval by the percentiles of its values at the draws: a difference, the
    labels that are needed for a value, or the next point of a curve.

    Args:
        groups: G groups, each with a run for each of the same S seeds in the same order.
        metric: of sums of numerators and denominators.
        samples: B, the number of draws.
        level: of the interval that is made of them, on which their spread depends, see the module's first point.
        seed: of the draws.

    Returns:
        The means (G,) and their draws (B, G).

    Raises:
        ValueError: a group is empty, groups differ in their number of runs, or runs of one seed differ in their images.
    """
    count = len(groups[0])
    if not count or any(len(group) != count for group in groups):
        raise ValueError(f"groups of {', '.join(str(len(group)) for group in groups)} runs; pairs of runs expected")
    for runs in zip(*groups, strict=True):
        if any(run.names != runs[0].names for run in runs):
            raise ValueError("runs that are compared have to be measured on the same images in the same order")
    generator = np.random.default_rng(seed)
    values = np.array([[run.value(metric) for run in group] for group in groups])  # (G, S)
    estimates = values.mean(1)
    with np.errstate(invalid="ignore"):
        drawn = _redrawn(groups, metric, samples, generator).mean(2)  # (B, G)
        return estimates, estimates + (drawn - estimates) * _image_factor(groups, level) + _seed_part(
            values, samples, generator
        )


def _redrawn(
    groups: Sequence[Sequence[ImageFigures]], metric: Metric, samples: int, generator: np.random.Generator
) -> Floats:
    """The metric (B, G, S) of each run at each draw of its images."""
    found = np.empty((samples, len(groups), len(groups[0])))
    runs_of: dict[tuple[str, ...], list[tuple[int, int, ImageFigures]]] = {}
    for row, group in enumerate(groups):
        for column, run in enumerate(group):
            runs_of.setdefault(run.names, []).append((row, column, run))
    for names, runs in runs_of.items():
        size = max(1, CHUNK // len(names))
        for start in range(0, samples, size):
            rows = slice(start, min(start + size, samples))
            times = _times(rows.stop - start, len(names), generator)
            for row, column, run in runs:
                found[rows, row, column] = metric(times @ run.numerators, times @ run.denominators)
    return found


def _times(samples: int, images: int, generator: np.random.Generator) -> Floats:
    """How often each image is in each draw, (samples, images)."""
    chosen = generator.integers(images, size=(samples, images)) + images * np.arange(samples)[:, None]
    return np.bincount(chosen.ravel(), minlength=samples * images).reshape(samples, images).astype(float)


def _image_factor(groups: Sequence[Sequence[ImageFigures]], level: float) -> float:
    """By how much draws of N images are spread for an interval, see the module's first point; NaN for one image.

    The images that say nothing do not count: the interval of a class that is in 2 of 40 images is one of 2 images.
    """
    from scipy.special import ndtri, stdtrit  # here, since the command's help needs neither

    images = min(run.informative for group in groups for run in group)
    if images < 2:
        return math.nan
    share = (1 + level) / 2
    return float(math.sqrt(images / (images - 1)) * stdtrit(images - 1, share) / ndtri(share))


def _seed_part(values: Floats, samples: int, generator: np.random.Generator) -> Floats:
    """Deviations (B, G) of means over S seeds, by a multivariate t distribution; 0 where there is one seed.

    Args:
        values: (G, S) of each group at each seed.
        samples: B.
        generator: of the draws.
    """
    count = values.shape[1]
    if count == 1:
        return np.zeros((samples, len(values)))
    deviations = values - values.mean(1, keepdims=True)
    normal = generator.standard_normal((samples, count)) @ deviations.T / math.sqrt(count * (count - 1))
    scale = np.sqrt(generator.chisquare(count - 1, samples) / (count - 1))
    return np.asarray(normal / scale[:, None])
