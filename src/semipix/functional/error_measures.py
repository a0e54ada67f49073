"""Measures of error maps, computed from histograms, so that memory does not grow with the pixels.

An error map has a score in [0, 1] for each pixel, higher where an error is more probable. Pixels whose scores are in
the same bin count as equal. docs/error-maps.md explains each measure.

Histograms are vectors (bins,) from the lowest score to the highest; results are float64 scalars.
"""

import math

import torch
from torch import Tensor

SCORE_BINS = 2**16
"""Bins of scores, of equal width in the logit: most scores of a good model are close to 0 and differ by factors."""

LOGITS = (-32.0, 17.0)
"""Logits between which the bins are: scores below 1.3e-14 count as equal, and float32 has none closer to 1."""

ERROR_BINS = 2**14
"""Bins of absolute errors, of equal width in the logarithm."""

ERROR_OCTAVES = (-24, 8)
"""Binary logarithms of the errors, as shares of the range, at which their bins end."""

CALIBRATION_BINS = 15
"""Bins of the calibration error, as in Guo et al., ICML 2017."""

CURVE_POINTS = 100
"""Largest number of points of a curve."""


def score_bins(scores: Tensor) -> Tensor:
    """The bin of each score in [0, 1], int32; scores that are not finite get any bin."""
    lowest, highest = LOGITS
    place = (
        scores.clamp(1 / (1 + math.exp(-lowest)), 1 - 2**-24)
        .logit_()
        .sub_(lowest)
        .mul_(SCORE_BINS / (highest - lowest))
    )
    return place.to(torch.int32).clamp_(0, SCORE_BINS - 1)


def bin_scores() -> Tensor:
    """The score in the middle of each bin of scores, (SCORE_BINS,) float64."""
    lowest, highest = LOGITS
    middles = (torch.arange(SCORE_BINS, dtype=torch.float64) + 0.5) / SCORE_BINS
    return (lowest + middles * (highest - lowest)).sigmoid()


def error_bins(errors: Tensor) -> Tensor:
    """The bin of each error, 0 or more as a share of the range, int32; errors that are not finite get any bin."""
    lowest, highest = ERROR_OCTAVES
    place = errors.clamp(2.0**lowest, 2.0**highest).log2_().sub_(lowest).mul_(ERROR_BINS / (highest - lowest))
    return place.to(torch.int32).clamp_(0, ERROR_BINS - 1)


def bin_errors() -> Tensor:
    """The error in the middle of each bin of errors, (ERROR_BINS,) float64."""
    lowest, highest = ERROR_OCTAVES
    middles = (torch.arange(ERROR_BINS, dtype=torch.float64) + 0.5) / ERROR_BINS
    return (lowest + middles * (highest - lowest)).exp2()


def auroc(right: Tensor, wrong: Tensor) -> Tensor:
    """Probability that a wrong pixel has a higher score than a right one; equal scores count half.

    Args:
        right: right pixels in each bin, float64.
        wrong: wrong pixels in each bin, float64.

    Returns:
        A scalar in [0, 1]; NaN if no pixel is right or no pixel is wrong.
    """
    lower = right.cumsum(0) - right
    return (wrong * (lower + right / 2)).sum() / (right.sum() * wrong.sum())


def average_precision(right: Tensor, wrong: Tensor) -> Tensor:
    """Area under the curve of precision over recall of the wrong pixels, by steps, as in scikit-learn.

    Args:
        right: right pixels in each bin, float64.
        wrong: wrong pixels in each bin, float64.

    Returns:
        A scalar in [0, 1]; NaN if no pixel is wrong.
    """
    found, falsely = wrong.flip(0).cumsum(0), right.flip(0).cumsum(0)
    precision = found / (found + falsely).clamp(min=1)
    return (precision * wrong.flip(0)).sum() / wrong.sum()


def risk_coverage_area(pixels: Tensor, errors: Tensor) -> Tensor:
    """Area under the curve of risk over coverage: the mean, over n, of the mean error of the n lowest scores.

    Pixels with equal scores are accepted in random order, so a constant map has the mean error of all pixels.

    Args:
        pixels: pixels in each bin, float64.
        errors: sum of their errors, float64: wrong pixels, or absolute errors.

    Returns:
        A scalar; NaN without pixels.
    """
    after = pixels.cumsum(0)
    before, errors_before = after - pixels, errors.cumsum(0) - errors
    rate = errors / pixels.clamp(min=1)
    # Within a bin the mean error after n pixels is rate + (errors_before - before * rate) / n; the sum of 1 / n is a
    # difference of two values of digamma.
    inverse = (after + 1).digamma() - (before + 1).digamma()
    return (rate * pixels + (errors_before - before * rate) * inverse).sum() / pixels.sum()


def roc_curve(right: Tensor, wrong: Tensor, points: int = CURVE_POINTS) -> tuple[Tensor, Tensor]:
    """The curve of receiver operating characteristics, from (0, 0) to (1, 1), thinned.

    The kept points have about equal distances along the curve. All of them are on the whole curve.

    Args:
        right: right pixels in each bin, float64.
        wrong: wrong pixels in each bin, float64.
        points: how many are kept, at most.

    Returns:
        Shares of the right pixels and of the wrong ones whose score is above each threshold, at most (points,) each;
        empty if no pixel is right or no pixel is wrong.
    """
    if not bool(right.any()) or not bool(wrong.any()):
        return right.new_zeros(0), right.new_zeros(0)
    shares = torch.stack([right, wrong]).flip(1).cumsum(1) / torch.stack([right, wrong]).sum(1, keepdim=True)
    shares = torch.cat([shares.new_zeros(2, 1), shares], 1)
    length = shares.sum(0)  # along the curve, in steps to the right and upwards
    steps = torch.linspace(0, float(length[-1]), points, dtype=torch.float64)
    kept = sorted({*torch.searchsorted(length, steps).clamp(max=len(length) - 1).tolist()})
    return shares[0, kept], shares[1, kept]


def risk_at(coverage: float, pixels: Tensor, errors: Tensor) -> Tensor:
    """Mean error of the share `coverage` of all pixels that has the lowest scores.

    Args:
        coverage: share of the pixels, in (0, 1].
        pixels: pixels in each bin, float64.
        errors: sum of their errors, float64.

    Returns:
        A scalar; NaN without pixels. Of pixels with equal scores, a part with their mean error is taken.
    """
    return risks_at(torch.tensor([coverage], dtype=torch.float64), pixels, errors)[0]


def risks_at(coverages: Tensor, pixels: Tensor, errors: Tensor) -> Tensor:
    """The risks (n,) at several coverages (n,): the curve of risk over coverage, see `risk_at`."""
    after, errors_after = pixels.cumsum(0), errors.cumsum(0)
    accepted = coverages * after[-1]
    last = torch.searchsorted(after, accepted).clamp(max=len(after) - 1)
    missing = after[last] - accepted
    return (errors_after[last] - missing * errors[last] / pixels[last].clamp(min=1)) / accepted


def curve_coverages(points: int = CURVE_POINTS) -> Tensor:
    """The coverages of a curve's points, equally spaced up to 1, (points,) float64."""
    return torch.arange(1, points + 1, dtype=torch.float64) / points


def reliability(right: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The diagram of reliability: how many pixels are wrong where the score says how many should be.

    Args:
        right: right pixels in each of SCORE_BINS bins, float64.
        wrong: wrong pixels in each bin, float64.

    Returns:
        The mean score, the share of wrong pixels and the share of all pixels, (CALIBRATION_BINS,) each, by bins of the
        score of equal width. The first two are NaN in a bin without pixels.
    """
    scores, pixels = bin_scores(), right + wrong
    groups = (scores * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, groups, values)

    count = summed(pixels)
    return summed(pixels * scores) / count, summed(wrong) / count, count / count.sum()


def calibration_error(right: Tensor, wrong: Tensor) -> Tensor:
    """Expected calibration error: the mean distance of the score from the share of wrong pixels, in bins of scores.

    Scores are those in the middle of their bins, which changes the result by at most 0.0001.

    Args:
        right: right pixels in each of SCORE_BINS bins, float64.
        wrong: wrong pixels in each bin, float64.

    Returns:
        A scalar in [0, 1]; NaN without pixels.
    """
    score, risk, share = reliability(right, wrong)
    return (share * (score - risk).abs()).nansum() if bool(share.isfinite().all()) else share.sum()


def sparsification_error(pixels: Tensor, errors: Tensor, oracle_pixels: Tensor, oracle_errors: Tensor) -> Tensor:
    """Area between the sparsification curves of an error map and of the true error, as a share of the mean error.

    Args:
        pixels: pixels in each bin of scores, float64.
        errors: sum of their absolute errors, float64.
        oracle_pixels: pixels in each bin of errors, float64.
        oracle_errors: sum of their absolute errors, float64.

    Returns:
        A scalar, 0 for a map that orders pixels by their errors; NaN without errors.
    """
    area = risk_coverage_area(pixels, errors) - risk_coverage_area(oracle_pixels, oracle_errors)
    return area * pixels.sum() / errors.sum()


def correlation(pixels: Tensor, errors: Tensor, oracle_pixels: Tensor) -> Tensor:
    """Pearson's correlation of scores with absolute errors; both are those in the middle of their bins.

    Args:
        pixels: pixels in each of SCORE_BINS bins of scores, float64.
        errors: sum of their absolute errors, float64.
        oracle_pixels: pixels in each of ERROR_BINS bins of errors, float64.

    Returns:
        A scalar in [-1, 1]; NaN if scores or errors are constant.
    """
    scores, count = bin_scores(), pixels.sum()
    mean_score, mean_error = (pixels * scores).sum() / count, errors.sum() / count
    joint = ((scores - mean_score) * (errors - pixels * mean_error)).sum()
    score_squares = (pixels * (scores - mean_score).square()).sum()
    error_squares = (oracle_pixels * (bin_errors() - mean_error).square()).sum()
    constant = (pixels > 0).sum() < 2 or (oracle_pixels > 0).sum() < 2
    return torch.full_like(joint, torch.nan) if constant else joint / (score_squares * error_squares).sqrt()


def rank_correlation(first: Tensor, second: Tensor) -> Tensor:
    """Spearman's correlation of two vectors (n,): Pearson's correlation of their ranks, the mean rank for equal values.

    Returns:
        A scalar in [-1, 1]; NaN for fewer than two values, or if one vector is constant.
    """
    if len(first) < 2 or bool((first == first[0]).all()) or bool((second == second[0]).all()):
        return torch.tensor(torch.nan, dtype=torch.float64)
    from scipy.stats import spearmanr  # not before it is needed, since the command line has to start fast

    return torch.tensor(float(spearmanr(first.numpy(), second.numpy()).statistic), dtype=torch.float64)
