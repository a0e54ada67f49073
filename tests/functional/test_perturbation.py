"""Perturbations of features: what each keeps and removes."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.functional.perturbation import (
    adversarial_noise,
    channel_dropout,
    feature_drop,
    feature_noise,
    mask_context,
    mask_objects,
)
from tests.helpers.tiny import rand


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def decoder() -> nn.Module:
    """Features of 8 channels to 3 classes, twice as large."""
    return nn.Sequential(nn.Conv2d(8, 12, 1), nn.PixelShuffle(2), nn.Conv2d(3, 3, 1))


def corner() -> Tensor:
    """The objects of two images of 8x8: the upper left quarter of the first, all of the second."""
    foreground = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    foreground[0, :, :4, :4] = True
    foreground[1] = True
    return foreground


PERTURBATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "noise": feature_noise,
    "drop": feature_drop,
    "dropout": channel_dropout,
    "vat": lambda features: adversarial_noise(features, decoder()),
    "object": lambda features: mask_objects(features, corner()),
    "context": lambda features: mask_context(features, corner()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_copy_of_the_same_kind_through_which_gradients_flow(name: str, dtype: torch.dtype) -> None:
    features = (rand(2, 8, 4, 4) + 0.1).to(dtype).requires_grad_()
    before = features.detach().clone()
    changed = PERTURBATIONS[name](features)
    assert (changed.shape, changed.dtype) == (features.shape, dtype)
    assert torch.equal(features.detach(), before), "the argument is not changed"
    assert not torch.equal(changed.detach(), before)
    changed.float().sum().backward()
    assert features.grad is not None and features.grad.isfinite().all()
    kept = changed.detach() != 0
    assert torch.equal(features.grad != 0, kept), "what is left has a gradient, what is removed has none"


@pytest.mark.parametrize("name", ["noise", "drop", "dropout", "vat"])
def test_the_seed_decides(name: str) -> None:
    features = rand(2, 8, 16, 16)
    results = []
    for number in (1, 1, 2):
        model = decoder()
        with torch.no_grad():
            for value in model.parameters():
                value.copy_(rand(*value.shape))
        torch.manual_seed(number)
        results.append(adversarial_noise(features, model) if name == "vat" else PERTURBATIONS[name](features))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


class TestFeatureNoise:
    def test_scales_each_activation_by_up_to_the_strength(self) -> None:
        features = rand(2, 8, 16, 16) - 0.5
        factor = feature_noise(features) / features
        assert 0.7 - 1e-5 <= factor.min() < 0.71
        assert 1.29 < factor.max() <= 1.3 + 1e-5
        assert len(factor.unique()) > 0.9 * factor.numel(), "each has its own"
        assert not feature_noise(torch.zeros(1, 8, 4, 4)).any()


class TestFeatureDrop:
    def test_removes_the_most_active_pixels_of_each_image(self) -> None:
        activity = torch.linspace(0, 1, 101).view(1, 1, 1, 101)
        features = activity * torch.tensor([0.5, 1.0, 1.5]).view(1, 3, 1, 1)  # of mean `activity`
        features = torch.cat([features, 100 * features, features])
        changed = feature_drop(features)
        kept = (changed != 0).any(1)[:, 0]  # (3, 101)
        assert kept[:, 1:70].all() and not kept[:, 91:].any()
        assert torch.equal(changed, features * kept[:, None, None]), "what is kept is left as it is"
        assert len(kept.sum(1).unique()) == 3, "each image has its own threshold"
        for image in kept[:, 1:]:
            assert torch.equal(image.sort(descending=True).values, image), "one threshold, above which all is removed"

    def test_takes_strong_negative_activations_as_active(self) -> None:
        features = -0.1 * torch.ones(1, 4, 3, 3)
        features[..., 1, 1] = -5.0
        changed = feature_drop(features)
        assert not changed[..., 1, 1].any()
        assert int((changed == 0).sum()) == 4


class TestChannelDropout:
    def test_removes_whole_channels_and_doubles_the_others(self) -> None:
        features = rand(4, 200, 3, 3) + 0.1
        changed = channel_dropout(features)
        kept = changed[..., 0, 0] != 0
        torch.testing.assert_close(changed, 2 * features * kept[..., None, None])
        assert 0.4 < kept.float().mean() < 0.6
        assert not torch.equal(kept[0], kept[1]), "each image loses channels of its own"


def divergence(model: nn.Module, features: Tensor, changed: Tensor) -> float:
    """How far a prediction has moved."""
    with torch.no_grad():
        before, after = (model(value).log_softmax(1) for value in (features, changed))
    return float(F.kl_div(after, before, reduction="sum", log_target=True))


class TestAdversarialNoise:
    def test_pushes_each_image_by_the_length(self) -> None:
        features = rand(3, 8, 4, 4) * torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1, 1)
        for length in (2.0, 0.5):
            push = adversarial_noise(features, decoder(), length) - features
            torch.testing.assert_close(push.flatten(1).norm(dim=1), torch.full((3,), length), atol=1e-3, rtol=0)

    def test_moves_the_prediction_further_than_chance(self) -> None:
        model, features = decoder(), rand(2, 8, 4, 4)
        moved = divergence(model, features, adversarial_noise(features, model))
        for _ in range(20):
            push = torch.randn_like(features)
            push = 2.0 * push / push.flatten(1).norm(dim=1).view(2, 1, 1, 1)
            assert moved > 2 * divergence(model, features, features + push)

    def test_leaves_no_gradient_in_the_parameters(self) -> None:
        model = decoder()
        adversarial_noise(rand(2, 8, 4, 4).requires_grad_(), model)
        assert all(value.grad is None for value in model.parameters())

    def test_autocast_does_not_round_the_search(self) -> None:
        model, features = decoder(), rand(2, 8, 4, 4).bfloat16()
        kinds = []

        def decode(seen: Tensor) -> Tensor:
            output: Tensor = model(seen)
            kinds.append((seen.dtype, output.dtype))
            return output

        torch.manual_seed(1)
        expected = adversarial_noise(features.float(), model).bfloat16()
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            changed = adversarial_noise(features, decode)
        assert kinds == [(torch.float32, torch.float32)] * 2
        torch.testing.assert_close(changed, expected, atol=0.01, rtol=0.01)  # the sum is rounded twice

    def test_a_decoder_that_cannot_be_moved(self) -> None:
        features = rand(2, 8, 4, 4)
        assert torch.equal(adversarial_noise(features, lambda seen: 0.0 * seen), features)


class TestMasks:
    def test_objects_and_context_make_up_the_whole(self) -> None:
        features = rand(2, 8, 4, 4) + 0.1
        without_objects, without_context = mask_objects(features, corner()), mask_context(features, corner())
        assert torch.equal(without_objects + without_context, features)
        assert not without_objects[0, :, :2, :2].any() and not without_objects[1].any()
        assert torch.equal(without_context[0, :, :2, :2], features[0, :, :2, :2])
        assert not without_context[0, :, 2:].any() and not without_context[0, :, :, 2:].any()

    def test_a_feature_goes_by_the_pixel_at_its_centre(self) -> None:
        foreground = torch.zeros(1, 1, 6, 6, dtype=torch.bool)
        foreground[..., 1, 4] = True
        assert mask_context(torch.ones(1, 1, 2, 2), foreground)[0, 0].tolist() == [[0, 1], [0, 0]]
