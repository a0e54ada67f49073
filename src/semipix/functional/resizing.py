"""Bilinear resizing of a part of a map's rows: what `F.interpolate` gives there, from the rows it takes them from."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.precision import at_least_float32


def source_rows(rows: range, height: int, whole: int) -> range:
    """The rows of a map of `height` rows that these rows of its resize to `whole` rows are made of.

    Args:
        rows: rows of the result, at least one.
        height: rows of the map.
        whole: rows of the whole result.
    """
    places = _places(rows, height, whole, aligned=False)
    return range(int(places[0]), min(int(places[-1]) + 2, height))


def resize_rows(
    maps: Tensor, rows: range, size: tuple[int, int], *, first: float, height: int, aligned: bool = False
) -> Tensor:
    """Some rows of `F.interpolate(whole, size, mode="bilinear", align_corners=aligned)`.

    Equal up to rounding, and exactly where the resize changes nothing.

    Args:
        maps: rows of the whole (N, C, h, w), those of `source_rows` among them; beyond them the outermost row holds.
        rows: rows of the result.
        size: height and width of the whole result.
        first: place of the first of `maps` in the whole; a fraction where the two grids do not fit.
        height: rows of the whole.
        aligned: whether corners are aligned.

    Returns:
        (N, C, len(rows), W) of the type of `maps`.
    """
    places = _places(rows, height, size[0], aligned).to(maps.device) - first
    held = maps.shape[-2]
    places = places.clamp(0, held - 1)
    upper = places.floor().long()
    if torch.equal(places, upper.to(places.dtype)):
        resized = maps if len(rows) == held and bool((upper.diff() == 1).all()) else maps[..., upper, :]
    else:
        values = at_least_float32(maps)
        share = (places - upper).to(values.dtype).unsqueeze(-1)
        lower = (upper + 1).clamp(max=held - 1)
        resized = values[..., upper, :] * (1 - share) + values[..., lower, :] * share
    if maps.shape[-1] != size[1]:
        across = (len(rows), size[1])
        # The number of rows stays, so that both ways of aligning corners leave them as they are.
        resized = F.interpolate(resized, across, mode="bilinear", align_corners=aligned)
    return resized.to(maps.dtype)


def _places(rows: range, height: int, whole: int, aligned: bool) -> Tensor:
    """Where rows of a result lie in a map, counted in its rows, float32 as in torch's own kernels."""
    wanted = torch.arange(rows.start, rows.stop, dtype=torch.float64)
    if aligned:
        return (wanted * _single((height - 1) / (whole - 1) if whole > 1 else 0.0)).float()
    # torch rounds the scale, then the place, which it computes by one fused operation.
    return ((wanted + 0.5) * _single(height / whole) - 0.5).float().clamp(0, height - 1)


def _single(value: float) -> float:
    """A number in single precision."""
    return float(torch.tensor(value, dtype=torch.float32))


class Window(NamedTuple):
    """Which rows of a larger image a network is given.

    Attributes:
        top: the first of them.
        height: rows of the larger image.
    """

    top: int
    height: int


def resize_aligned(maps: Tensor, size: tuple[int, int], window: Window | None, stride: float, height: int) -> Tensor:
    """Resize a network's coarse map to its image, bilinearly with corners aligned.

    Aligning corners stretches a map a little, by more the smaller it is. Where the image is a window of a larger one,
    the map is stretched as that one's would be, so that windows fit together.

    Args:
        maps: (N, C, h, w).
        size: height and width of the image.
        window: which rows of a larger image the image is; None where it is whole.
        stride: rows of the image for each row of the map.
        height: rows of the coarse map of the larger image; not read where there is none.

    Returns:
        (N, C, H, W).
    """
    if window is None:
        return F.interpolate(maps, size, mode="bilinear", align_corners=True)
    rows = range(window.top, window.top + size[0])
    return resize_rows(maps, rows, (window.height, size[1]), first=window.top / stride, height=height, aligned=True)
