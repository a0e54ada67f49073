"""Counting classes and weighting them."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torchvision import tv_tensors

from semipix.data.class_balance import (
    BALANCE,
    MOST_WEIGHT,
    balanced_weights,
    class_counts,
    class_pixels,
    without_pixels,
)
from semipix.data.files.bands import BandImage, Bands
from semipix.data.source import Source
from semipix.data.sources.folder import FolderSource
from semipix.errors import UnreadableFileError
from tests.helpers.tiny import TinySource


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_counts_of_any_type_leave_void_out(kind: torch.dtype) -> None:
    counts = class_counts(tv_tensors.Mask(torch.tensor([[0, 2, 2], [255, 254, 2]], dtype=kind)))
    assert {index: int(counts[index]) for index in counts.nonzero()[0]} == {0: 1, 2: 3, 254: 1}


class TestClassPixels:
    def test_of_these_images_alone(self) -> None:
        source: Source = TinySource(size=(4, 5))
        expected = torch.cat([source.pair(name)[1].flatten() for name in ("labeled/1", "labeled/3")]).bincount()
        assert class_pixels(source, ["labeled/1", "labeled/3"]) == dict(enumerate(expected.tolist()))

    def test_an_image_is_not_read_for_its_mask(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = FolderSource(folder)
        monkeypatch.setattr(FolderSource, "image", lambda *_: pytest.fail("an image was read"))
        pixels = class_pixels(source, source.labeled())
        masks = [source.target(name).flatten().long() for name in source.labeled()]
        assert pixels.total() == int((torch.cat(masks) != 255).sum()) > 0

    def test_pixels_without_a_value_in_a_band_have_no_label(self) -> None:
        class HalfMissing(TinySource):
            bands = Bands()

            def image(self, name: str, seed: int | None = None) -> tv_tensors.Image:
                image = super().image(name).clone()
                image[1, :, :2] = math.nan
                return BandImage(image)

        source: Source = HalfMissing(size=(4, 5))
        expected = source.pair("labeled/1")[1][:, 2:].flatten().bincount()
        found = class_pixels(source, ["labeled/1"])
        assert found == Counter(dict(enumerate(expected.tolist())))
        assert found.total() == 12
        assert class_pixels(TinySource(size=(4, 5)), ["labeled/1"]).total() == 20

    def test_a_mask_that_cannot_be_read(self, folder: Path) -> None:
        source = FolderSource(folder)
        first, *others = source.labeled()
        (folder / source._masks[first]).write_bytes(b"")
        assert class_pixels(source, [first, *others], skip=True) == class_pixels(source, others)
        with pytest.raises(UnreadableFileError):
            class_pixels(source, [first, *others])


class TestBalancedWeights:
    def test_are_those_of_scikit_learn(self) -> None:
        labels = np.repeat([0, 1, 2], [500, 300, 200])
        expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
        assert balanced_weights({0: 500, 1: 300, 2: 200}, 3) == pytest.approx(expected, rel=1e-3)

    def test_classes_count_alike_unless_the_limit_is_reached(self) -> None:
        pixels = {0: 926, 1: 58, 2: 16}
        weights = balanced_weights(pixels, 3)
        assert pixels[0] * weights[0] == pytest.approx(pixels[1] * weights[1], rel=1e-3)
        assert weights == [0.36, 5.747, MOST_WEIGHT]

    def test_a_class_without_a_pixel_has_weight_1_and_changes_no_other(self) -> None:
        assert balanced_weights({0: 30, 2: 10}, 3) == [0.6667, 1.0, 2.0]
        assert balanced_weights({}, 2) == [1.0, 1.0]

    def test_a_power_of_one_half_is_half_way_to_equal_weights(self) -> None:
        pixels = {0: 900_000, 1: 90_000, 2: 10_000}
        roots = [math.sqrt(weight) for weight in balanced_weights(pixels, 3)]
        assert balanced_weights(pixels, 3, BALANCE["sqrt_balanced"]) == pytest.approx(roots, rel=1e-3)
        assert roots[2] == pytest.approx(math.sqrt(MOST_WEIGHT)), "the largest weight is that before the root"
        assert without_pixels({0: 30, 1: 0, 2: 10}, ["a", "b", "c", "d"]) == ["b", "d"]
