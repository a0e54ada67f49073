"""Deep Image Matting."""

import pytest
import torch
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torchvision.models import vgg16

from semipix.errors import SemipixError
from semipix.models.adapt import make_model
from semipix.models.deep_image_matting import DeepImageMatting, Refinement
from semipix.models.dhdn import DHDN
from tests.models.base import CheckpointingTests, ModelTests, images


class TestDeepImageMatting(ModelTests, CheckpointingTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return DeepImageMatting(in_channels, self.channels, width=4)

    def make_pair(self) -> tuple[nn.Module, nn.Module]:
        return tuple(DeepImageMatting(3, 1, width=4, checkpointing=given) for given in (False, True))


def test_the_full_model_has_28_million_parameters() -> None:
    with torch.device("meta"):
        model = DeepImageMatting()
    total, refinement = (sum(value.numel() for value in part.parameters()) for part in (model, model.refinement))
    assert (total - refinement, refinement) == (28_297_153, 76_801)
    decoder = [module for module in model.decoder.modules() if isinstance(module, nn.Conv2d)]
    assert [layer.out_channels for layer in decoder] == [512, 256, 128, 64, 64, 1]
    assert {layer.kernel_size for layer in decoder} == {(5, 5)}


def test_the_decoder_unpools_to_where_the_encoder_pooled() -> None:
    torch.manual_seed(0)
    model = DeepImageMatting(width=4)
    pooled: list[Tensor] = []
    unpooled: list[Tensor] = []
    for stage in model.encoder:
        stage.layers.register_forward_hook(lambda _, __, output: pooled.append(output))
    for stage in model.decoder:
        stage.layers.register_forward_pre_hook(lambda _, given: unpooled.append(given[0]))
    model(images(64, 64, 4))
    for features, sparse in zip(pooled, reversed(unpooled), strict=True):
        assert features.shape == sparse.shape
        largest = nn.functional.max_pool2d(features, 2)
        repeated = largest.repeat_interleave(2, -1).repeat_interleave(2, -2)
        assert not sparse[features < repeated].any(), "zero where the encoder took none"
        assert sparse.any()


def test_alpha_starts_in_the_middle() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        alpha = DeepImageMatting(width=16)(images(64, 64, 4))
    assert (alpha - 0.5).abs().mean() < 0.25


def test_the_refinement_adds_to_alpha_what_it_sees_in_the_colours() -> None:
    torch.manual_seed(0)
    stage = Refinement(3, 1, 4)
    image, alpha = images(9, 8, 4), torch.rand(2, 1, 9, 8)
    before = stage(image, alpha)
    trimap = torch.cat([image[:, :3], 1 - image[:, 3:]], dim=1)
    torch.testing.assert_close(stage(trimap, alpha), before, rtol=0, atol=0)
    assert not torch.allclose(stage(1 - image, alpha), before)
    nn.init.zeros_(stage.last.weight)
    nn.init.zeros_(stage.last.bias)
    torch.testing.assert_close(stage(image, alpha), alpha, rtol=0, atol=0)


def test_pretrained_weights_are_those_of_vgg_and_ignore_the_trimap_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    vgg = vgg16(num_classes=1).features
    weights = {f"features.{name}": value for name, value in vgg.state_dict().items()}
    monkeypatch.setattr("torchvision.models.VGG16_Weights.get_state_dict", lambda *_, **__: weights)
    model = DeepImageMatting(pretrained=True)
    assert not next(model.encoder.parameters())[:, 3:].any()
    image = images(32, 32, 4)
    features = model.normalize(image)
    with torch.no_grad():
        expected = vgg(features[:, :3])
        for stage in model.encoder:
            features, _ = stage(features)
    torch.testing.assert_close(features, expected, rtol=1e-3, atol=1e-4)
    assert expected.any()


def test_bands_have_their_own_statistics_and_the_pretrained_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = {f"features.{name}": value for name, value in vgg16(num_classes=1).features.state_dict().items()}
    monkeypatch.setattr("torchvision.models.VGG16_Weights.get_state_dict", lambda *_, **__: weights)
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.2, 0.2, 0.3, 0.3, 0.3]
    made = make_model(DeepImageMatting, 5, 1, None, (mean, std), pretrained=True)
    assert made.normalises_bands
    assert made.model.normalize.mean.flatten().tolist() == pytest.approx(mean)
    assert made.model.normalize.std.flatten().tolist() == pytest.approx(std)
    first = next(made.model.encoder.parameters())
    assert torch.equal(first, adapt_input_conv(5, weights["features.0.weight"]))
    assert made.model.refinement.colours == 5
    assert not make_model(DHDN, 5, 1, None, (mean, std), width=8).normalises_bands


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network\nand a long story")

    monkeypatch.setattr("torchvision.models.VGG16_Weights.get_state_dict", unreachable)
    message = r"model.pretrained=true: .*could not be downloaded \(no network\); set model.pretrained=false"
    with pytest.raises(SemipixError, match=message) as caught:
        DeepImageMatting(pretrained=True)
    assert "\n" not in str(caught.value)


def test_errors_are_one_line() -> None:
    with pytest.raises(SemipixError, match=r"model.width=8: pretrained weights are for width 64; set"):
        DeepImageMatting(width=8, pretrained=True)
    with pytest.raises(SemipixError, match=r"model.width=0: expected 1 or more"):
        DeepImageMatting(width=0)
    with pytest.raises(SemipixError, match=r"data.crop: 31x64 .* DeepImageMatting expects at least 32x32"):
        DeepImageMatting(width=4)(images(31, 64, 4))
