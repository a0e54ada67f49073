"""Resizing some rows gives the same as resizing the whole map."""

import pytest
import torch
import torch.nn.functional as F

from semipix.functional.resizing import Window, resize_aligned, resize_rows, source_rows
from tests.helpers.tiny import rand


@pytest.mark.parametrize("size", [(101, 33), (19, 11), (37, 20), (37, 31), (1, 20), (1000, 20)])
@pytest.mark.parametrize("height", [37, 1])
def test_rows_are_those_of_the_whole_resize(size: tuple[int, int], height: int) -> None:
    maps = rand(2, 3, height, 20)
    parts = []
    for top in range(0, size[0], 7):
        rows = range(top, min(top + 7, size[0]))
        needed = source_rows(rows, height, size[0])
        held = maps[..., needed.start : needed.stop, :]
        parts.append(resize_rows(held, rows, size, first=needed.start, height=height))
    whole = F.interpolate(maps, size, mode="bilinear")
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=5e-7)
    if height == size[0]:  # no row is mixed with another
        assert torch.equal(torch.cat(parts, 2), whole)


def test_places_in_large_images_are_rounded_as_torch_rounds_them() -> None:
    maps = rand(1, 1, 999, 2)
    found = resize_rows(maps[..., 900:, :], range(5500, 6000), (6000, 2), first=900, height=999)
    whole = F.interpolate(maps, (6000, 2), mode="bilinear")
    torch.testing.assert_close(found, whole[..., 5500:, :], rtol=0, atol=5e-7)


def test_windows_of_aligned_corners_fit_together() -> None:
    coarse = rand(1, 1, 13, 4)
    size = 13 * 32 - 5, 100
    whole = resize_aligned(coarse, size, None, 32, 0)
    assert torch.equal(whole, F.interpolate(coarse, size, mode="bilinear", align_corners=True))
    parts = []
    for top in range(0, size[0], 64):
        rows = slice(max(0, top // 32 - 2), top // 32 + 4)
        window = Window(32 * rows.start, size[0])
        seen = min(32 * rows.stop, size[0]) - 32 * rows.start
        part = resize_aligned(coarse[:, :, rows], (seen, size[1]), window, 32, 13)
        parts.append(part[:, :, top - 32 * rows.start :][:, :, :64])
    torch.testing.assert_close(torch.cat(parts, 2), whole, rtol=0, atol=5e-7)
