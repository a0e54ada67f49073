"""Learning curves: where they reach a value, and whether the interval of what comes next contains it."""

import json
from pathlib import Path

import numpy as np
import pytest

from semipix.functional.learning_curve import extrapolate, labels_needed

RECORDS = Path(__file__).parents[2] / "benchmarks/results/portrait.json"


def test_labels_are_read_from_the_curve_on_a_logarithmic_scale() -> None:
    curve = np.array([0.5, 0.6, 0.8])
    found = labels_needed([8, 16, 64], np.tile(curve, (5, 1)), np.array([0.5, 0.55, 0.6, 0.7, 0.81]))
    assert found == pytest.approx([0, 8 * 2**0.5, 16, 32, np.inf])


def test_a_curve_that_falls_again_counts_where_it_first_reaches_the_value() -> None:
    assert labels_needed([1, 2, 4, 8], np.array([0.1, 0.5, 0.3, 0.6]), np.array(0.5)) == pytest.approx(2)
    assert labels_needed([8], np.array([0.5]), np.array(0.6)) == np.inf


@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_the_interval_contains_the_largest_count_that_was_held_out(exponent: float) -> None:
    """Curves of several shapes, of whose first four points the fifth is forecast, in simulated comparisons."""
    labels = np.array([4, 8, 16, 32, 64])
    truth = 0.9 - 0.5 * labels**-exponent if exponent else 0.3 + 0.1 * np.log(labels)
    draw = np.random.default_rng(3)
    hits = 0
    for case in range(200):
        estimates = truth[:4] + draw.normal(0, 0.01, 4)
        drawn = estimates + draw.normal(0, 0.01, (400, 4))
        found, curves = extrapolate(labels[:4].tolist(), estimates, drawn, [64.0], seed=case)
        low, high = np.quantile(curves[:, 0], [0.025, 0.975])
        hits += low <= truth[4] <= high
        assert low < found[0] < high
    assert hits / 200 >= 0.9


def test_recorded_trainings_with_32_labels_are_in_the_interval_from_those_with_8_and_16() -> None:
    """Trainings of the documentation's comparison of portraits, two seeds each."""
    records = json.loads(RECORDS.read_text())["records"]
    for variant in ("supervised", "gct", "mean_teacher", "supervised_short"):
        values = np.array(
            [
                [
                    record["test"]["miou"]
                    for record in records
                    if (record["variant"], record["labels"]) == (variant, labels)
                ]
                for labels in ("8", "16", "32")
            ]
        )
        mean, deviation = values.mean(1), values.std(1, ddof=1) / 2**0.5
        drawn = mean[:2] + np.random.default_rng(0).standard_t(1, (2000, 1)) * deviation[:2]
        _, curves = extrapolate([8, 16], mean[:2], drawn, [32.0])
        low, high = np.quantile(curves[:, 0], [0.025, 0.975])
        assert low <= mean[2] <= high, variant


def test_points_that_were_run_are_met_by_a_curve_that_fits() -> None:
    labels = [8, 16, 32]
    values = np.array([0.4, 0.5, 0.6])  # a logarithm
    found, curves = extrapolate(labels, values, values + np.random.default_rng(0).normal(0, 1e-4, (50, 3)), [8.0, 64.0])
    assert found == pytest.approx([0.4, 0.7], abs=1e-3)
    assert curves.shape == (50, 2)


def test_one_number_of_labels_is_no_curve() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        extrapolate([8, 8], np.zeros(2), np.zeros((5, 2)), [9.0])
