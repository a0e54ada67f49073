"""What every task model must do."""

import copy
from abc import ABC, abstractmethod

import pytest
import torch
from torch import Tensor, nn

from semipix.functional.routing import frozen


def images(height: int, width: int, channels: int = 3) -> Tensor:
    """Two images (2, C, H, W) in [0, 1], the same at every call."""
    return torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0))


class ModelTests(ABC):
    """Inherit, and say how the model is made."""

    channels = 5
    autocast = torch.bfloat16
    """What an output is under bfloat16 autocast."""

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

    def test_learns_within_a_few_steps(self) -> None:
        torch.manual_seed(0)
        model = self.make().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        image, goal = images(40, 33), torch.full((2, self.channels, 40, 33), 0.25)
        errors: list[float] = []
        for _ in range(5):
            optimizer.zero_grad()
            error = (model(image) - goal).square().mean()
            error.backward()
            optimizer.step()
            errors.append(float(error.detach()))
        assert errors[-1] < 0.9 * errors[0]

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
        assert output.dtype == self.autocast
        output.float().square().mean().backward()
        assert all(value.grad is not None and value.grad.isfinite().all() for value in model.parameters())


class FeatureModelTests(ModelTests):
    """For models with an encoder that normalises inside, and the feature protocol."""

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
        assert trained < {name for name, _ in model.named_parameters()}, "only the head"

    def test_black_is_not_what_normalisation_makes_of_it(self, model: nn.Module) -> None:
        seen = model.normalize(torch.zeros(1, 3, 2, 2))
        assert (seen < -0.9).all()
        assert (model.normalize(torch.ones(1, 3, 2, 2)) > 0.9).all()


class CheckpointingTests(ABC):
    """For models that can compute their activations twice instead of keeping them."""

    @abstractmethod
    def make_pair(self) -> tuple[nn.Module, nn.Module]:
        """The same small model without and with checkpointing, of 3 channels in, weights of their own."""

    @pytest.fixture
    def pair(self) -> tuple[nn.Module, nn.Module]:
        torch.manual_seed(0)
        plain, checkpointed = self.make_pair()
        checkpointed.load_state_dict(plain.state_dict())
        return plain.train(), checkpointed.train()

    def test_checkpointing_changes_no_value(self, pair: tuple[nn.Module, nn.Module]) -> None:
        outputs = [model(images(41, 50)) for model in pair]
        torch.testing.assert_close(outputs[1], outputs[0], rtol=0, atol=0)
        for output in outputs:
            output.square().mean().backward()
        for (name, first), second in zip(pair[0].named_parameters(), pair[1].parameters(), strict=True):
            torch.testing.assert_close(second.grad, first.grad, msg=name)
        for (name, first), second in zip(pair[0].named_buffers(), pair[1].buffers(), strict=True):
            torch.testing.assert_close(second, first, rtol=0, atol=0, msg=name)

    def test_checkpointing_keeps_less(self, pair: tuple[nn.Module, nn.Module]) -> None:
        kept: list[int] = []
        for model in pair:
            seen: dict[int, int] = {}

            def pack(value: Tensor, seen: dict[int, int] = seen) -> Tensor:
                seen[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
                return value

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
                output = model(images(64, 64))
            weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
            kept.append(sum(size for place, size in seen.items() if place not in weights))
            assert output.requires_grad
        assert kept[1] < 0.7 * kept[0]

    def test_checkpointing_works_in_a_functional_call(self, pair: tuple[nn.Module, nn.Module]) -> None:
        image = images(41, 50)
        gradients: list[Tensor] = []
        for model in pair:
            before = {name: value.clone() for name, value in model.state_dict().items()}
            seen = image.clone().requires_grad_()
            frozen(model, seen).square().mean().backward()
            assert seen.grad is not None
            gradients.append(seen.grad)
            assert all(value.grad is None for value in model.parameters())
            for name, value in model.state_dict().items():
                torch.testing.assert_close(value, before[name], rtol=0, atol=0)
        torch.testing.assert_close(gradients[1], gradients[0])
        assert gradients[0].any()
