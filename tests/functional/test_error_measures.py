"""Measures of error maps against scikit-learn, scipy and loops over pixels."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve
from torch import Tensor
from torchmetrics.functional.classification import binary_calibration_error

from semipix.functional import error_measures as measures

PIXELS = 3000
BINNED = 1e-4
"""Largest difference that bins cause, as documented; most measures are a hundred times closer."""

Array = NDArray[np.float64]


def drawn(seed: int, tied: bool, crowded: bool) -> tuple[Array, Array]:
    """Scores in [0, 1] and whether pixels are wrong, more often where scores are high."""
    draw = np.random.default_rng(seed)
    scores = draw.random(PIXELS)
    scores = scores**8 if crowded else scores  # half of them below 0.004, as with a good model
    scores = np.round(scores, 1) if tied else scores
    wrong = draw.random(PIXELS) < 0.05 + 0.6 * scores
    return scores.astype(np.float32).astype(np.float64), wrong.astype(np.float64)


def histogram(bins: Tensor, values: Array, count: int) -> Tensor:
    return torch.bincount(bins, torch.from_numpy(values), minlength=count)


def histograms(scores: Array, errors: Array) -> tuple[Tensor, Tensor]:
    """Pixels and summed errors in each bin of scores."""
    bins = measures.score_bins(torch.from_numpy(scores).float())
    return histogram(bins, np.ones_like(scores), measures.SCORE_BINS), histogram(bins, errors, measures.SCORE_BINS)


def risk_coverage(scores: Array, errors: Array) -> Array:
    """Mean error of the n lowest scores for each n; equal scores have their mean error each."""
    shared = np.array([errors[scores == score].mean() for score in scores])
    return np.cumsum(shared[np.argsort(scores, kind="stable")]) / np.arange(1, len(scores) + 1)


@pytest.mark.parametrize(("tied", "crowded"), [(False, False), (False, True), (True, False)])
class TestClassification:
    def test_ranking_is_that_of_scikit_learn(self, tied: bool, crowded: bool) -> None:
        scores, wrong = drawn(0, tied, crowded)
        pixels, errors = histograms(scores, wrong)
        tolerance = 1e-9 if tied else BINNED
        auroc = roc_auc_score(wrong, scores)
        assert 0.55 < auroc < 0.9
        assert float(measures.auroc(pixels - errors, errors)) == pytest.approx(auroc, abs=tolerance)
        expected = average_precision_score(wrong, scores)
        assert float(measures.average_precision(pixels - errors, errors)) == pytest.approx(expected, abs=tolerance)

    def test_risk_over_coverage_is_that_of_a_loop(self, tied: bool, crowded: bool) -> None:
        scores, wrong = drawn(1, tied, crowded)
        pixels, errors = histograms(scores, wrong)
        curve = risk_coverage(scores, wrong)
        tolerance = 1e-9 if tied else BINNED
        assert float(measures.risk_coverage_area(pixels, errors)) == pytest.approx(curve.mean(), abs=tolerance)
        at_80 = curve[int(0.8 * PIXELS) - 1]
        assert float(measures.risk_at(0.8, pixels, errors)) == pytest.approx(at_80, abs=max(tolerance, 1e-9))
        assert float(measures.risk_at(1.0, pixels, errors)) == pytest.approx(wrong.mean())

        coverages = measures.curve_coverages()
        assert coverages[-1] == 1 and len(coverages) == measures.CURVE_POINTS
        wrong_accepted = coverages * PIXELS * measures.risks_at(coverages, pixels, errors)
        expected = [count * curve[count - 1] for count in range(30, PIXELS + 1, PIXELS // len(coverages))]
        assert wrong_accepted.tolist() == pytest.approx(expected, abs=1e-6 if tied else 1)  # bins may have two pixels

    def test_the_points_of_a_roc_curve_are_those_of_scikit_learn(self, tied: bool, crowded: bool) -> None:
        scores, wrong = drawn(5, tied, crowded)
        pixels, errors = histograms(scores, wrong)
        false_alarms, found = measures.roc_curve(pixels - errors, errors)
        assert 5 < len(found) == len(false_alarms) <= measures.CURVE_POINTS
        assert (float(false_alarms[0]), float(found[0]), float(false_alarms[-1]), float(found[-1])) == (0, 0, 1, 1)
        x, y, _ = roc_curve(wrong, scores, drop_intermediate=False)
        for given in zip(false_alarms.tolist(), found.tolist(), strict=True):  # each point is one of the whole curve
            assert np.abs(np.stack([x, y], 1) - given).max(1).min() < 1e-3
        area = float(torch.trapezoid(found, false_alarms))
        assert area == pytest.approx(roc_auc_score(wrong, scores), abs=2e-3), "nothing is lost by thinning"

    def test_the_diagram_of_reliability_has_the_calibration_error(self, tied: bool, crowded: bool) -> None:
        scores, wrong = drawn(6, tied, crowded)
        pixels, errors = histograms(scores, wrong)
        score, risk, share = measures.reliability(pixels - errors, errors)
        chosen = (scores >= 1 / 15) & (scores < 2 / 15)
        assert float(score[1]) == pytest.approx(scores[chosen].mean(), abs=BINNED)
        assert float(risk[1]) == pytest.approx(wrong[chosen].mean(), abs=2e-3)
        assert float(share[1]) == pytest.approx(chosen.mean(), abs=1e-3)
        ece = float((share * (score - risk).abs()).nansum())
        assert float(measures.calibration_error(pixels - errors, errors)) == pytest.approx(ece)

    def test_calibration_is_that_of_torchmetrics(self, tied: bool, crowded: bool) -> None:
        scores, wrong = drawn(2, tied, crowded)
        pixels, errors = histograms(scores, wrong)
        given = torch.from_numpy(scores), torch.from_numpy(wrong).int()
        expected = float(binary_calibration_error(*given, n_bins=measures.CALIBRATION_BINS, norm="l1"))
        assert expected > 0.04
        assert float(measures.calibration_error(pixels - errors, errors)) == pytest.approx(expected, abs=BINNED)


class TestRegression:
    def test_sparsification_is_that_of_a_loop(self) -> None:
        draw = np.random.default_rng(0)
        errors = draw.exponential(0.02, PIXELS).astype(np.float32).astype(np.float64)
        scores = np.clip(errors * draw.lognormal(0, 1, PIXELS), 0, 1).astype(np.float32).astype(np.float64)
        by_score = histograms(scores, errors)
        bins = measures.error_bins(torch.from_numpy(errors).float())
        oracle = (
            histogram(bins, np.ones(PIXELS), measures.ERROR_BINS),
            histogram(bins, errors, measures.ERROR_BINS),
        )
        expected = (risk_coverage(scores, errors).mean() - risk_coverage(errors, errors).mean()) / errors.mean()
        assert 0.05 < expected < 0.5
        assert float(measures.sparsification_error(*by_score, *oracle)) == pytest.approx(expected, abs=BINNED)
        found = float(measures.correlation(*by_score, oracle[0]))
        assert found == pytest.approx(pearsonr(scores, errors).statistic, abs=BINNED)

    def test_a_perfect_map_has_no_sparsification_error(self) -> None:
        errors = np.linspace(0, 0.5, 50)
        bins = measures.error_bins(torch.from_numpy(errors).float())
        oracle = histogram(bins, np.ones(50), measures.ERROR_BINS), histogram(bins, errors, measures.ERROR_BINS)
        assert float(measures.sparsification_error(*histograms(errors, errors), *oracle)) == pytest.approx(0, abs=1e-12)
        reversed_map = histograms(1 - errors, errors)
        assert float(measures.sparsification_error(*reversed_map, *oracle)) == pytest.approx(
            1
        )  # for equally spaced errors
        assert float(measures.correlation(*reversed_map, oracle[0])) == pytest.approx(-1, abs=1e-3)


def test_golden_values() -> None:
    """Five pixels by hand, two of them with one score."""
    pixels, errors = histograms(np.array([0.1, 0.2, 0.2, 0.4, 0.9]), np.array([0.0, 1, 0, 0, 1]))
    right, wrong = pixels - errors, errors
    # Pairs of a wrong and a right pixel: 0.2 wins 1 and ties 1 of 3, 0.9 wins 3 of 3.
    assert float(measures.auroc(right, wrong)) == pytest.approx((1 + 0.5 + 3) / 6)
    # Recall 1/2 at precision 1/1 (0.9), recall 2/2 at precision 2/4 (0.2).
    assert float(measures.average_precision(right, wrong)) == pytest.approx((1 + 2 / 4) / 2)
    # Risks after 1 to 5 pixels; the two with one score are wrong by a half each.
    assert float(measures.risk_coverage_area(pixels, errors)) == pytest.approx(
        (0 + 0.5 / 2 + 1 / 3 + 1 / 4 + 2 / 5) / 5
    )
    assert float(measures.risk_at(0.8, pixels, errors)) == pytest.approx(1 / 4)
    assert float(measures.risk_at(0.3, pixels, errors)) == pytest.approx(0.25 / 1.5)
    # Each group of scores: |0.1 - 0| + |0.4 - 1| + |0.4 - 0| + |0.9 - 1|.
    assert float(measures.calibration_error(right, wrong)) == pytest.approx((0.1 + 0.6 + 0.4 + 0.1) / 5, abs=BINNED)


def test_a_constant_map_knows_nothing() -> None:
    _, wrong = drawn(3, tied=False, crowded=False)
    pixels, errors = histograms(np.full(PIXELS, 0.25), wrong)
    rate = wrong.mean()
    assert float(measures.auroc(pixels - errors, errors)) == 0.5
    assert float(measures.average_precision(pixels - errors, errors)) == pytest.approx(rate)
    assert float(measures.risk_coverage_area(pixels, errors)) == pytest.approx(rate)
    assert float(measures.risk_at(0.8, pixels, errors)) == pytest.approx(rate)
    assert float(measures.calibration_error(pixels - errors, errors)) == pytest.approx(abs(rate - 0.25), abs=BINNED)
    oracle = torch.zeros(measures.ERROR_BINS, dtype=torch.float64)
    oracle[[5, 9]] = PIXELS / 2
    assert measures.correlation(pixels, errors, oracle).isnan()


@pytest.mark.parametrize("error", [0.0, 1.0])
def test_pixels_that_are_all_right_or_all_wrong_have_no_ranking(error: float) -> None:
    scores, _ = drawn(4, tied=False, crowded=False)
    pixels, errors = histograms(scores, np.full(PIXELS, error))
    assert measures.auroc(pixels - errors, errors).isnan()
    assert bool(measures.average_precision(pixels - errors, errors).isnan()) == (error == 0)
    assert float(measures.risk_coverage_area(pixels, errors)) == pytest.approx(error)


def test_without_pixels_there_is_no_figure() -> None:
    nothing = torch.zeros(measures.SCORE_BINS, dtype=torch.float64)
    no_errors = torch.zeros(measures.ERROR_BINS, dtype=torch.float64)
    found = [
        *(measure(nothing, nothing) for measure in (measures.auroc, measures.average_precision)),
        *(measure(nothing, nothing) for measure in (measures.risk_coverage_area, measures.calibration_error)),
        measures.risk_at(0.8, nothing, nothing),
        measures.sparsification_error(nothing, nothing, no_errors, no_errors),
        measures.correlation(nothing, nothing, no_errors),
    ]
    assert all(value.isnan() for value in found)
    assert [len(part) for part in measures.roc_curve(nothing, nothing)] == [0, 0]


def test_bins_distinguish_small_scores_and_keep_the_ends() -> None:
    scores = torch.tensor([0.0, 1e-7, 1e-6, 1e-6 * 1.01, 0.5, 0.501, 1 - 1e-6, 1.0])
    bins = measures.score_bins(scores)
    assert bins.dtype == torch.int32
    assert (bins.diff() > 0).all()
    assert int(bins[0]) == 0 and measures.SCORE_BINS - 800 < int(bins[-1]) < measures.SCORE_BINS
    middles = measures.bin_scores()[bins]
    torch.testing.assert_close(middles, scores.double(), rtol=2e-3, atol=1e-7)
    errors = torch.tensor([0.0, 1e-6, 0.3, 0.3 * 1.002, 40.0, 1e9])
    bins = measures.error_bins(errors)
    assert (bins.diff() > 0).all()
    torch.testing.assert_close(measures.bin_errors()[bins[1:-1]], errors[1:-1].double(), rtol=1e-3, atol=0)


def test_ranks_of_images_are_those_of_scipy() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.random(20), np.round(draw.random(20), 1)
    found = measures.rank_correlation(torch.from_numpy(first), torch.from_numpy(second))
    assert float(found) == pytest.approx(spearmanr(first, second).statistic)
    monotone = torch.tensor([0.1, 0.2, 0.9])
    assert float(measures.rank_correlation(monotone, monotone.exp())) == pytest.approx(1)
    for few in (torch.zeros(0), torch.ones(1)):
        assert measures.rank_correlation(few, few).isnan()
    assert measures.rank_correlation(torch.tensor([1.0, 1.0]), torch.tensor([1.0, 2.0])).isnan(), "a constant"
