"""The U-Net and its offline weights."""

import logging
import warnings
from pathlib import Path

import huggingface_hub
import pytest
import torch
from timm.models import adapt_input_conv
from torch import nn

from semipix.errors import SemipixError
from semipix.models.deeplab_v2 import DeepLabV2
from semipix.models.pretrained import Normalize, offline_file
from semipix.models.pspnet import PSPNet
from semipix.models.unet import UNet
from tests.models.base import FeatureModelTests, images


class TestUNet(FeatureModelTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return UNet(in_channels, self.channels, pretrained=False, decoder_channels=(32, 24, 16, 12, 8))


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224"])
def test_takes_any_timm_encoder_at_any_size(encoder: str) -> None:
    with torch.no_grad():
        assert UNet(3, 2, encoder, pretrained=False).eval()(images(40, 33)).shape == (2, 2, 40, 33)


def test_a_shallow_decoder_makes_a_shallow_encoder() -> None:
    model = UNet(3, 2, "resnet18", pretrained=False, decoder_channels=(32, 16, 8)).eval()
    assert model.multiple == 8
    with torch.no_grad():
        assert model(images(41, 33)).shape == (2, 2, 41, 33)


def test_the_default_encoder_holds_the_packaged_weights() -> None:
    packaged = torch.load(offline_file(), weights_only=True)
    model = UNet(3, 2)
    encoder = model.network.encoder.model.state_dict()
    random = UNet(3, 2, pretrained=False).network.encoder.model.state_dict()
    assert len(packaged) == 296
    assert len(encoder) == 288, "everything but the classifier"
    for (name, value), (original, expected) in zip(encoder.items(), packaged.items(), strict=False):
        assert name.rpartition(".")[2] == original.rpartition(".")[2]
        torch.testing.assert_close(value, expected, rtol=0, atol=0)
    assert not torch.equal(random["conv_stem.weight"], encoder["conv_stem.weight"])
    # The weights were trained on (255 x - 127) / 128.
    torch.testing.assert_close(model.normalize(torch.full((1, 3, 1, 1), 0.25)), torch.full((1, 3, 1, 1), -63.25 / 128))


def test_a_trimap_changes_nothing_of_the_packaged_weights_at_first() -> None:
    torch.manual_seed(0)
    colours = UNet(3, 1).eval()
    torch.manual_seed(0)
    trimaps = UNet(4, 1).eval()
    first = trimaps.network.encoder.model.conv_stem.weight
    assert first.shape[1] == 4
    assert not first[:, 3:].any()
    torch.testing.assert_close(first[:, :3], colours.network.encoder.model.conv_stem.weight)
    with torch.no_grad():
        seen = [model.features(images(64, 64, 4)[:, :count]) for model, count in ((colours, 3), (trimaps, 4))]
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-3, atol=1e-3)
    trimaps(images(64, 64, 4)).square().mean().backward()
    assert first.grad[:, 3:].any(), "it is learned"


def test_a_trimap_changes_nothing_of_downloaded_weights_at_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def repeat_colours(model: nn.Module, *_: object, in_chans: int = 3, **__: object) -> None:  # as timm does
        colours = torch.ones_like(model.conv1.weight[:, :3]) * torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1, 1)
        with torch.no_grad():
            model.conv1.weight.copy_(adapt_input_conv(in_chans, colours))

    monkeypatch.setattr("timm.models._builder.load_pretrained", repeat_colours)
    for model in (UNet(4, 1, "resnet18"), DeepLabV2(4, 1, "resnet18", pretrained=True), PSPNet(4, 1, "resnet18")):
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        torch.testing.assert_close(first.weight[0, :, 0, 0].detach(), torch.tensor([1.0, 2.0, 3.0, 0.0]))


def test_regression_is_linear_in_the_last_layer() -> None:
    model = UNet(3, 2, pretrained=False, decoder_channels=(32, 24, 16, 12, 8)).eval()
    head = model.network.segmentation_head[0]
    with torch.no_grad():
        before = model(images(64, 64))
        head.weight *= -3
        head.bias *= -3
        torch.testing.assert_close(model(images(64, 64)), -3 * before, rtol=1e-4, atol=1e-5)


def test_normalisation_of_extra_and_missing_channels() -> None:
    half = torch.full((1, 4, 1, 1), 0.5)
    torch.testing.assert_close(
        Normalize(4, (0.1, 0.2, 0.3), (0.5, 0.5, 0.25))(half).flatten(), torch.tensor([0.8, 0.6, 0.8, 0])
    )
    torch.testing.assert_close(
        Normalize(1, (0.1, 0.2, 0.3), (0.5, 0.5, 0.5))(half[:, :1]).flatten(), torch.tensor([0.6])
    )


def test_a_failed_download_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network\nand a long story")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(SemipixError, match=r"model.encoder=resnet18.*\(no network\).*model.pretrained=false") as caught:
        UNet(3, 2, "resnet18")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s to try again"))
    message = r"model.encoder=resnet18: .*could not be downloaded \(http://127.0.0.1:9 does not answer: .*refused"
    with warnings.catch_warnings(record=True) as warned, pytest.raises(SemipixError, match=message):
        UNet(3, 2, "resnet18")
    assert (warned, caplog.records, *capfd.readouterr()) == ([], [], "", "")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    logging.getLogger("timm").warning("heard again")
    assert len(caplog.records) == 1


def test_wrong_offline_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    monkeypatch.setattr("semipix.models.pretrained.offline_file", lambda: tmp_path / "other.pth")
    with pytest.raises(SemipixError, match=r"other.pth: 1 tensors that are not the 296"):
        UNet(3, 2)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semipix.models.pretrained.OFFLINE_PACKAGE", "no-such-package-at-all")
    with pytest.raises(SemipixError, match=r"no-such-package-at-all is not installed.*model.pretrained=false"):
        UNet(3, 2)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [("resnt18", "timm has no such model; did you mean resnet18"), ("vit_tiny_patch16_224", "no pyramid of 5")],
)
def test_an_unfit_encoder_is_refused(encoder: str, message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        UNet(3, 2, encoder, pretrained=False)
    assert "\n" not in str(caught.value)
