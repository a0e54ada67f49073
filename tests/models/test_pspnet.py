"""PSPNet."""

import pytest
import torch
from torch import nn

from semipix.errors import SemipixError
from semipix.models.pspnet import PSPNet
from semipix.models.unet import UNet
from tests.models.base import FeatureModelTests, images


class TestPSPNet(FeatureModelTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return PSPNet(in_channels, self.channels, "resnet18", pretrained=False, width=32, dropout=0.0)


def test_the_paper_s_model_with_50_layers() -> None:
    with torch.device("meta"):
        model = PSPNet(3, 21, "resnet50", pretrained=False)
    assert sum(value.numel() for value in model.network.encoder.parameters()) == 23_508_032, "ResNet-50, no classifier"
    # Four 1x1 convolutions to 512 channels, the first with a bias for its batch norm, one of 4096 to 512, the head.
    decoder = 4 * 2048 * 512 + 512 + 3 * 2 * 512 + 4096 * 512 + 2 * 512
    assert sum(value.numel() for value in model.network.decoder.parameters()) == decoder
    assert sum(value.numel() for value in model.network.segmentation_head.parameters()) == 512 * 21 * 9 + 21


@pytest.mark.parametrize(("output_stride", "side"), [(8, 9), (16, 5)])
def test_output_stride_is_kept(output_stride: int, side: int) -> None:
    model = PSPNet(3, 2, "resnet18", pretrained=False, output_stride=output_stride, width=32).eval()
    with torch.no_grad():
        (seen,) = model.features(images(65, 70))
        assert seen.shape[-2:] == (side, side)
        assert model(images(65, 70)).shape == (2, 2, 65, 70)


def test_the_default_encoder_holds_the_packaged_weights() -> None:
    encoders = [kind(3, 2).network.encoder.model.state_dict() for kind in (PSPNet, UNet)]
    torch.testing.assert_close(encoders[0], encoders[1], rtol=0, atol=0)


def test_every_pixel_sees_the_whole_image() -> None:
    torch.manual_seed(0)
    model = PSPNet(3, 2, "resnet18", pretrained=False, width=32).eval()
    (seen,) = model.features(images(256, 256))
    seen = seen.detach().requires_grad_()
    model.head([seen], (256, 256))[0, :, 0, 0].sum().backward()
    assert seen.grad[0].any(0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "resnt18"}, "model.encoder=resnt18: timm has no such model; did you mean resnet18"),
        ({"output_stride": 4}, "model.output_stride=4: expected 8 or 16"),
        ({"dropout": 1.0}, "model.dropout=1.0: expected a number from 0 to below 1"),
        (
            {"encoder": "swin_tiny_patch4_window7_224"},
            "model.encoder=swin_tiny_patch4_window7_224: cannot be dilated to output stride 8",
        ),
    ],
)
def test_slips_are_told_in_one_line(options: dict, message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        PSPNet(3, 2, **{"pretrained": False, **options})
    assert "\n" not in str(caught.value)
