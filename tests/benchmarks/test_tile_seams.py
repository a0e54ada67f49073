"""Labels that change in tiles."""

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.accuracy.tile_seams import changed, mosaic
from PIL import Image
from torch import Tensor

from semipix.errors import SemipixError
from semipix.methods.tiles import Tiling
from tests.helpers.tiny import rand


def test_a_mosaic_has_the_photographs_in_their_order(tmp_path: Path) -> None:
    for number in range(5):
        Image.fromarray(np.full((9, 7, 3), 50 * number, np.uint8)).save(tmp_path / f"{number}.png")
    found = mosaic(tmp_path, photos=2, side=4)
    assert found.shape == (3, 8, 8)
    assert (255 * found[0, ::4, ::4]).round().tolist() == [[0, 50], [100, 150]]
    with pytest.raises(SemipixError, match="5 images found, 9 expected"):
        mosaic(tmp_path, photos=3)


def brighter_than_the_mean(image: Tensor) -> Tensor:
    """Outputs (1, 2, H, W) of which the second is higher where a pixel is brighter than its image."""
    brightness = image.mean(1)
    return torch.stack([brightness.mean().expand_as(brightness), brightness], dim=1)


def test_only_tiles_change_labels() -> None:
    image = rand(3, 128, 160)
    image[:, :, 80:] += 1  # each half has another mean than the whole
    whole, halves = (changed(brighter_than_the_mean, image, Tiling(side, 0)) for side in (160, 64))  # type: ignore[arg-type]
    assert whole == 0
    assert halves > 0.2
