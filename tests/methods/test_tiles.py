"""Images in overlapping tiles."""

import pytest
import torch
from torch import Tensor

from semipix.errors import SemipixError
from semipix.methods.slabs import Maps
from semipix.methods.tiles import STEP, Tiles, Tiling, axis_of
from tests.helpers.tiny import rand

CPU = torch.device("cpu")


@pytest.mark.parametrize("length", [1, 63, 64, 65, 96, 97, 300, 1000])
@pytest.mark.parametrize("tiling", [Tiling(64, 0), Tiling(64, 32), Tiling(128, 96), Tiling(160, 100)])
def test_weights_of_a_pixel_add_up_to_one(length: int, tiling: Tiling) -> None:
    axis = axis_of(length, tiling)
    total = torch.zeros(length)
    for start, size, weights in zip(*axis, strict=True):
        assert start % STEP == 0
        assert len(weights) == size <= tiling.tile
        assert weights.min() >= 0
        total[start : start + size] += weights
    torch.testing.assert_close(total, torch.ones(length))
    assert axis.starts[-1] + axis.lengths[-1] == length
    for start, size, following in zip(axis.starts, axis.lengths, axis.starts[1:], strict=False):
        assert start + size - following >= min(tiling.overlap, size)


@pytest.mark.parametrize("size", [(64, 64), (200, 97), (131, 300)])
@pytest.mark.parametrize("tiling", [Tiling(64, 0), Tiling(64, 32), Tiling(128, 96)])
def test_what_needs_no_surroundings_is_as_in_the_whole_image(size: tuple[int, int], tiling: Tiling) -> None:
    image = rand(3, *size)

    def forward(images: Tensor) -> Maps:
        return images[:, :2] ** 2, None, images[:, 2:] - 1

    parts = list(Tiles(tiling, CPU).compute(image, forward))
    for index, expected in ((0, image[None, :2] ** 2), (2, image[None, 2:] - 1)):
        rows = [found[index] for found in parts]
        torch.testing.assert_close(torch.cat([maps for maps in rows if maps is not None], -2), expected)
    assert all(found[1] is None for found in parts)
    assert len(parts) == len(axis_of(size[0], tiling).starts)


def test_a_pixel_counts_most_in_the_tile_whose_middle_is_nearest() -> None:
    """Each tile reports its own number; halfway between two middles both count the same."""
    number = iter(range(100))

    def forward(images: Tensor) -> Maps:
        return (torch.full_like(images[:, :1], float(next(number))),)

    ((found,),) = Tiles(Tiling(64, 32), CPU).compute(rand(3, 64, 96), forward)
    assert found is not None
    across = found[0, 0, 20]
    assert across[:32].eq(0).all()
    assert across[64:].eq(1).all()
    assert (across[32:64].diff() > 0).all()
    assert across[47] < 0.5 < across[48]
    torch.testing.assert_close(across[47] + across[48], torch.tensor(1.0))


def test_bytes_are_scaled_as_in_the_whole_image() -> None:
    seen = []

    def forward(images: Tensor) -> Maps:
        seen.append(images)
        return (images,)

    image = (255 * rand(3, 96, 40)).to(torch.uint8)
    list(Tiles(Tiling(64, 32), CPU).compute(image, forward))
    assert [part.shape for part in seen] == [(1, 3, 64, 40), (1, 3, 64, 40)]
    torch.testing.assert_close(seen[1][0], image[:, 32:].float() / 255)


@pytest.mark.parametrize(
    ("tile", "overlap", "message"),
    [
        (None, 32, "--overlap: 32 found without --tile"),
        (100, None, "--tile: 100 found, a multiple of 32 from 64 on expected"),
        (32, 0, "--tile: 32 found"),
        (64, 64, "--overlap: 64 found, 0 to 32 expected with --tile 64"),
        (64, -1, "--overlap: -1 found"),
    ],
)
def test_sizes_that_make_no_tiles_are_refused(tile: int | None, overlap: int | None, message: str) -> None:
    with pytest.raises(SemipixError, match=message):
        Tiling.given(tile, overlap)


def test_by_default_three_eighths_of_a_tile_overlap() -> None:
    assert Tiling.given(512, None) == Tiling(512, 192)
    assert Tiling.given(None, None) is None
