"""CCT: auxiliary decoders of perturbed features follow the main decoder."""

import functools
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD

from semipix.errors import SemipixError
from semipix.functional.routing import frozen
from semipix.methods.cct import CCT, PERTURBATIONS, AuxiliaryDecoder
from semipix.models.adapt import adapt
from semipix.models.smp import SMP
from semipix.training.optimizers import optimizer_maker
from tests.helpers.tiny import CLASSES, TinyModel, make_batch, make_method, predict_always, rand


class TwoScales(nn.Module):
    """Maps of 4 and 8 channels at half and a quarter of the image's size, which is padded to a multiple of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 2, stride=2)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 8, 2, stride=2)
        self.last = nn.Conv2d(8, CLASSES, 1)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        padded = nn.functional.pad(image, (0, -width % 4, 0, -height % 4))
        half = self.norm(self.first(padded)).relu()
        return [half, self.second(half)]

    def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        output: Tensor = nn.functional.interpolate(self.last(features[1]), scale_factor=4)
        return output[..., : size[0], : size[1]]


def method_with(*perturbations: str, model: type[nn.Module] = TinyModel, **given: float) -> CCT:
    chosen = {"perturbations": perturbations} if perturbations else {}
    method = make_method("cct", make_model=lambda number: model(), **chosen, **given)
    assert isinstance(method, CCT)
    return method


def consistency(method: CCT) -> Tensor:
    return method.losses(make_batch(), epoch=10.0)["consistency"]


def auxiliary_error(method: CCT, number: int, share: float) -> Tensor:
    """Squared distance of an auxiliary decoder, fed with so much of the features, from the main decoder."""
    batch = make_batch()
    features = frozen_features(method, batch.image)
    goal = method.task.activate(method.model.head(features, batch.image.shape[-2:]))[2:]
    output = method.decoders[number](share * features[-1][2:], batch.image.shape[-2:])
    return (method.task.activate(output) - goal).square().mean()


def frozen_features(method: CCT, image: Tensor) -> list[Tensor]:
    model = method.model
    return [frozen(model.norm, model.first(image)).relu()]


@pytest.mark.parametrize(
    ("name", "label", "share"), [("object", 0, 1), ("object", 1, 0), ("context", 0, 0), ("context", 2, 1)]
)
def test_consistency_is_the_squared_distance_from_the_main_decoder(name: str, label: int, share: float) -> None:
    """Where all pixels are one class, masking removes all features or none."""
    method = method_with(name, lambda_consistency=2.0, rampup_epochs=0.0)
    predict_always(method.model, label)
    torch.testing.assert_close(consistency(method), 2 * auxiliary_error(method, 0, share))


def test_consistency_is_the_mean_over_decoders() -> None:
    method = method_with("object", "context", "object", lambda_consistency=1.0)
    predict_always(method.model, 1)
    errors = [auxiliary_error(method, number, share) for number, share in enumerate((0, 1, 0))]
    torch.testing.assert_close(consistency(method), torch.stack(errors).mean())
    assert len(torch.stack(errors).unique()) == 3, "each has a decoder of its own"


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_name_perturbs_what_its_decoder_sees(name: str) -> None:
    method = method_with(name)
    seen: list[Tensor] = []
    method.decoders[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    batch = make_batch()
    method.losses(batch, epoch=0.0)
    whole = frozen_features(method, batch.image)[-1][2:]
    assert seen[-1].shape == whole.shape, "only unlabeled images"
    assert not torch.equal(seen[-1], whole)
    assert len(seen) == (3 if name == "vat" else 1), "the adversary asks its decoder before and after its step"


def test_encoder_and_main_decoder_run_once_over_all_images() -> None:
    method, batch = method_with(model=TwoScales), make_batch()
    images: list[int] = []
    for part in (method.model.first, method.model.last):
        part.register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))
    method.losses(batch, epoch=0.0)
    assert images == [4, 4]


def test_the_main_decoder_learns_only_from_labels() -> None:
    method = method_with()
    losses = method.losses(make_batch(), epoch=10.0)
    losses["consistency"].backward()
    assert method.model.last.weight.grad is None
    assert method.model.first.weight.grad is not None and method.model.first.weight.grad.any()


def test_nothing_has_a_gradient_before_backward_and_all_have_one_after() -> None:
    method = method_with(model=TwoScales)
    losses = method.losses(make_batch(), epoch=10.0)
    assert all(value.grad is None for value in method.parameters())
    sum(losses.values()).backward()
    assert all(value.grad is not None for value in method.parameters())


def test_the_probe_leaves_the_model_as_it_was() -> None:
    method = method_with()
    assert all(module.training for module in method.modules())
    assert int(method.model.norm.num_batches_tracked) == 0
    assert torch.equal(method.model.norm.running_mean, torch.zeros(4))


@pytest.mark.parametrize(("model", "channels", "stages"), [(TinyModel, 4, 0), (TwoScales, 8, 2)])
def test_decoders_fit_the_coarsest_map(model: type[nn.Module], channels: int, stages: int) -> None:
    method = method_with(model=model)
    assert len(method.decoders) == 6
    for decoder in method.decoders:
        assert decoder.project.in_channels == channels
        assert len(decoder.upsample) == stages


def test_a_u_net_and_images_of_odd_size() -> None:
    network = functools.partial(SMP, 3, CLASSES, pretrained=False, decoder_channels=(8, 8, 8))
    method = make_method("cct", make_model=lambda number: adapt(network(), CLASSES))
    losses = method.losses(make_batch(side=45), epoch=10.0)
    assert all(loss.isfinite() and loss > 0 for loss in losses.values())
    assert len(method.decoders[0].upsample) == 3


class TestAuxiliaryDecoder:
    def test_starts_as_nearest_neighbour_upsampling(self) -> None:
        decoder, features = AuxiliaryDecoder(8, CLASSES, stride=4), rand(2, 8, 3, 5)
        coarse = decoder.project(features)
        expected = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        torch.testing.assert_close(decoder(features, (12, 20)), expected)

    def test_crops_what_the_model_padded(self) -> None:
        decoder, features = AuxiliaryDecoder(8, CLASSES, stride=4), rand(1, 8, 3, 5)
        torch.testing.assert_close(decoder(features, (10, 17)), decoder(features, (12, 20))[..., :10, :17])

    def test_resizes_where_the_stride_is_no_power_of_two(self) -> None:
        decoder, features = AuxiliaryDecoder(8, CLASSES, stride=6), rand(1, 8, 3, 5)
        coarse = decoder.upsample(decoder.project(features))
        assert coarse.shape[-2:] == (12, 20)
        expected = nn.functional.interpolate(coarse, (18, 30), mode="bilinear")
        torch.testing.assert_close(decoder(features, (18, 30)), expected)
        torch.testing.assert_close(decoder(features, (16, 27)), expected[..., :16, :27])


class Padding(TwoScales):
    """The same, but images are padded to 128 pixels a side."""

    def features(self, image: Tensor) -> list[Tensor]:
        height, width = image.shape[-2:]
        return super().features(nn.functional.pad(image, (0, max(0, 128 - width), 0, max(0, 128 - height))))


def test_a_model_with_a_smallest_size_keeps_its_stride() -> None:
    method = method_with(model=Padding)
    assert [decoder.stride for decoder in method.decoders] == [4.0] * 6
    features = method.model.features(rand(1, 3, 45, 45))[-1]
    output = method.decoders[0](features, (45, 45))
    assert torch.equal(output, method.decoders[0](features, (128, 128))[..., :45, :45])


@pytest.mark.parametrize("scale", [10.0, 3.0])
def test_auxiliary_decoders_learn_faster(scale: float) -> None:
    method = method_with(**({} if scale == 10 else {"decoder_lr_scale": scale}))
    model, decoders = method.optimizers(optimizer_maker(functools.partial(SGD, lr=0.01)))
    assert [group["lr"] for group in model.param_groups] == pytest.approx([0.01])
    assert [group["lr"] for group in decoders.param_groups] == pytest.approx([0.01 * scale])
    assert {id(value) for value in decoders.param_groups[0]["params"]} == {
        id(value) for value in method.decoders.parameters()
    }


def test_the_weight_grows() -> None:
    method = method_with("object")
    predict_always(method.model, 1)
    start, end = (method.losses(make_batch(), epoch)["consistency"] for epoch in (0.0, 5.0))
    torch.testing.assert_close(start, end * torch.tensor(-5.0).exp())


def test_the_model_is_deployed() -> None:
    method = method_with().eval()
    image = make_batch().image
    assert torch.equal(method(image), method.model(image))


def test_bfloat16_autocast_keeps_losses_in_float32() -> None:
    method = method_with(model=TwoScales)
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(make_batch(), epoch=10.0)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in method.parameters())


def test_weights_in_bfloat16() -> None:
    method, batch = method_with(model=TwoScales).bfloat16(), make_batch()
    losses = method.losses(batch._replace(image=batch.image.bfloat16()), epoch=10.0)
    sum(losses.values()).backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in method.parameters())


@pytest.mark.parametrize("found", [(), ("noise", "cutout")])
def test_unknown_perturbations_are_named(found: tuple[str, ...]) -> None:
    with pytest.raises(SemipixError, match=r"method.perturbations: \[.*\] found, expected at least one of noise, drop"):
        make_method("cct", perturbations=found)


@pytest.mark.parametrize("key", ["lambda_consistency", "rampup_epochs", "decoder_lr_scale"])
def test_a_wrong_value_is_refused_in_one_line(key: str) -> None:
    with pytest.raises(SemipixError, match=f"method.{key}: -1 found, 0 or more expected"):
        make_method("cct", **{key: -1})


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: adapt(model, CLASSES)])
def test_a_model_without_feature_maps_is_refused(wrap: type) -> None:
    with pytest.raises(SemipixError, match="Conv2d has no method 'features', and the training method works on feature"):
        make_method("cct", make_model=lambda number: wrap(nn.Conv2d(3, CLASSES, 1)))
