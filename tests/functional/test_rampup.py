"""Ramp-ups."""

import math

import pytest

from semipix.functional.rampup import sigmoid_rampup


@pytest.mark.parametrize(
    ("epoch", "expected"),
    [(0, math.exp(-5)), (1.5, math.exp(-1.25)), (2.25, math.exp(-5 / 16)), (3, 1.0), (100, 1.0), (-1, math.exp(-5))],
)
def test_follows_the_sigmoid_curve(epoch: float, expected: float) -> None:
    assert sigmoid_rampup(epoch, rampup_epochs=3) == pytest.approx(expected)


def test_never_falls() -> None:
    weights = [sigmoid_rampup(step / 10, rampup_epochs=3) for step in range(40)]
    assert weights == sorted(weights)
    assert 0 < weights[0] < 0.01


@pytest.mark.parametrize("rampup_epochs", [0, 0.0, -1])
def test_no_rampup_is_full_weight_at_once(rampup_epochs: float) -> None:
    assert sigmoid_rampup(0.0, rampup_epochs) == 1.0
