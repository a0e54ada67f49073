"""Bilinear resizing of some rows of a map, with the same result as `F.interpolate` of the whole map."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.precision import at_least_float32


class Window(NamedTuple):
    """Position of an image in a larger image of the same width.

    Attributes:
        top: the image's first row in the larger image.
        height: rows of the larger image.
    """

    top: int
    height: int


def source_rows(rows: range, height: int, resized_height: int) -> range:
    """The rows of a map from which some rows of the resized map are computed.

    Args:
        rows: rows of the resized map, at least one.
        height: rows of the map.
        resized_height: rows of the resized map.
    """
    places = _places(rows, height, resized_height, aligned=False)
    return range(int(places[0]), min(int(places[-1]) + 2, height))


def resize_rows(
    maps: Tensor, rows: range, size: tuple[int, int], *, first: float, height: int, aligned: bool = False
) -> Tensor:
    """Some rows of `F.interpolate(whole, size, mode="bilinear", align_corners=aligned)`.

    Equal up to rounding, and exactly equal if the size does not change.

    Args:
        maps: some rows (N, C, h, w) of `whole`, including those of `source_rows`; the outermost ones also replace rows
            beyond them.
        rows: rows of the resized map.
        size: height and width of the whole resized map.
        first: position of the first row of `maps` in `whole`; it may be a fraction.
        height: rows of `whole`.
        aligned: whether corners are aligned.

    Returns:
        (N, C, len(rows), W) of the type of `maps`.
    """
    places = _places(rows, height, size[0], aligned).to(maps.device) - first
    available = maps.shape[-2]
    places = places.clamp(0, available - 1)
    upper = places.floor().long()
    if torch.equal(places, upper.to(places.dtype)):
        resized = maps if len(rows) == available and bool((upper.diff() == 1).all()) else maps[..., upper, :]
    else:
        values = at_least_float32(maps)
        share = (places - upper).to(values.dtype).unsqueeze(-1)
        lower = (upper + 1).clamp(max=available - 1)
        resized = values[..., upper, :] * (1 - share) + values[..., lower, :] * share
    if maps.shape[-1] != size[1]:
        # This resizes only columns: the number of rows does not change.
        resized = F.interpolate(resized, (len(rows), size[1]), mode="bilinear", align_corners=aligned)
    return resized.to(maps.dtype)


def resized_maps(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, C, h, w), resized bilinearly to a height and width if they do not have them."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear")


def _places(rows: range, height: int, resized_height: int, aligned: bool) -> Tensor:
    """Positions of rows of the resized map in the map, in its rows; float32 as in torch's own kernels."""
    wanted = torch.arange(rows.start, rows.stop, dtype=torch.float64)
    if aligned:
        return (wanted * _single((height - 1) / (resized_height - 1) if resized_height > 1 else 0.0)).float()
    # torch rounds the scale, then the position, which it computes by one fused operation.
    return ((wanted + 0.5) * _single(height / resized_height) - 0.5).float().clamp(0, height - 1)


def _single(value: float) -> float:
    """Round a number to single precision."""
    return float(torch.tensor(value, dtype=torch.float32))


def resize_aligned(maps: Tensor, size: tuple[int, int], window: Window | None, stride: float, height: int) -> Tensor:
    """Resize a network's coarse map to the size of its image, bilinearly with aligned corners.

    Aligned corners change the scale of a map a little, more for smaller maps. For a window of a larger image, the scale
    of the larger image is used, so that the results of several windows fit together.

    Args:
        maps: (N, C, h, w).
        size: height and width of the image.
        window: position of the image in a larger image; None for a whole image.
        stride: rows of the image per row of the map.
        height: rows of the coarse map of the larger image; not used for a whole image.

    Returns:
        (N, C, H, W).
    """
    if window is None:
        return F.interpolate(maps, size, mode="bilinear", align_corners=True)
    rows = range(window.top, window.top + size[0])
    return resize_rows(maps, rows, (window.height, size[1]), first=window.top / stride, height=height, aligned=True)
