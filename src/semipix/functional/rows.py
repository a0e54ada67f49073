"""Maps of an image, resized to its own size a slab of rows at a time, so that they are never whole in memory."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.data.files.sizes import Size
from semipix.functional.resizing import resize_rows, source_rows

BLOCK_BYTES = 2**26
"""Bytes of a slab of float32 values at an image's own size; what is smaller is resized in one piece."""


def rows_of_a_block(width: int, channels: int) -> int:
    """Rows of float32 maps of this width and number of channels that make a block, at least 1."""
    return max(1, BLOCK_BYTES // (4 * width * channels))


class RowResizer:
    """Resizes maps bilinearly that come in slabs of rows, and hands the result out in slabs of rows.

    Args:
        source: height and width of the whole maps.
        size: height and width of the whole result.
        channels: channels of the maps, which decide how many rows are resized at once.
    """

    def __init__(self, source: Size, size: Size, channels: int) -> None:
        self.source = source
        self.size = size
        self.rows = rows_of_a_block(max(source[1], size[1]), channels)
        self._held: Tensor | None = None
        self._first = 0  # place of the first row that is held
        self._done = 0  # rows of the result so far

    def push(self, slab: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Take the next rows (N, C, h, w) from the top, and hand out what can be made of all so far.

        Yields:
            Rows of the result, and their values (N, C, rows, W).
        """
        if max(self.source[0], self.size[0]) <= self.rows and slab.shape[-2] == self.source[0]:
            yield slice(0, self.size[0]), F.interpolate(slab, self.size, mode="bilinear")
            return
        self._held = slab if self._held is None else torch.cat([self._held, slab], dim=-2)
        below = self._first + self._held.shape[-2]
        while self._done < self.size[0]:
            rows = range(self._done, min(self._done + self.rows, self.size[0]))
            needed = source_rows(rows, self.source[0], self.size[0])
            if needed.stop > below:
                if self.source != self.size or needed.start >= below:
                    break
                rows = needed = range(rows.start, below)
            part = self._held[..., needed.start - self._first : needed.stop - self._first, :]
            yield (
                slice(rows.start, rows.stop),
                resize_rows(part, rows, self.size, first=needed.start, height=self.source[0]),
            )
            self._done = rows.stop
        if self._done == self.size[0]:
            self._held = None
            return
        start = source_rows(range(self._done, self._done + 1), self.source[0], self.size[0]).start
        drop = min(start, below) - self._first
        self._held = self._held[..., drop:, :].clone() if drop else self._held
        self._first += drop
