"""Conformal risk control: the losses, and that its promise holds."""

import numpy as np
import pytest
from numpy.typing import NDArray

from semipix.functional.conformal import LEAST, accept, monotone_losses

Vector = NDArray[np.float64]
GRID = np.linspace(0, 1, 51)


def images(draw: np.random.Generator, count: int, pixels: int = 200) -> list[tuple[Vector, Vector]]:
    """Estimates and errors of images of very different difficulty; estimates know little of it."""
    found = []
    for _ in range(count):
        level = draw.beta(1, 8)
        estimates = draw.beta(1, 6, pixels)
        found.append((estimates, (draw.random(pixels) < level + 0.5 * estimates).astype(float)))
    return found


def test_losses_are_the_largest_of_all_smaller_thresholds() -> None:
    (estimates, errors), *_ = images(np.random.default_rng(1), 1)
    estimates = np.round(estimates, 2)  # some are equal

    def loss(threshold: float) -> float:
        taken = estimates <= threshold
        return float(errors[taken].sum() / max(taken.sum(), LEAST * len(errors)))

    wanted = [max((loss(each) for each in estimates if each <= threshold), default=0.0) for threshold in GRID]
    assert monotone_losses(estimates, errors, GRID) == pytest.approx(wanted)
    assert wanted[-1] > wanted[5] > 0


def test_the_risk_of_new_images_is_at_most_the_asked_one_on_average() -> None:
    draw = np.random.default_rng(0)
    risks, shares = [], []
    for _ in range(200):
        losses = [monotone_losses(*each, GRID) for each in images(draw, 30)]
        found = accept(GRID.tolist(), [each.tolist() for each in losses], 0.2)
        assert found.guaranteed
        for estimates, errors in images(draw, 10):
            taken = estimates <= found.threshold
            shares.append(taken.mean())
            risks.append(errors[taken].sum() / max(taken.sum(), LEAST * len(errors)))
    assert 0.1 < np.mean(risks) <= 0.2
    assert np.mean(shares) > 0.2, "accepting nothing would be no feat"


def test_few_images_cannot_guarantee_a_small_risk() -> None:
    losses = [[0.0, 0.04, 0.5]] * 18
    found = accept([0.1, 0.2, 1.0], losses, 0.05)
    assert (found.threshold, found.guaranteed, found.needed) == (0.1, False, 19)
    found = accept([0.1, 0.2, 1.0], [*losses, losses[0]], 0.05)
    assert (found.threshold, found.guaranteed) == (0.1, True), "19 of loss 0 do, with nothing to spare"


def test_the_images_that_are_needed_depend_on_their_losses() -> None:
    losses = [[0.01, 0.01]] * 24
    assert accept([0.1, 1.0], losses[:19], 0.05) == (1.0, False, 24)
    assert accept([0.1, 1.0], losses[:23], 0.05) == (1.0, False, 24)
    assert accept([0.1, 1.0], losses, 0.05) == (1.0, True, 24)


@pytest.mark.parametrize("count", [2, 10, 24, 100])
def test_less_risk_never_accepts_more(count: int) -> None:
    losses = [monotone_losses(*each, GRID).tolist() for each in images(np.random.default_rng(count), count)]
    found = [accept(GRID.tolist(), losses, risk) for risk in np.linspace(0.001, 0.6, 300)]
    assert (np.diff([each.threshold for each in found]) >= 0).all()
    assert (np.diff([each.guaranteed for each in found]).astype(int) >= 0).all()
    assert len({each.threshold for each in found}) > 3


def test_nothing_is_accepted_where_no_threshold_suffices() -> None:
    assert accept([0.0, 1.0], [[0.3, 0.4]] * 100, 0.05) == (-1.0, False, None)
