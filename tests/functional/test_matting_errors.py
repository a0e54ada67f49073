"""Errors of a matte against loops over pixels."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.matting_errors import (
    connectivity_error,
    gradient_error,
    gradient_magnitude,
    largest_region,
    mean_squared_error,
    sum_of_absolute_differences,
)
from tests.helpers import slow_matting
from tests.helpers.tiny import rand


def blobs(height: int, width: int, seed: int) -> Tensor:
    """A smooth matte (H, W) in [0, 1] that reaches both ends."""
    coarse = rand(1, 1, 5, 6, seed=seed)
    return (2.5 * F.interpolate(coarse, (height, width), mode="bicubic")[0, 0] - 0.7).clamp(0, 1)


ALPHA = blobs(23, 31, 0)
PREDICTION = (ALPHA + 0.3 * (rand(23, 31, seed=1) - 0.5)).clamp(0, 1)
UNKNOWN = rand(23, 31, seed=2) < 0.7


def test_absolute_and_squared_differences_by_hand() -> None:
    alpha, seen = torch.tensor([[0.0, 0.5, 1.0]]), torch.tensor([[0.5, 0.5, 0.75]])
    unknown = torch.tensor([[True, True, False]])
    assert float(sum_of_absolute_differences(seen, alpha, unknown)) == pytest.approx(0.5 / 1000)
    assert float(mean_squared_error(seen, alpha, unknown)) == pytest.approx(0.25 / 2)
    assert mean_squared_error(seen, alpha, torch.zeros_like(unknown)).isnan()


def test_gradient_is_that_of_loops() -> None:
    expected = slow_matting.gradient_magnitude(ALPHA.numpy())
    np.testing.assert_allclose(gradient_magnitude(ALPHA).numpy(), expected, atol=1e-5)
    difference = slow_matting.gradient_magnitude(PREDICTION.numpy()) - expected
    total = float((difference**2)[UNKNOWN.numpy()].sum()) / 1000
    assert float(gradient_error(PREDICTION, ALPHA, UNKNOWN)) == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_connectivity_is_that_of_loops(seed: int) -> None:
    alpha = blobs(23, 31, seed)
    seen = (alpha + 0.4 * (rand(23, 31, seed=seed + 9) - 0.5)).clamp(0, 1)
    expected = slow_matting.connectivity_error(seen.numpy(), alpha.numpy(), UNKNOWN.numpy())
    assert expected > 0
    assert float(connectivity_error(seen, alpha, UNKNOWN)) == pytest.approx(expected, rel=1e-4)


def test_an_island_is_a_flaw_of_connectivity_alone() -> None:
    alpha = torch.zeros(12, 12)
    alpha[:, :6] = 1.0
    island = alpha.clone()
    island[2:5, 9:12] = 0.5
    attached = alpha.clone()
    attached[2:5, 6:9] = 0.1
    everywhere = torch.ones(12, 12, dtype=torch.bool)
    assert float(connectivity_error(island, alpha, everywhere)) == pytest.approx(9 * 0.5 / 1000)
    assert float(connectivity_error(attached, alpha, everywhere)) == 0, "closer than 0.15"


@pytest.mark.parametrize("share", [0.3, 0.55, 0.62, 0.9])
@pytest.mark.parametrize("seed", range(4))
def test_the_largest_region_is_that_of_a_flood(share: float, seed: int) -> None:
    active = rand(17, 26, seed=seed) < share
    np.testing.assert_array_equal(largest_region(active).numpy(), slow_matting.largest_region(active.numpy()))


def test_a_winding_region_is_one() -> None:
    spiral = torch.zeros(9, 40, dtype=torch.bool)
    spiral[::2] = True
    spiral[1::4, -1] = True
    spiral[3::4, 0] = True
    assert torch.equal(largest_region(spiral), spiral)
    assert not largest_region(torch.zeros(3, 4, dtype=torch.bool)).any()


def test_nothing_is_wrong_with_the_label_itself() -> None:
    for error in (sum_of_absolute_differences, mean_squared_error, gradient_error, connectivity_error):
        assert float(error(ALPHA, ALPHA, UNKNOWN)) == 0
        assert float(error(PREDICTION, ALPHA, UNKNOWN)) > 0
        half = error(PREDICTION.bfloat16(), ALPHA.bfloat16(), UNKNOWN)
        assert half.dtype == torch.float32
