"""Resize an image's maps a few rows at a time, so that the whole result is never in memory."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from semipix.functional.resizing import resize_rows, source_rows

BLOCK_BYTES = 2**26
"""Bytes of float32 values that are resized at a time; smaller maps are resized in one piece."""


def block_rows(width: int, channels: int) -> int:
    """Rows of a block of float32 maps with this width and number of channels, at least 1."""
    return max(1, BLOCK_BYTES // (4 * width * channels))


class RowResizer:
    """Resizes maps bilinearly; it takes their rows in parts and yields the rows of the result in parts.

    Args:
        source: height and width of the maps.
        size: height and width of the result.
        channels: channels of the maps; with more channels fewer rows are resized at a time.

    Attributes:
        rows: most rows that are resized at a time.
    """

    def __init__(self, source: tuple[int, int], size: tuple[int, int], channels: int) -> None:
        self.source = source
        self.size = size
        self.rows = block_rows(max(source[1], size[1]), channels)
        self._waiting: Tensor | None = None  # rows of the maps that are still needed
        self._first = 0  # position of the first of them
        self._done = 0  # rows of the result that were yielded

    def push(self, part: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Take the next rows (N, C, h, w) of the maps, from the top, and yield all rows that can be computed.

        Yields:
            Rows of the result, and their values (N, C, rows, W).
        """
        if max(self.source[0], self.size[0]) <= self.rows and part.shape[-2] == self.source[0]:
            yield slice(0, self.size[0]), F.interpolate(part, self.size, mode="bilinear")
            return
        self._waiting = part if self._waiting is None else torch.cat([self._waiting, part], dim=-2)
        end = self._first + self._waiting.shape[-2]
        while self._done < self.size[0]:
            rows = range(self._done, min(self._done + self.rows, self.size[0]))
            needed = source_rows(rows, self.source[0], self.size[0])
            if needed.stop > end:
                if self.source != self.size or needed.start >= end:
                    break
                rows = needed = range(rows.start, end)  # without resizing, fewer rows than a block can be yielded
            values = self._waiting[..., needed.start - self._first : needed.stop - self._first, :]
            yield (
                slice(rows.start, rows.stop),
                resize_rows(values, rows, self.size, first=needed.start, height=self.source[0]),
            )
            self._done = rows.stop
        if self._done == self.size[0]:
            self._waiting = None
            return
        start = source_rows(range(self._done, self._done + 1), self.source[0], self.size[0]).start
        drop = min(start, end) - self._first
        self._waiting = self._waiting[..., drop:, :].clone() if drop else self._waiting
        self._first += drop
