"""PSNR and SSIM over valid pixels."""

import math

import numpy as np
import pytest
import torch

from semipix.functional.similarity import psnr, ssim
from tests.helpers.tiny import rand

TARGET = rand(1, 3, 20, 24)
PREDICTION = (TARGET + 0.2 * (rand(1, 3, 20, 24, seed=1) - 0.5)).clamp(0, 1)
EVERYWHERE = torch.ones(1, 1, 20, 24, dtype=torch.bool)
SOMEWHERE = EVERYWHERE.clone()
SOMEWHERE[..., :8, :] = False
NOWHERE = torch.zeros_like(EVERYWHERE)


def slow_ssim(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """SSIM (H - 10, W - 10) of one channel at the pixels whose window lies inside, by loops (Wang et al., 2004)."""
    offset = np.arange(-5, 6)
    bell = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(bell, bell) / bell.sum() ** 2
    height, width = first.shape
    result = np.zeros((height - 10, width - 10))
    for row in range(height - 10):
        for column in range(width - 10):
            a, b = first[row : row + 11, column : column + 11], second[row : row + 11, column : column + 11]
            mean_a, mean_b = (window * a).sum(), (window * b).sum()
            var_a, var_b = (window * a * a).sum() - mean_a**2, (window * b * b).sum() - mean_b**2
            both = (window * a * b).sum() - mean_a * mean_b
            top = (2 * mean_a * mean_b + 0.01**2) * (2 * both + 0.03**2)
            result[row, column] = top / ((mean_a**2 + mean_b**2 + 0.01**2) * (var_a + var_b + 0.03**2))
    return result


@pytest.mark.parametrize("valid", [EVERYWHERE, SOMEWHERE])
def test_psnr_is_that_of_the_known_pixels(valid: torch.Tensor) -> None:
    errors = (PREDICTION - TARGET).square().masked_select(valid)
    assert float(psnr(PREDICTION, TARGET, valid)) == pytest.approx(10 * math.log10(1 / float(errors.mean())), rel=1e-5)


def test_an_exact_image_has_100_db_and_no_image_none() -> None:
    assert float(psnr(TARGET, TARGET, EVERYWHERE)) == pytest.approx(100)
    assert psnr(PREDICTION, TARGET, NOWHERE).isnan()
    assert ssim(PREDICTION, TARGET, NOWHERE).isnan()
    assert float(ssim(TARGET, TARGET, EVERYWHERE)) == pytest.approx(1)


def test_ssim_of_known_windows_is_that_of_loops() -> None:
    inside = torch.zeros_like(EVERYWHERE)
    inside[..., 2:18, 3:20] = True  # the windows that are wholly known have their centres 5 pixels further in
    parts = [slow_ssim(PREDICTION[0, c, 2:18, 3:20].numpy(), TARGET[0, c, 2:18, 3:20].numpy()) for c in range(3)]
    assert float(ssim(PREDICTION, TARGET, inside)) == pytest.approx(float(np.mean(parts)), abs=1e-4)


def test_unknown_pixels_change_nothing() -> None:
    spoilt = torch.where(SOMEWHERE, TARGET, torch.nan)
    other = torch.where(SOMEWHERE, PREDICTION, rand(1, 3, 20, 24, seed=5))
    for measure in (psnr, ssim):
        assert float(measure(other, spoilt, SOMEWHERE)) == pytest.approx(float(measure(PREDICTION, TARGET, SOMEWHERE)))


def test_ssim_counts_the_windows_inside_the_image_alone() -> None:
    """The first row is wrong. Mirrored at the border, it would weigh on the five rows above the first whole window."""
    spoilt = TARGET.clone()
    spoilt[..., 0, :] = 1 - spoilt[..., 0, :]
    maps = np.stack([slow_ssim(spoilt[0, c].numpy(), TARGET[0, c].numpy()) for c in range(3)])
    assert maps[:, 1:].min() == pytest.approx(1), "one row of windows sees the wrong pixels"
    assert maps[:, 0].max() < 1
    assert float(ssim(spoilt, TARGET, EVERYWHERE)) == pytest.approx(float(maps.mean()), abs=1e-4)
    below = EVERYWHERE.clone()
    below[..., 0, :] = False
    assert float(ssim(spoilt, TARGET, below)) == pytest.approx(1)


def test_an_image_of_eleven_pixels_has_one_window() -> None:
    one, seen = TARGET[..., :11, :11], PREDICTION[..., :11, :11]
    expected = np.mean([slow_ssim(seen[0, c].numpy(), one[0, c].numpy()).item() for c in range(3)])
    assert float(ssim(seen, one, EVERYWHERE[..., :11, :11])) == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("size", [(10, 24), (20, 10), (5, 5)])
def test_an_image_below_eleven_pixels_has_no_window(size: tuple[int, int]) -> None:
    small = TARGET[..., : size[0], : size[1]]
    assert ssim(small, small, EVERYWHERE[..., : size[0], : size[1]]).isnan()


def test_half_precision_is_widened() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        in_autocast = ssim(PREDICTION, TARGET, EVERYWHERE)
    assert torch.equal(in_autocast, ssim(PREDICTION, TARGET, EVERYWHERE))
    assert psnr(PREDICTION.bfloat16(), TARGET, EVERYWHERE).dtype == torch.float32
