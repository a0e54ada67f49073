"""Label Studio's run-length code of brush strokes: a bit stream of runs of the four channels' bytes."""

import numpy as np
from numpy.typing import NDArray

_SIZES = (3, 4, 8, 16)
"""Bits of a run's length, by the number of two bits before it."""

_LONGEST = 1 << _SIZES[-1]

_CHANNELS = 4


def brush_code(region: NDArray[np.bool_]) -> list[int]:
    """The bytes of a mask in Label Studio's code.

    The stream begins with 32 bits of the number of bytes that it describes, 5 of the bits of a value less 1, and four
    times 4 of the bits of a length less 1. Each run is a bit 1, two bits of its length's size, its length less 1, and 8
    bits of its value, 0 or 255.

    Args:
        region: (H, W), the painted pixels.
    """
    flat = region.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    lengths = _CHANNELS * np.diff(np.append(starts, flat.size))
    values = np.where(flat[starts], 255, 0)
    parts = -(-lengths // _LONGEST)  # longer runs are split
    last = np.cumsum(parts) - 1
    split = np.full(int(parts.sum()), _LONGEST)
    split[last] = lengths - (parts - 1) * _LONGEST
    values = np.repeat(values, parts)
    sizes = np.searchsorted(1 << np.array(_SIZES), split)
    widths = np.array(_SIZES)[sizes]
    words = ((4 | sizes) << widths | split - 1) << 8 | values  # a leading 1, the size, the length, the value
    head = _bits(np.array([_CHANNELS * flat.size, 7, *(size - 1 for size in _SIZES)]), np.array([32, 5, 4, 4, 4, 4]))
    packed: list[int] = np.packbits(np.concatenate([head, _bits(words, widths + 11)])).tolist()
    return packed


def _bits(numbers: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The bits of numbers one after another, each with as many as its width says, the highest first."""
    ends = np.cumsum(widths)
    place = np.repeat(ends, widths) - np.arange(int(ends[-1])) - 1
    bits: NDArray[np.uint8] = (np.repeat(numbers, widths) >> place & 1).astype(np.uint8)
    return bits
