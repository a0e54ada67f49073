"""What every task model must do."""

import copy
from abc import ABC, abstractmethod

import pytest
import torch
from torch import Tensor, nn


def images(height: int, width: int, channels: int = 3) -> Tensor:
    """Two images (2, C, H, W) in [0, 1], the same at every call."""
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))


class ModelTests(ABC):
    """Inherit, and say how the model is made."""

    channels = 5

    @abstractmethod
    def make(self, in_channels: int = 3) -> nn.Module:
        """A small model of `channels` channels with random weights."""

    @pytest.fixture
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return self.make().eval()

    @pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40)])
    def test_output_has_the_size_of_the_image(self, model: nn.Module, size: tuple[int, int]) -> None:
        with torch.no_grad():
            output = model(images(*size))
        assert output.shape == (2, self.channels, *size)
        assert output.isfinite().all()
        assert output.std() > 0

    def test_takes_a_fourth_channel(self) -> None:
        with torch.no_grad():
            assert self.make(in_channels=4).eval()(images(64, 64, 4)).shape == (2, self.channels, 64, 64)

    def test_gradient_reaches_every_parameter(self, model: nn.Module) -> None:
        for module in model.modules():  # a residual block may start as the identity, its last norm at 0
            if isinstance(module, nn.BatchNorm2d):
                nn.init.ones_(module.weight)
        model.train()(images(65, 97)).square().mean().backward()
        silent = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
        assert not silent

    @pytest.mark.parametrize("size", [(64, 64), (65, 97), (33, 40)])
    def test_the_head_of_the_features_is_the_model(self, model: nn.Module, size: tuple[int, int]) -> None:
        with torch.no_grad():
            maps = model.features(images(*size))
            torch.testing.assert_close(model.head(maps, size), model(images(*size)), rtol=0, atol=0)
        pixels = [seen.shape[-2] * seen.shape[-1] for seen in maps]
        assert pixels == sorted(pixels, reverse=True), "finest first"

    def test_every_feature_map_counts(self, model: nn.Module) -> None:
        size = (65, 97)
        with torch.no_grad():
            maps = model.features(images(*size))
            before = model.head(maps, size)
            for index, seen in enumerate(maps):
                assert len(seen) == 2
                changed = [*maps[:index], seen + seen.abs().mean() + 1, *maps[index + 1 :]]
                assert not torch.allclose(model.head(changed, size), before), f"map {index}"
            torch.testing.assert_close(model.head(maps, size), before, rtol=0, atol=0)

    def test_the_head_trains_without_the_encoder(self, model: nn.Module) -> None:
        size = (65, 97)
        with torch.no_grad():
            maps = model.features(images(*size))
        model.head([seen.requires_grad_() for seen in maps], size).square().mean().backward()
        assert all(seen.grad is not None and seen.grad.any() for seen in maps)
        trained = {name for name, value in model.named_parameters() if value.grad is not None}
        assert trained
        assert trained < {name for name, _ in model.named_parameters()}, "head alone"

    def test_a_copy_is_independent(self, model: nn.Module) -> None:
        image = images(64, 64)
        with torch.no_grad():
            before = model(image)
            twin = copy.deepcopy(model)
            torch.testing.assert_close(twin(image), before, rtol=0, atol=0)
            for parameter in twin.parameters():
                parameter.zero_()
            torch.testing.assert_close(model(image), before, rtol=0, atol=0)

    def test_the_state_dict_is_the_whole_model(self, model: nn.Module) -> None:
        torch.manual_seed(1)
        other = self.make().eval()
        with torch.no_grad():
            expected = model(images(64, 64))
            assert not torch.allclose(other(images(64, 64)), expected)
            other.load_state_dict(model.state_dict())
            torch.testing.assert_close(other(images(64, 64)), expected, rtol=0, atol=0)

    def test_channels_last_changes_nothing(self, model: nn.Module) -> None:
        with torch.no_grad():
            expected = model(images(64, 64))
            last = model.to(memory_format=torch.channels_last)
            output = last(images(64, 64).to(memory_format=torch.channels_last))
        torch.testing.assert_close(output, expected, rtol=1e-3, atol=1e-4)

    def test_trains_under_bfloat16_autocast(self, model: nn.Module) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model.train()(images(65, 97))
        assert output.dtype == torch.bfloat16
        output.float().square().mean().backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())

    def test_black_is_not_what_normalisation_makes_of_it(self, model: nn.Module) -> None:
        seen = model.normalize(torch.zeros(1, 3, 2, 2))
        assert (seen < -0.9).all()
        assert (model.normalize(torch.ones(1, 3, 2, 2)) > 0.9).all()
