"""The deployed network as a plain module, and its trace for free sizes."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.layers import Conv2dSame
from torch import Tensor, nn

from semipix.errors import SemipixError
from semipix.inference import export_network
from semipix.inference.export_network import Deployed, PoolingByProducts, StaticSame, exported, made_traceable
from semipix.models.adapt import adapt
from semipix.models.smp import SMP
from semipix.tasks.matting import Matting
from semipix.training.calibration import Uncalibrated
from tests.helpers.tiny import TinyModel, make_method, options, rand


@pytest.mark.parametrize("name", options("method"))
def test_the_deployed_network_is_what_the_method_runs(name: str) -> None:
    method = make_method(name).eval()
    image = rand(2, 3, 64, 70)
    for candidate in method.candidates():
        if len(method.candidates()) > 1:
            method.deploy(candidate)
        network = Deployed(method)
        with torch.no_grad():
            assert torch.allclose(network(image)[0], method.task.activate(method(image)))
        if candidate != "fused":  # which needs all networks
            assert isinstance(network.network, TinyModel), "and nothing else of the method"
            sizes = [sum(each.numel() for each in part.parameters()) for part in (network, TinyModel())]
            assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_a_fused_pair_with_its_error_map_is_traced_for_all_sizes() -> None:
    class Pooled(TinyModel):
        """Adds means over a grid of parts, as PSPNet does."""

        def __init__(self) -> None:
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d((2, 3))

        def head(self, features: Sequence[Tensor], size: Sequence[int]) -> Tensor:
            means = F.interpolate(self.pool(features[0]), size, mode="bilinear")
            return super().head([features[0] + means], size)

    method = make_method("gct", lambda number: Pooled(), fusion=True, detector="cues").eval()
    method.deploy("fused")
    network = Deployed(method, Uncalibrated("flaw"))
    program = exported(network).module()
    for shape in ((1, 3, 8, 9), (3, 3, 33, 50)):
        image = rand(*shape)
        with torch.no_grad():
            for own, found in zip(network(image), program(image), strict=True):
                assert torch.allclose(own, found, atol=1e-5)


def test_the_error_map_is_0_where_the_trimap_decides() -> None:
    task = Matting()
    method = make_method("cps", lambda n: adapt(nn.Conv2d(4, 1, 1), 1, task.constrain), task=task).eval()
    image = rand(1, 4, 16, 16)
    image[:, 3, :8], image[:, 3, 8:] = 1.0, 0.5
    with torch.no_grad():
        prediction, error = Deployed(method, Uncalibrated("disagreement"))(image)
    assert (error[..., :8, :] == 0).all()
    assert (error[..., 8:, :] > 0).any()
    assert (prediction[..., :8, :] == 1).all()


def test_static_padding_is_that_of_maps_which_the_stride_divides() -> None:
    part = SMP.__new__(SMP)
    nn.Module.__init__(part)
    part.layers = nn.Sequential(Conv2dSame(3, 4, 3, stride=2), Conv2dSame(4, 4, (5, 3), stride=2, dilation=(1, 2)))
    outside = Conv2dSame(3, 4, 3, stride=2)
    network = nn.ModuleList([part, outside])
    image = rand(1, 3, 16, 24)
    wanted = part.layers(image)
    made_traceable(network)
    assert [type(layer) for layer in part.layers] == [StaticSame, StaticSame]
    assert type(outside) is Conv2dSame, "its maps may have any size"
    assert torch.equal(part.layers(image), wanted)


@pytest.mark.parametrize("size", [(6, 9), (7, 5), (2, 1)])
def test_pooling_by_products_is_adaptive_pooling(size: tuple[int, int]) -> None:
    features = rand(2, 3, *size)
    for wanted in (2, (3, 4), (6, 6)):
        layers = nn.Sequential(nn.AdaptiveAvgPool2d(wanted), nn.AdaptiveAvgPool2d(1))
        expected = layers[0](features)
        made_traceable(layers)
        assert [type(layer) for layer in layers] == [PoolingByProducts, nn.AdaptiveAvgPool2d]
        assert torch.allclose(layers[0](features), expected, atol=1e-6)


def test_the_smallest_side_is_found() -> None:
    class Least(TinyModel):
        def forward(self, image: Tensor) -> Tensor:
            if min(image.shape[-2:]) < 30:
                raise ValueError("at least 30 pixels expected")
            return super().forward(image)

    assert Deployed(make_method("supervised", lambda n: Least()).eval()).smallest == 32

    class OneSize(TinyModel):
        def forward(self, image: Tensor) -> Tensor:
            if image.shape[-1] != 224:
                raise ValueError("224 pixels expected")
            return super().forward(image)

    with pytest.raises(SemipixError, match=r"OneSize takes no image of 128x128 pixels or fewer: .*224 pixels expected"):
        Deployed(make_method("supervised", lambda n: OneSize()).eval())


def test_a_trace_that_holds_for_larger_images_only_raises_the_smallest_side(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Deployed(make_method("supervised").eval())
    assert network.smallest == 8

    def traced(network: Deployed) -> str:
        if network.smallest < 33:
            raise ValueError("Not all values of height in the range satisfy the generated guard 33 <= height and more")
        return "program"

    monkeypatch.setattr(export_network, "_traced", traced)
    assert exported(network) == "program"
    assert network.smallest == 33


@pytest.mark.slow
def test_what_cannot_be_traced_is_refused_with_the_reason() -> None:
    class Branching(TinyModel):
        def forward(self, image: Tensor) -> Any:
            return super().forward(image if image.mean() > 0.5 else image + 1)

    network = Deployed(make_method("supervised", lambda n: Branching()).eval())
    with pytest.raises(SemipixError, match=r"export: Branching cannot be traced by torch\.export: .*docs/export\.md"):
        exported(network)
