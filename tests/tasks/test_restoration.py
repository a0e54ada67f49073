"""Denoising and enhancement: images to images.

Also tests tasks/denoising.py and tasks/enhancement.py.
"""

from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from semipix.errors import SemipixError
from semipix.functional.similarity import psnr, ssim
from semipix.tasks.denoising import Denoising
from semipix.tasks.enhancement import Enhancement
from tests.helpers.tiny import rand

EVERYWHERE = torch.ones(1, 1, 70, 66, dtype=torch.bool)


@pytest.mark.parametrize("task", [Denoising(), Enhancement()], ids=["denoising", "enhancement"])
def test_figures_are_means_over_images_of_different_sizes(task: Any) -> None:
    metrics = task.metrics()
    expected: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for number, size in enumerate([(20, 24), (31, 13), (16, 40)]):
        target = rand(1, 3, *size, seed=number)
        seen = (target + (0.1 + number) * 0.1 * rand(1, 3, *size, seed=9)).clamp(0, 1)
        metrics.update(seen, target)
        valid = torch.ones(1, 1, *size, dtype=torch.bool)
        expected["psnr"].append(float(psnr(seen, target, valid)))
        expected["ssim"].append(float(ssim(seen, target, valid)))
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == pytest.approx({name: sum(values) / 3 for name, values in expected.items()})
    assert task.primary == "psnr"
    assert task.higher_is_better


def test_a_file_is_an_8_bit_colour_image() -> None:
    made = Denoising().to_file(torch.tensor([0.0, 0.5, 1.0]).view(3, 1, 1).expand(3, 2, 4))
    assert made.dtype == torch.uint8
    assert made[:, 1, 3].tolist() == [0, 128, 255]


class TestPerceptual:
    """LPIPS with an AlexNet of random weights, which need no download."""

    @pytest.fixture
    def alexnet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        torch.manual_seed(0)
        made = torchvision.models.alexnet(weights=None)
        monkeypatch.setattr(torchvision.models, "alexnet", lambda *given, **options: made)

    def test_is_measured_where_it_is_asked_for(self, alexnet: None) -> None:
        metrics = Enhancement(lpips=True).metrics()
        target = rand(1, 3, 70, 66)
        metrics.update(target, target)
        assert float(metrics.compute()["lpips"]) == 0
        spoilt = target.clone()
        spoilt[..., :10, :] = torch.nan
        metrics.update(target, spoilt)
        assert float(metrics.compute()["lpips"]) == 0, "unknown pixels count as met"
        metrics.update(1 - target, target)
        assert float(metrics.compute()["lpips"]) > 0
        assert not any(value.requires_grad for value in metrics.parameters())
        assert "lpips" not in Enhancement().metrics()

    def test_small_images_are_left_out(self, alexnet: None) -> None:
        metrics = Enhancement(lpips=True).metrics()
        metrics.update(rand(1, 3, 20, 20), rand(1, 3, 20, 20, seed=1))
        assert metrics.compute()["lpips"].isnan()

    def test_a_failed_download_is_one_line(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*given: Any, **options: Any) -> nn.Module:
            raise OSError("no route\nto host")

        monkeypatch.setattr(torchvision.models, "alexnet", refuse)
        with pytest.raises(SemipixError, match=r"task\.lpips: true found, .* \(no route to host\)") as error:
            Enhancement(lpips=True).metrics()
        assert "\n" not in str(error.value)


def test_an_image_whose_prediction_is_not_finite_is_not_left_out_of_the_mean() -> None:
    """Otherwise the mean over the other images would look better than the network is."""
    image = torch.full((3, 3, 16, 16), 0.5)
    target = image.clone()
    target[0] = torch.nan
    metrics = Denoising().metrics()
    metrics.update(image + 0.1, target)
    assert metrics.compute()["psnr"] == pytest.approx(20, abs=1e-3)
    spoilt = image + 0.1
    spoilt[2, 0, 0, 0] = torch.nan
    metrics.update(spoilt, target)
    assert metrics.compute()["psnr"].isnan()
