"""Read masks whose colours are the classes, such as those that CVAT exports."""

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from semipix.data.files.decode_masks import MaskFile, refuse_lossy
from semipix.data.files.opening import MAX_PIXELS, open_image, raw_mode_of
from semipix.errors import SemipixError

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_NAMED = 3
"""Unknown colours that a message names; the others are counted."""


@dataclass(frozen=True)
class ColourTable:
    """The class of each colour.

    Args:
        origin: the file that the table was read from, for messages.
        indices: class index, or 255 for void, by colour.
    """

    origin: Path
    indices: dict[Colour, int]

    @property
    def identity(self) -> str:
        """A text that differs for tables that differ."""
        return hashlib.blake2b(repr(sorted(self.indices.items())).encode(), digest_size=8).hexdigest()


class UnknownColourError(SemipixError):
    """A mask has colours that no class has."""


def read_colour_mask(path: Path, table: ColourTable, *, max_pixels: int = MAX_PIXELS) -> MaskFile:
    """Read a mask of colours as class indices, turned upright by its own orientation tag.

    Args:
        path: an image of up to 8 bits a channel: colours, a palette (by its colours, not by its indices) or grey. Alpha
            is ignored.
        table: the class of each colour.
        max_pixels: the `data.max_pixels` setting.

    Returns:
        Values are uint8 class indices; there is no palette.

    Raises:
        UnknownColourError: a colour is not in the table.
        SemipixError: the file cannot be read, its format is lossy, or it has 16 bits a channel.
    """
    packed, orientation = read_colours(path, max_pixels=max_pixels)
    values = _lookup(tuple(table.indices.items()))[packed]
    if (values < 0).any():
        raise UnknownColourError(_unknown_message(path, table, packed[values < 0]))
    return MaskFile(torch.from_numpy(values.astype(np.uint8)), None, orientation)


class Colours(NamedTuple):
    """The colours of a mask, turned upright by its own orientation tag.

    Args:
        values: (H, W) numbers of 24 bits: red, green and blue from the highest to the lowest byte.
        orientation: the file's own tag, 1 to 8.
    """

    values: NDArray[np.int32]
    orientation: int


def read_colours(path: Path, *, max_pixels: int = MAX_PIXELS) -> Colours:
    """Read a mask of colours as colours.

    Args:
        path: see `read_colour_mask`.
        max_pixels: see `read_colour_mask`.

    Raises:
        SemipixError: the file cannot be read, its format is lossy, or it has 16 bits a channel.
    """
    with open_image(path, max_pixels) as file:
        refuse_lossy(file)
        if file.image.mode in ("I", "F") or "16" in file.image.mode or "16" in raw_mode_of(file.image):
            raise SemipixError(
                f"{path}: found a mask of more than 8 bits a channel (mode {file.image.mode}), expected colours of 8 "
                "bits; save it like this, or leave out data.colours if the values are class indices"
            )
        image = file.load()
        pixels = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        return Colours(_packed(file.to_upright(pixels)), file.orientation)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Colours (..., 3) as numbers of 24 bits."""
    wide = colours.astype(np.int32)
    packed: NDArray[np.int32] = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
    return packed


@functools.lru_cache(4)
def _lookup(indices: tuple[tuple[Colour, int], ...]) -> NDArray[np.int16]:
    """Class index by packed colour, -1 for colours of no class."""
    table = np.full(2**24, -1, np.int16)
    for colour, index in indices:
        table[_packed(np.array(colour, np.uint8))] = index
    return table


def _unknown_message(path: Path, table: ColourTable, unknown: NDArray[np.int32]) -> str:
    values, pixels = np.unique(unknown, return_counts=True)
    counts: Counter[int] = Counter(dict(zip(values.tolist(), pixels.tolist(), strict=True)))
    named = ", ".join(
        f"({value >> 16} {value >> 8 & 255} {value & 255}) at {count} pixels"
        for value, count in counts.most_common(_NAMED)
    )
    more = f" and {len(counts) - _NAMED} more colours" if len(counts) > _NAMED else ""
    return (
        f"{path}: no class has the colour {named}{more}; expected the {len(table.indices)} colours of {table.origin}, "
        "add a line NAME RED GREEN BLUE for each (NAME void for pixels of no class)"
    )
