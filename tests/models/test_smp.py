"""Every decoder of segmentation-models-pytorch on encoders of timm, and the offline weights.

Also tests models/pretrained.py.
"""

import logging
import warnings
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import segmentation_models_pytorch as smp
import torch
from timm.models import adapt_input_conv
from torch import nn

from semipix.errors import SemipixError
from semipix.models.deeplab_v2 import DeepLabV2
from semipix.models.padding import pad_to_multiple
from semipix.models.pretrained import Normalize, offline_file
from semipix.models.smp import ARCHITECTURES, SMP, options_of
from tests.models.base import CheckpointingTests, FeatureModelTests, images

SMALL: dict[str, dict[str, Any]] = {
    **{name: {"decoder_channels": (16, 12, 8, 8, 8)} for name in ("unet", "unetplusplus")},
    "manet": {"decoder_channels": (32, 32, 16, 16, 16), "decoder_pab_channels": 8},
    "fpn": {"width": 32, "decoder_segmentation_channels": 32, "dropout": 0.0},
    "pspnet": {"width": 16, "dropout": 0.0},
    "dpt": {"width": 8, "decoder_intermediate_channels": (8, 8, 8, 8)},
    **{name: {"width": 16, "dropout": 0.0} for name in ("deeplabv3", "deeplabv3plus")},
    **{name: {"width": 16} for name in ("pan", "upernet", "segformer")},
}
"""Options that make a decoder small."""

SMALL_ENCODERS = {"dpt": "vit_tiny_patch16_224"}


def make(architecture: str, encoder: str = "", in_channels: int = 3, channels: int = 2, **options: Any) -> SMP:
    encoder = encoder or SMALL_ENCODERS.get(architecture, "mobilenetv3_small_050")
    given = {**SMALL.get(architecture, {}), **options}
    return SMP(in_channels, channels, architecture, encoder, pretrained=False, **given)


class TestUNet(FeatureModelTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return SMP(in_channels, self.channels, pretrained=False, decoder_channels=(32, 24, 16, 12, 8))


class TestPSPNet(FeatureModelTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return make("pspnet", "resnet18", in_channels, self.channels, width=32)


class TestCheckpointing(CheckpointingTests):
    def make_pair(self) -> tuple[nn.Module, nn.Module]:
        plain, twice = (make("unet", "resnet18", checkpointing=checkpointing) for checkpointing in (False, True))
        return plain, twice


def test_every_architecture_of_the_library_is_known() -> None:
    assert ARCHITECTURES.keys() == smp.MODEL_ARCHITECTURES_MAPPING.keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_computes_and_learns_at_96_and_an_odd_size(architecture: str) -> None:
    torch.manual_seed(0)
    model = make(architecture)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for size in ((96, 96), (65, 97)):
        image = images(*size)
        with torch.no_grad():
            output = model.eval()(image)
            assert output.shape == (2, 2, *size)
            padded = pad_to_multiple(model.normalize(image), model.multiple, smallest=model.smallest)
            assert list(padded.shape[-2:]) == model.padded(size)
            expected = model.network(padded)[..., : size[0], : size[1]]  # as the library computes it
            torch.testing.assert_close(output, expected, rtol=0, atol=0)
            maps = model.features(image)
            before = model.head(maps, size)
            for number, seen in enumerate(maps):
                changed = [*maps[:number], seen + seen.abs().mean() + 1, *maps[number + 1 :]]
                assert not torch.equal(model.head(changed, size), before), f"map {number} is not read"
        pixels = [seen.shape[-2] * seen.shape[-1] for seen in maps]
        assert pixels == sorted(pixels, reverse=True), "finest first"
        error = (model.train()(image) - 0.25).square().mean()
        error.backward()
        assert all(value.grad is not None for value in model.parameters()), "a distributed training would stop"
        optimizer.step()
        optimizer.zero_grad()
        assert model.eval()(image).isfinite().all()


@pytest.mark.parametrize("architecture", ["deeplabv3plus", "dpt", "segformer"])
def test_an_architecture_that_is_computed_twice_has_the_same_gradients(architecture: str) -> None:
    plain, twice = (make(architecture, checkpointing=checkpointing).train() for checkpointing in (False, True))
    twice.load_state_dict(plain.state_dict())
    for model in (plain, twice):
        torch.manual_seed(0)  # of dropout
        model(images(65, 97)).square().mean().backward()
    for (name, first), second in zip(plain.named_parameters(), twice.parameters(), strict=True):
        torch.testing.assert_close(second.grad, first.grad, msg=name)


@pytest.mark.parametrize(
    ("architecture", "encoder", "whole"),
    [
        *((name, "resnet18", name not in ("unet", "unetplusplus", "linknet", "segformer")) for name in ARCHITECTURES),
        ("unet", "mobilenetv3_small_050", True),  # squeeze and excitation
        ("unet", "convnextv2_atto", True),  # global response normalisation
        ("unet", "convnext_atto", False),
    ],
)
def test_whole_image_says_whether_far_pixels_count(architecture: str, encoder: str, whole: bool) -> None:
    torch.manual_seed(0)
    model = make(architecture, SMALL_ENCODERS.get(architecture, encoder)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if not weight.any():  # a part that starts as the identity
                weight.fill_(0.1)
    image = torch.rand(1, 3, 800, 32).requires_grad_()
    model(image)[..., :4, :].sum().backward()
    assert bool(image.grad[..., -32:, :].any()) == whole
    assert model.whole_image == whole


def test_attention_in_the_decoder_needs_the_whole_image() -> None:
    assert make("unet", "resnet18", decoder_attention_type="scse").whole_image


@pytest.mark.parametrize("architecture", ["linknet", "fpn", "deeplabv3", "pan", "upernet", "segformer"])
def test_a_shallow_encoder(architecture: str) -> None:
    model = make(architecture, encoder_depth=4).eval()
    with torch.no_grad():
        assert model(images(65, 97)).shape == (2, 2, 65, 97)
    assert len(model.network.encoder.out_channels) == 5


def test_names_are_read_as_they_are_written_elsewhere() -> None:
    assert make("DeepLabV3+", "tu-resnet18", width=8).architecture == "deeplabv3plus"


@pytest.mark.parametrize("encoder", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224"])
def test_takes_any_timm_encoder_at_any_size(encoder: str) -> None:
    with torch.no_grad():
        assert make("unet", encoder).eval()(images(40, 33)).shape == (2, 2, 40, 33)


def test_a_shallow_decoder_makes_a_shallow_encoder() -> None:
    model = make("unet", "resnet18", decoder_channels=(32, 16, 8)).eval()
    assert model.multiple == 8
    with torch.no_grad():
        assert model(images(41, 33)).shape == (2, 2, 41, 33)


def test_the_default_encoder_holds_the_packaged_weights() -> None:
    packaged = torch.load(offline_file(), weights_only=True)
    model = SMP(3, 2)
    encoder = model.network.encoder.model.state_dict()
    random = SMP(3, 2, pretrained=False).network.encoder.model.state_dict()
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
    colours = SMP(3, 1).eval()
    torch.manual_seed(0)
    trimaps = SMP(4, 1).eval()
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
    for model in (SMP(4, 1, encoder="resnet18"), DeepLabV2(4, 1, "resnet18", pretrained=True)):
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        torch.testing.assert_close(first.weight[0, :, 0, 0].detach(), torch.tensor([1.0, 2.0, 3.0, 0.0]))


def test_regression_is_linear_in_the_last_layer() -> None:
    model = SMP(3, 2, pretrained=False, decoder_channels=(32, 24, 16, 12, 8)).eval()
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


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network\nand a long story")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(SemipixError, match=r"model.encoder=resnet18.*\(no network\).*model.pretrained=false") as caught:
        SMP(3, 2, encoder="resnet18")
    assert "\n" not in str(caught.value)


def test_a_hub_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waited {seconds} s to try again"))
    timm = logging.getLogger("timm")  # as it is before any other test
    monkeypatch.setattr(timm, "disabled", False)
    monkeypatch.setattr(timm, "propagate", True)
    monkeypatch.setattr(logging.root.manager, "disable", 0)
    caplog.set_level(logging.WARNING, "timm")
    message = r"model.encoder=resnet18: .*could not be downloaded \(http://127.0.0.1:9 does not answer: .*refused"
    with warnings.catch_warnings(record=True) as warned, pytest.raises(SemipixError, match=message):
        SMP(3, 2, encoder="resnet18")
    assert (warned, caplog.records, *capfd.readouterr()) == ([], [], "", "")
    assert not huggingface_hub.constants.HF_HUB_OFFLINE
    timm.warning("heard again")
    assert len(caplog.records) == 1


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pretrained_weights_are_spread_over_bands_as_timm_does(channels: int) -> None:
    """And the statistics are those of the bands, not ImageNet's."""
    mean, std = [0.1 + 0.1 * band for band in range(channels)], [0.2] * channels
    model = SMP(channels, 2, band_mean=mean, band_std=std)
    tensors = torch.load(offline_file(), map_location="cpu", weights_only=True)
    first = model.network.encoder.model.conv_stem.weight
    assert torch.equal(first, adapt_input_conv(channels, next(iter(tensors.values()))))
    assert bool((first.abs().sum((0, 2, 3)) > 0).all())
    assert model.normalize.mean.flatten().tolist() == pytest.approx(mean)
    assert model.normalize.std.flatten().tolist() == pytest.approx(std)
    assert model.eval()(images(64, 64, channels)).shape == (2, 2, 64, 64)


def test_wrong_offline_weights_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    monkeypatch.setattr("semipix.models.pretrained.offline_file", lambda: tmp_path / "other.pth")
    with pytest.raises(SemipixError, match=r"other.pth: 1 tensors that are not the 296"):
        SMP(3, 2)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semipix.models.pretrained.OFFLINE_PACKAGE", "no-such-package-at-all")
    with pytest.raises(SemipixError, match=r"no-such-package-at-all is not installed.*model.pretrained=false"):
        SMP(3, 2)


def test_the_paper_s_pspnet_with_50_layers() -> None:
    with torch.device("meta"):
        model = SMP(3, 21, "pspnet", "resnet50", pretrained=False)
    assert sum(value.numel() for value in model.network.encoder.parameters()) == 23_508_032, "ResNet-50, no classifier"
    # Four 1x1 convolutions to 512 channels, the first with a bias for its batch norm, one of 4096 to 512, the head.
    decoder = 4 * 2048 * 512 + 512 + 3 * 2 * 512 + 4096 * 512 + 2 * 512
    assert sum(value.numel() for value in model.network.decoder.parameters()) == decoder
    assert sum(value.numel() for value in model.network.segmentation_head.parameters()) == 512 * 21 * 9 + 21


@pytest.mark.parametrize(("output_stride", "side"), [(8, 9), (16, 5)])
def test_output_stride_is_kept(output_stride: int, side: int) -> None:
    model = make("pspnet", "resnet18", output_stride=output_stride).eval()
    with torch.no_grad():
        (seen,) = model.features(images(65, 70))
        assert seen.shape[-2:] == (side, side)
        assert model(images(65, 70)).shape == (2, 2, 65, 70)


def test_the_default_encoder_is_the_same_under_every_decoder() -> None:
    encoders = [SMP(3, 2, name).network.encoder.model.state_dict() for name in ("pspnet", "unet")]
    torch.testing.assert_close(encoders[0], encoders[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", ["unet", "pspnet"])
def test_a_seed_gives_the_weights_of_the_library_itself(name: str) -> None:
    """So that runs of the same seed can be repeated, by any code that builds the network."""
    theirs = {"unet": smp.Unet, "pspnet": smp.PSPNet}[name]
    options = {"pspnet": {"encoder_depth": 5, "output_stride": 8, "upsampling": 8, "psp_dropout": 0.1}}.get(name, {})
    torch.manual_seed(0)
    expected = theirs("tu-resnet18", encoder_weights=None, classes=2, **options)
    torch.manual_seed(0)
    model = SMP(3, 2, name, "resnet18", pretrained=False)
    assert {key.removeprefix("network.") for key in model.state_dict()} - {"normalize.mean", "normalize.std"} == (
        expected.state_dict().keys()
    )
    torch.testing.assert_close(model.network.state_dict(), expected.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnt18"}, "model.encoder=resnt18: timm has no such model; did you mean resnet18"),
        ({"encoder": "vit_tiny_patch16_224"}, "model.encoder=vit_tiny_patch16_224: gives no pyramid of 5"),
        ({"architecture": "unett"}, r"model.architecture=unett: there is no such decoder; did you mean unet\?"),
        ({"architecture": "x"}, "model.architecture=x: there is no such decoder; known: unet, unetplusplus, manet"),
        ({"architecture": "dpt", "encoder": "resnet18"}, "model.encoder=resnet18: dpt needs a Vision Transformer"),
        ({"architecture": "dpt", "encoder": "vit_small_patch14_dinov2"}, "patches of 14 pixels found, 4, 8, 16, 32"),
        ({"widht": 3, "architecture": "fpn"}, r"unknown key model.widht; did you mean width\?"),
        (
            {"upsampling": 2},
            "unknown key model.upsampling; unet takes architecture, checkpointing, decoder_attention_type",
        ),
        ({"decoder_channels": 3}, "model.decoder_channels=3: expected a list of positive whole numbers such as"),
        ({"decoder_channels": [8, 8, 0]}, "model.decoder_channels=.*: expected a list of positive whole numbers"),
        ({"decoder_interpolation": "cubic"}, "model.decoder_interpolation=cubic: expected one of nearest, bilinear"),
        ({"architecture": "fpn", "width": "8"}, "model.width=8: expected a positive whole number"),
        ({"architecture": "fpn", "encoder_depth": 3}, "model.encoder_depth=3: fpn reads 4 maps; set 4 or 5"),
        (
            {"architecture": "fpn", "decoder_merge_policy": "mean"},
            "model: fpn cannot be made .*mean.*; change decoder_merge_policy",
        ),
        ({"architecture": "pspnet", "output_stride": 4}, "model.output_stride=4: expected 8 or 16"),
        ({"architecture": "pspnet", "dropout": 1.0}, "model.dropout=1.0: expected a number from 0 to below 1"),
        (
            {"architecture": "pspnet", "encoder": "pvt_v2_b0"},
            "model.encoder=pvt_v2_b0: cannot be dilated to output stride 8",
        ),
    ],
)
def test_what_cannot_be_made_is_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        SMP(3, 2, **{"pretrained": False, **options})
    assert "\n" not in str(caught.value)


def test_options_have_one_name_each() -> None:
    for name, spec in ARCHITECTURES.items():
        assert not {*options_of(name)} & ({*spec.renamed.values()} - {*spec.renamed}), name
    assert options_of("pspnet") == {
        **{"encoder_depth": 5, "width": 512, "decoder_use_norm": "batchnorm", "dropout": 0.1, "output_stride": 8},
    }
