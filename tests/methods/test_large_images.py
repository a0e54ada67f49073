"""Which images are computed in slabs, which in tiles."""

import pytest
import torch
from torch import Tensor

from semipix.methods import slabs
from semipix.methods.large_images import LargeImages
from semipix.methods.tiles import Tiling
from tests.helpers.tiny import make_method, rand


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 1000)


@pytest.mark.usefixtures("small")
class TestWhich:
    def test_slabs_where_the_network_allows_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        large = LargeImages(make_method("supervised").eval())
        monkeypatch.setattr(type(large.slabs), "halo", 64)
        assert not large.applies((20, 50))
        assert large.applies((21, 50))
        list(large.compute(rand(3, 200, 30), lambda images: (images,)))
        assert [line.split(" were")[0].split(" was")[0] for line in large.lines()] == [
            "1 image of more than 1000 pixels"
        ]

    def test_tiles_of_very_wide_images(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(slabs.PIXELS_AT_ONCE, "cpu", 5_800_000)
        large = LargeImages(make_method("supervised").eval())
        monkeypatch.setattr(type(large.slabs), "halo", 192)
        assert large.slabs.repeats((20_000, 6_000)) == pytest.approx(960 / 576, rel=0.02)
        assert large.tiles.repeats((20_000, 20_000)) == pytest.approx((1024 / 640) ** 2, rel=0.03)
        assert large.slabs.repeats((20_000, 20_000)) > 6, "64 rows of 448 are kept"
        assert large._parts((20_000, 6_000)) is large.slabs
        assert large._parts((20_000, 20_000)) is large.tiles

    def test_tiles_of_far_too_large_images_where_it_does_not(self, monkeypatch: pytest.MonkeyPatch) -> None:
        large = LargeImages(make_method("supervised").eval())
        monkeypatch.setattr(type(large.slabs), "halo", None)
        assert not large.applies((80, 50))
        assert large.applies((81, 50))
        list(large.compute(rand(3, 81, 50), lambda images: (images,)))
        assert large.lines() == [
            "1 image was computed in tiles of 1024 pixels that overlap by 384, each as an image of its own"
        ]

    def test_tiles_of_all_images_that_are_larger_if_asked_for(self) -> None:
        large = LargeImages(make_method("supervised").eval(), tiling=Tiling(64, 32))
        assert not large.applies((64, 64))
        assert large.applies((20, 65))


def test_outputs_in_tiles_are_close_to_those_of_the_whole_image() -> None:
    method = make_method("supervised").eval()
    image = rand(3, 160, 200)

    def forward(images: Tensor) -> slabs.Maps:
        return (method(images),)

    with torch.inference_mode():
        whole = method(image[None])
        parts = LargeImages(method, tiling=Tiling(128, 96)).compute(image, forward)
        found = torch.cat([maps for (maps,) in parts if maps is not None], -2)
    change = (found - whole).abs().mean() / whole.std()
    assert 0 < change < 0.05
