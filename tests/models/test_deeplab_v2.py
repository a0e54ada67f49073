"""DeepLab v2."""

import pytest
import torch
from torch import nn

from semipix.errors import SemipixError
from semipix.models.checkpointing import checkpoint_stages
from semipix.models.deeplab_v2 import DeepLabV2
from tests.models.base import CheckpointingTests, FeatureModelTests, images


class TestDeepLabV2(FeatureModelTests, CheckpointingTests):
    def make(self, in_channels: int = 3) -> nn.Module:
        return DeepLabV2(in_channels, self.channels, backbone="resnet18")

    def make_pair(self) -> tuple[nn.Module, nn.Module]:
        return tuple(DeepLabV2(3, 2, backbone="resnet18", checkpointing=given) for given in (False, True))


def test_the_paper_s_model_has_44_million_parameters() -> None:
    with torch.device("meta"):
        model = DeepLabV2(in_channels=3, channels=21)
    assert sum(parameter.numel() for parameter in model.parameters()) == 44_048_532
    assert [(head.dilation, head.padding) for head in model.heads] == [((rate, rate),) * 2 for rate in (6, 12, 18, 24)]


def test_heads_learn_ten_times_as_fast() -> None:
    model = DeepLabV2(3, 2, backbone="resnet18")
    backbone, heads = model.parameter_groups()
    assert (backbone["lr_scale"], heads["lr_scale"]) == (1.0, 10.0)
    assert {id(value) for value in heads["params"]} == {id(value) for value in model.heads.parameters()}
    everything = [id(value) for group in (backbone, heads) for value in group["params"]]
    assert sorted(everything) == sorted(id(value) for value in model.parameters())


def test_heads_start_small_and_are_summed() -> None:
    torch.manual_seed(0)
    model = DeepLabV2(3, 2, backbone="resnet18").eval()
    for head in model.heads:
        assert float(head.weight.detach().std()) == pytest.approx(0.01, rel=0.1)
        assert not head.bias.any()
        nn.init.zeros_(head.weight)
        nn.init.constant_(head.bias, 0.25)
    torch.testing.assert_close(model(images(33, 33)), torch.ones(2, 2, 33, 33))


@pytest.mark.parametrize(("output_stride", "side"), [(8, 9), (16, 5)])
def test_output_stride_is_kept(output_stride: int, side: int) -> None:
    model = DeepLabV2(3, 2, backbone="resnet26", output_stride=output_stride).eval()
    assert model.backbone(images(65, 65)).shape[-2:] == (side, side)


def test_corners_are_aligned() -> None:
    model = DeepLabV2(3, 2, backbone="resnet18").eval()
    with torch.no_grad():
        features = model.backbone(model.normalize(images(65, 65)))
        coarse = sum(head(features) for head in model.heads)
        torch.testing.assert_close(model(images(65, 65))[..., ::8, ::8], coarse, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnt101"}, "model.backbone=resnt101: timm has no such model"),
        ({"output_stride": 4}, "model.output_stride=4: expected 8 or 16"),
        (
            {"backbone": "vit_tiny_patch16_224"},
            "model.backbone=vit_tiny_patch16_224: cannot be made with output stride 8",
        ),
    ],
)
def test_errors_are_one_line(options: dict, message: str) -> None:
    with pytest.raises(SemipixError, match=message) as caught:
        DeepLabV2(3, 2, **options)
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.models._builder.load_pretrained", unreachable)
    with pytest.raises(SemipixError, match=r"model.backbone=resnet18.*no network.*model.pretrained=false"):
        DeepLabV2(3, 2, backbone="resnet18", pretrained=True)


def test_a_backbone_without_stages_cannot_be_checkpointed() -> None:
    with pytest.raises(SemipixError, match=r"model.backbone: Conv2d has no stages of blocks.*checkpointing=false"):
        checkpoint_stages(nn.Conv2d(3, 3, 1), key="backbone")
