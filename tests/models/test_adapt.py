"""Any module as a task model."""

import copy
from collections import OrderedDict
from types import SimpleNamespace

import pytest
import segmentation_models_pytorch as smp
import torch
import torch.distributed as distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from semipix.errors import SemipixError
from semipix.functional.routing import frozen
from semipix.models.adapt import Adapter, adapt, make_model
from semipix.models.deeplab_v2 import DeepLabV2
from semipix.models.dhdn import DHDN
from semipix.models.smp import SMP

IMAGE = torch.rand(2, 3, 16, 20, generator=torch.Generator().manual_seed(0))


class Wraps(nn.Module):
    """A convolution whose output is dressed up."""

    def __init__(self, dress, stride: int = 1, channels: int = 4) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, channels, 1, stride=stride)
        self.dress = dress

    def forward(self, image: Tensor) -> object:
        return self.dress(self.convolution(image))


class Model(nn.Module):
    """Stores its arguments."""

    def __init__(self, **given: object) -> None:
        super().__init__()
        self.given = given


DRESSES = {
    "tensor": lambda value: value,
    "dict": lambda value: OrderedDict(out=value, aux=-value),
    "logits": lambda value: SimpleNamespace(logits=value, loss=None),
    "list": lambda value: [value, -value],
    "tuple": lambda value: (value, -value),
}


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_finds_the_map(dress) -> None:
    model = Wraps(dress)
    torch.testing.assert_close(adapt(model, 4)(IMAGE), model.convolution(IMAGE), rtol=0, atol=0)


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_resizes_a_coarse_map(dress) -> None:
    model = Wraps(dress, stride=4)
    expected = nn.functional.interpolate(model.convolution(IMAGE), size=(16, 20), mode="bilinear")
    torch.testing.assert_close(adapt(model, 4)(IMAGE), expected)


def test_the_right_map_is_passed_on_untouched() -> None:
    held = torch.rand(2, 4, 16, 20)
    assert adapt(Wraps(lambda _: held), 4)(IMAGE) is held


@pytest.mark.parametrize(
    ("dress", "message"),
    [
        (lambda value: value[:, :3], r"shape \(2, 3, 16, 20\), expected \(N, 4, H, W\)"),
        (lambda value: value.mean((2, 3)), r"shape \(2, 4\), expected"),
        (lambda value: {"masks": value}, r"a dict with keys \['masks'\], expected a tensor"),
        (lambda _: None, "a NoneType, expected a tensor"),
        (lambda _: [], "a list, expected a tensor"),
        (lambda value: [[value]], "a list, expected a tensor"),
    ],
)
def test_what_is_no_map_is_one_line(dress, message: str) -> None:
    with pytest.raises(
        SemipixError, match=f"model: Wraps returned {'a tensor of ' if 'shape' in message else ''}{message}"
    ) as caught:
        adapt(Wraps(dress), 4)(IMAGE)
    assert "\n" not in str(caught.value)


def test_an_adapter_is_not_wrapped_again() -> None:
    once = adapt(Wraps(DRESSES["dict"]), 4)
    assert adapt(once, 4) is once
    assert list(once.state_dict()) == ["model.convolution.weight", "model.convolution.bias"]


def test_what_images_settle_is_written_last() -> None:
    def darken(output: Tensor, image: Tensor) -> Tensor:
        return torch.where(image[:, :1] > 0.5, 0.0, output)

    model = Wraps(DRESSES["dict"], stride=2)
    plain, constrained = adapt(model, 4), adapt(model, 4, darken)
    assert torch.equal(constrained(IMAGE), darken(plain(IMAGE), IMAGE))
    assert not torch.equal(constrained(IMAGE), plain(IMAGE))
    assert constrained.state_dict().keys() == plain.state_dict().keys()
    again = adapt(plain, 4, darken)
    assert torch.equal(again(IMAGE), constrained(IMAGE))
    assert again.state_dict().keys() == plain.state_dict().keys()
    assert adapt(constrained, 4) is constrained
    made = make_model(lambda: model, 3, 4, darken)
    assert torch.equal(made(IMAGE), constrained(IMAGE))


def test_learning_rate_groups_pass_through() -> None:
    model = DeepLabV2(3, 4, backbone="resnet18")
    assert [group["lr_scale"] for group in Adapter(model, 4).parameter_groups()] == [1.0, 10.0]
    (group,) = Adapter(Wraps(DRESSES["dict"]), 4).parameter_groups()
    assert group["lr_scale"] == 1.0
    assert len(group["params"]) == 2


class Halves(nn.Module):
    """Follows the feature protocol: one map of half the size, and an output in a dress."""

    def __init__(self, dress=DRESSES["tensor"], channels: int = 4) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, 6, 1, stride=2)
        self.decoder = nn.Conv2d(6, channels, 1)
        self.dress = dress

    def forward(self, image: Tensor) -> object:
        return self.head(self.features(image), image.shape[-2:])

    def features(self, image: Tensor) -> tuple[Tensor]:
        return (self.encoder(image),)

    def head(self, features, size) -> object:
        return self.dress(self.decoder(features[0]))


class Layers(Wraps):
    """Calls its layers `features`, as torchvision's classifiers do; they are not methods."""

    def __init__(self, dress) -> None:
        super().__init__(dress)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 1))


class Headless(Wraps):
    """Has only `features`."""

    def features(self, image: Tensor) -> list[Tensor]:
        return [image]


@pytest.mark.parametrize("dress", DRESSES.values(), ids=DRESSES)
def test_the_feature_protocol_passes_through(dress) -> None:
    model = Halves(dress)
    adapted = adapt(model, 4)
    maps = adapted.features(IMAGE)
    assert isinstance(maps, list)
    torch.testing.assert_close(maps, [model.encoder(IMAGE)], rtol=0, atol=0)
    torch.testing.assert_close(adapted.head(maps, (16, 20)), adapted(IMAGE), rtol=0, atol=0)
    changed = [maps[0] + 1]
    expected = nn.functional.interpolate(model.decoder(changed[0]), size=(16, 20), mode="bilinear")
    torch.testing.assert_close(adapted.head(changed, (16, 20)), expected)


def test_a_head_of_the_right_size_is_passed_on_untouched() -> None:
    model = Halves()
    maps = model.features(IMAGE)
    torch.testing.assert_close(adapt(model, 4).head(maps, (8, 10)), model.decoder(maps[0]), rtol=0, atol=0)


def test_the_size_is_the_models_own_business_too() -> None:
    unet = SMP(3, 4, encoder="resnet18", pretrained=False).eval()
    adapted = adapt(unet, 4)
    image = torch.rand(1, 3, 41, 52, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(adapted.head(adapted.features(image), (41, 52)), unet(image), rtol=0, atol=0)


def test_a_head_of_other_channels_is_one_line() -> None:
    with pytest.raises(SemipixError, match=r"Halves returned a tensor of shape \(2, 5, 8, 10\), expected") as caught:
        adapt(Halves(channels=5), 4).head([torch.rand(2, 6, 8, 10)], (16, 20))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("kind", "missing"), [(Wraps, "features"), (Layers, "features"), (Headless, "head")])
def test_a_module_without_the_feature_protocol_is_one_line(kind: type[Wraps], missing: str) -> None:
    adapted = adapt(kind(DRESSES["tensor"]), 4)
    with pytest.raises(SemipixError, match=f"model: {kind.__name__} has no method '{missing}'.*model=unet") as caught:
        adapted.features(IMAGE)
    assert "\n" not in str(caught.value)
    assert adapted(IMAGE).shape == (2, 4, 16, 20), "other methods can train it"


def test_survives_copies_functional_calls_and_data_parallel() -> None:
    model = adapt(Wraps(DRESSES["dict"], stride=2), 4)
    expected = model(IMAGE)
    twin = copy.deepcopy(model)
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin(IMAGE), expected)
    image = IMAGE.clone().requires_grad_()
    frozen(model, image).sum().backward()
    assert image.grad.any()
    assert model.model.convolution.weight.grad is None
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        parallel = DistributedDataParallel(model)
        torch.testing.assert_close(parallel(IMAGE), expected)
        parallel(IMAGE).sum().backward()
    finally:
        distributed.destroy_process_group()
    assert model.model.convolution.weight.grad.any()


def _own(in_channels: int, channels: int) -> nn.Module:
    return Model(in_channels=in_channels, channels=channels)


def _timm(in_chans: int = 3, num_classes: int = 1000) -> nn.Module:
    return Model(in_chans=in_chans, num_classes=num_classes)


def _transformers(num_channels: int = 3, num_labels: int = 2, width: int = 8) -> nn.Module:
    return Model(num_channels=num_channels, num_labels=num_labels, width=width)


def _width(in_channels: int, channels: int = 64, num_classes: int = 2) -> nn.Module:
    return Model(in_channels=in_channels, channels=channels, num_classes=num_classes)


def _restoration(in_channels: int = 3, out_channels: int = 3) -> nn.Module:
    return Model(in_channels=in_channels, out_channels=out_channels)


def _nothing(depth: int = 3) -> nn.Module:
    return Model(depth=depth)


@pytest.mark.parametrize(
    ("target", "options", "expected"),
    [
        (_own, {}, {"in_channels": 4, "channels": 7}),
        (_own, {"channels": 9}, {"in_channels": 4, "channels": 9}),
        (_timm, {}, {"in_chans": 4, "num_classes": 7}),
        (_transformers, {"width": 2}, {"num_channels": 4, "num_labels": 7, "width": 2}),
        (_width, {}, {"in_channels": 4, "channels": 64, "num_classes": 7}),
        (_width, {"channels": 32}, {"in_channels": 4, "channels": 32, "num_classes": 7}),
        (_restoration, {}, {"in_channels": 4, "out_channels": 7}),
        (_nothing, {}, {"depth": 3}),
    ],
)
def test_make_model_fills_in_the_channels(target, options: dict, expected: dict) -> None:
    made = make_model(target, 4, 7, **options)
    assert isinstance(made, Adapter)
    assert made.channels == 7
    assert made.model.given == expected


def test_make_model_makes_foreign_and_own_models() -> None:
    foreign = make_model(smp.FPN, 4, 3, encoder_name="resnet18", encoder_weights=None).eval()
    own = make_model(SMP, 4, 3, encoder="resnet18", pretrained=False).eval()
    with torch.no_grad():
        for model in (foreign, own):
            assert model(torch.rand(1, 4, 64, 64)).shape == (1, 3, 64, 64)


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        (_own, {"depth": 3}, r"model: _own cannot be made: .*'depth'; it takes in_channels, channels"),
        (DHDN, {"backbone": "x"}, r"model: DHDN cannot be made: .*'backbone'; it takes in_channels, channels, width"),
        (SMP, {"backbone": "x"}, r"unknown key model.backbone; unet takes "),
        (lambda: "text", {}, r"model: <lambda> made a str, expected a torch.nn.Module"),
    ],
)
def test_make_model_errors_are_one_line(target, options: dict, message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        make_model(target, 3, 2, **options)
    assert "\n" not in str(caught.value)
