"""The flaw detector."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.functional.routing import frozen
from semipix.models.flaw_detector import BatchInstanceNorm, FlawDetector

NORMS = ["batch", "batch_instance"]


def inputs(height: int = 64, width: int = 64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, 3, height, width, generator=generator), torch.rand(2, 5, height, width, generator=generator)


def test_layers_are_those_of_appendix_b() -> None:
    layers = FlawDetector(3, 5).convolutions
    assert [layer.in_channels for layer in layers] == [8, 64, 128, 128, 256, 256, 512, 512]
    assert [layer.out_channels for layer in layers] == [64, 128, 128, 256, 256, 512, 512, 1]
    assert [layer.stride for layer in layers] == [(side, side) for side in (2, 2, 1, 2, 1, 2, 1, 2)]
    assert {layer.kernel_size for layer in layers} == {(4, 4)}
    assert [layer.bias is not None for layer in layers] == [False] * 7 + [True]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("size", [(64, 64), (65, 127), (100, 70)])
@pytest.mark.parametrize("training", [True, False])
def test_works_at_any_size(norm, size: tuple[int, int], training: bool) -> None:
    detector = FlawDetector(3, 5, norm).train(training)
    for image, prediction in (inputs(*size), tuple(value[:1] for value in inputs(*size))):
        flaw = detector(image, prediction)
        assert flaw.shape == (len(image), 1, *size)
        assert flaw.isfinite().all()


@pytest.mark.parametrize("size", [(64, 64), (65, 127), (100, 70)])
def test_padding_is_the_same_padding(size: tuple[int, int]) -> None:
    detector = FlawDetector(3, 5)
    sides: list[tuple[int, int]] = []
    for layer in detector.convolutions:
        layer.register_forward_hook(lambda _, __, output: sides.append(tuple(output.shape[-2:])))
    detector(*inputs(*size))
    expected = size
    for stride, found in zip((2, 2, 1, 2, 1, 2, 1, 2), sides, strict=True):
        expected = tuple(-(-side // stride) for side in expected)
        assert found == expected


def test_is_the_network_of_the_paper_written_out() -> None:
    # At 64x64 stride 2 pads one pixel on each side, stride 1 one before and two after.
    torch.manual_seed(0)
    detector = FlawDetector(3, 5).eval()
    image, prediction = inputs()
    features = torch.cat([image, prediction], dim=1)
    for i, layer in enumerate(detector.convolutions):
        pads = (1, 1, 1, 1) if layer.stride == (2, 2) else (1, 2, 1, 2)
        features = F.conv2d(F.pad(features, pads), layer.weight, layer.bias, layer.stride)
        if i < 7:
            norm = detector.norms[i]
            features = (features - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + 1e-5).sqrt()
            features = torch.where(features > 0, features, 0.2 * features)
    expected = F.interpolate(features, size=(64, 64), mode="bilinear", align_corners=True)
    torch.testing.assert_close(detector(image, prediction), expected, rtol=1e-4, atol=1e-6)
    assert (expected < 0).any(), "no activation at the end"


def test_batch_instance_norm_splits_the_channels() -> None:
    norm = BatchInstanceNorm(6)
    nn.init.constant_(norm.batch.weight, 2.0)
    features = torch.rand(2, 6, 8, 8) * torch.tensor([1.0, 5.0]).view(2, 1, 1, 1)
    output = norm(features)
    torch.testing.assert_close(output[:, :3].std((0, 2, 3), correction=0), torch.full((3,), 2.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(output[:, 3:].std((2, 3), correction=0), torch.ones(2, 3), rtol=1e-3, atol=1e-3)
    assert [name for name, _ in norm.named_parameters()] == ["batch.weight", "batch.bias"]
    detector = FlawDetector(3, 5, "batch_instance")
    assert all(isinstance(module, BatchInstanceNorm) for module in detector.norms)


@pytest.mark.parametrize("norm", NORMS)
def test_gradient_reaches_every_parameter(norm) -> None:
    detector = FlawDetector(3, 5, norm)
    detector(*inputs()).square().mean().backward()
    assert all(value.grad is not None and value.grad.any() for value in detector.parameters())


@pytest.mark.parametrize("norm", NORMS)
def test_frozen_trains_the_prediction_only(norm) -> None:
    detector = FlawDetector(3, 5, norm)
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    image, prediction = inputs(65, 127)
    prediction.requires_grad_()
    flaw = frozen(detector, image, prediction)
    flaw.square().mean().backward()
    assert prediction.grad is not None and prediction.grad.any()
    assert all(value.grad is None for value in detector.parameters())
    for name, value in detector.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    torch.testing.assert_close(detector(image, prediction), flaw)
    assert any(not torch.equal(value, before[name]) for name, value in detector.state_dict().items())


@pytest.mark.parametrize(
    ("image", "prediction"),
    [
        ((2, 3, 64, 64), (2, 4, 64, 64)),
        ((2, 4, 64, 64), (2, 5, 64, 64)),
        ((2, 3, 64, 64), (2, 5, 32, 32)),
        ((2, 3, 64, 64), (1, 5, 64, 64)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(image: tuple[int, ...], prediction: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected shapes \(N, 3, H, W\) and \(N, 5, H, W\)") as caught:
        FlawDetector(3, 5)(torch.zeros(image), torch.zeros(prediction))
    assert "\n" not in str(caught.value)


def test_an_unknown_norm_is_refused() -> None:
    with pytest.raises(ValueError, match="'group' is unknown"):
        FlawDetector(3, 5, "group")


@pytest.mark.parametrize("scale", [0.5, 0.3])
def test_at_a_smaller_scale_it_sees_the_averaged_image(scale: float) -> None:
    image, prediction = inputs(64, 80)
    torch.manual_seed(0)
    whole = FlawDetector(3, 5).eval()
    torch.manual_seed(0)
    scaled = FlawDetector(3, 5, scale=scale).eval()
    small = [F.adaptive_avg_pool2d(map, (round(64 * scale), round(80 * scale))) for map in (image, prediction)]
    coarse = whole.convolutions[-1].register_forward_hook(lambda module, given, output: coarse_maps.append(output))
    coarse_maps: list[Tensor] = []
    whole(*small)
    coarse.remove()
    expected = F.interpolate(coarse_maps[0], size=(64, 80), mode="bilinear", align_corners=True)
    torch.testing.assert_close(scaled(image, prediction), expected)


@pytest.mark.parametrize("scale", [0, -1, 1.5])
def test_a_scale_out_of_range_is_refused(scale: float) -> None:
    with pytest.raises(ValueError, match=f"scale {scale} found"):
        FlawDetector(3, 5, scale=scale)
