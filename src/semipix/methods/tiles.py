"""Computation of large images in overlapping tiles, for networks that cannot be computed in slabs, or if asked for.

Each tile is computed as an image of its own. Where tiles overlap, their outputs are averaged with weights that fall
off from the middle of a tile, since a network knows least at its edges. The tiles form a grid, so the sum of the
weights at a pixel is the product of one factor for its row and one for its column. They are known in advance, and only
the rows that are not complete yet are in memory.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from semipix.data.files.decode import unit_range
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError
from semipix.functional.resizing import resized_maps
from semipix.methods.slabs import Maps

STEP = 32
"""Tiles begin at multiples of this number of pixels, so that the cells of coarse maps are those of the whole image."""

WIDTH = 1 / 8
"""Standard deviation of the weights, as a share of a tile's side."""


class Tiling(NamedTuple):
    """Size of the tiles.

    Attributes:
        tile: side of a tile, in pixels of the image that the network sees.
        overlap: pixels that neighbours share at least, less than `tile`.
    """

    tile: int = 1024
    overlap: int = 384

    @classmethod
    def given(cls, tile: int | None, overlap: int | None) -> "Tiling | None":
        """The tiling of the options `--tile` and `--overlap`; None without the first.

        Raises:
            SemipixError: a tile is too small, no multiple of `STEP`, or not larger than the overlap; or there is
                an overlap without a tile.
        """
        if tile is None:
            if overlap is not None:
                raise SemipixError(f"--overlap: {overlap} found without --tile; give the side of a tile by --tile N")
            return None
        self = cls(tile, 3 * tile // 8 if overlap is None else overlap)
        if self.tile < 2 * STEP or self.tile % STEP:
            raise SemipixError(f"--tile: {self.tile} found, a multiple of {STEP} from {2 * STEP} on expected")
        if not 0 <= self.overlap <= self.tile - STEP:
            most = self.tile - STEP
            raise SemipixError(f"--overlap: {self.overlap} found, 0 to {most} expected with --tile {self.tile}")
        return self


class Axis(NamedTuple):
    """The tiles along one side of an image.

    Attributes:
        starts: first pixel of each tile.
        lengths: pixels of each tile.
        weights: weight of each pixel of each tile; those of one pixel of the image add up to 1.
    """

    starts: list[int]
    lengths: list[int]
    weights: list[Tensor]


class Tiles:
    """Computes images in tiles.

    Args:
        tiling: size of the tiles.
        device: where tiles are computed.
        memory_format: the tiles' memory format.

    Attributes:
        images: number of images that were computed in tiles.
    """

    def __init__(
        self, tiling: Tiling, device: torch.device, memory_format: torch.memory_format = torch.contiguous_format
    ) -> None:
        self.tiling = tiling
        self.device = device
        self.memory_format = memory_format
        self.images = 0

    def applies(self, size: Size) -> bool:
        """Whether an image of this height and width has more than one tile."""
        return max(size) > self.tiling.tile

    def repeats(self, size: Size) -> float:
        """How often a pixel of an image of this size is computed, on average."""
        return math.prod(sum(axis_of(side, self.tiling).lengths) / side for side in size)

    def compute(self, image: Tensor, forward: Callable[[Tensor], Maps]) -> Iterator[Maps]:
        """Compute an image tile by tile, from the top.

        Args:
            image: (C, H, W), bytes or in [0, 1], on any device.
            forward: images (1, C, h, w) to maps of that size or of a smaller one, which are resized.

        Yields:
            The maps of the next rows.
        """
        self.images += 1
        rows, columns = (axis_of(length, self.tiling) for length in image.shape[-2:])
        waiting: list[Tensor | None] = []  # sums of the rows that are not complete, (1, C, h, W)
        ends = [*rows.starts[1:], image.shape[-2]]  # where the rows of each row of tiles are complete
        for top, height, weights, end in zip(*rows, ends, strict=True):
            sums = self._row_of_tiles(image[:, top : top + height], columns, forward)
            _blend(sums, weights, waiting)
            done = end - top
            waiting = [None if total is None else total[..., done:, :].clone() for total in sums]
            yield tuple(None if total is None else total[..., :done, :] for total in sums)
            del sums  # before the next row of tiles is computed

    def _row_of_tiles(self, image: Tensor, columns: Axis, forward: Callable[[Tensor], Maps]) -> list[Tensor | None]:
        """Weighted sums (1, C, h, W) over the tiles of some rows (C, h, W) of an image."""
        sums: list[Tensor | None] = []
        for left, width, weights in zip(*columns, strict=True):
            tile = unit_range(image[None, :, :, left : left + width])
            outputs = forward(tile.to(self.device).contiguous(memory_format=self.memory_format))
            if not sums:
                sums = [
                    None if maps is None else maps.new_zeros(1, maps.shape[1], *image.shape[-2:], dtype=torch.float32)
                    for maps in outputs
                ]
            for total, maps in zip(sums, outputs, strict=True):
                if total is not None and maps is not None:
                    part = resized_maps(maps.float(), tile.shape[-2:])
                    total[..., left : left + width] += part * weights.to(part.device)
        return sums

    def line(self) -> str:
        """A line for the user with the number of images that were computed in tiles; empty if there were none."""
        if not self.images:
            return ""
        were = "image was" if self.images == 1 else "images were"
        return (
            f"{self.images} {were} computed in tiles of {self.tiling.tile} pixels that overlap by "
            f"{self.tiling.overlap}, each as an image of its own"
        )


def _blend(sums: Sequence[Tensor | None], weights: Tensor, waiting: Sequence[Tensor | None]) -> None:
    """Weigh the rows (1, C, h, W) of a row of tiles, and add what the tiles above them left."""
    for index, total in enumerate(sums):
        if total is not None:
            total.mul_(weights.to(total.device).view(-1, 1))
            if waiting and (before := waiting[index]) is not None:
                total[..., : before.shape[-2], :] += before


def axis_of(length: int, tiling: Tiling) -> Axis:
    """The tiles along a side of an image; the last one ends with the image.

    Args:
        length: pixels of the side.
        tiling: see `Tiling`.
    """
    tile, stride = tiling.tile, (tiling.tile - tiling.overlap) // STEP * STEP
    last = max(0, math.ceil((length - tile) / STEP) * STEP)
    starts = [*range(0, last, stride), last]
    lengths = [min(tile, length - start) for start in starts]
    weights = [_bell(size) for size in lengths]
    total = torch.zeros(length, dtype=torch.float64)
    for start, size, weight in zip(starts, lengths, weights, strict=True):
        total[start : start + size] += weight
    parts = zip(starts, lengths, weights, strict=True)
    return Axis(starts, lengths, [(weight / total[start : start + size]).float() for start, size, weight in parts])


def _bell(size: int) -> Tensor:
    """Weights of the pixels of a tile, highest in its middle and never 0."""
    distance = (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) / (WIDTH * size)
    return (-distance.square() / 2).exp()
