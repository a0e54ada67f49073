"""Which images are too large for one pass, and how they are computed."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from semipix.data.files.sizes import Size
from semipix.methods.base import Method
from semipix.methods.slabs import PIXELS_AT_ONCE, Maps, Slabs
from semipix.methods.tiles import Tiles, Tiling

WHOLE_AT_MOST = 4
"""Largest image that is computed whole where slabs cannot be used, as a multiple of `PIXELS_AT_ONCE`."""


class LargeImages:
    """Computes images that are too large for one pass: in slabs of rows where the network allows it, or else in tiles.

    A network whose output depends on the whole image gives other outputs in tiles, so that it computes images whole as
    long as they are not much too large. Slabs of very wide images would be halo for the most part, and larger than one
    pass should be: such images are computed in tiles too, if that is less work.

    Args:
        method: in evaluation mode, on its device.
        memory_format: the images' memory format.
        tiling: compute all images that are larger than a tile in such tiles.
        in_slabs: whether slabs may be used at all.
    """

    def __init__(
        self,
        method: Method,
        memory_format: torch.memory_format = torch.contiguous_format,
        tiling: Tiling | None = None,
        in_slabs: bool = True,
    ) -> None:
        device = next(method.parameters()).device
        self.slabs = Slabs(method, memory_format)
        self.tiles = Tiles(tiling or Tiling(), device, memory_format)
        self._always_in_tiles = tiling is not None
        self._in_slabs = in_slabs
        self._most_pixels = WHOLE_AT_MOST * PIXELS_AT_ONCE.get(device.type, PIXELS_AT_ONCE["cuda"])

    def applies(self, size: Size) -> bool:
        """Whether an image of this height and width is computed in parts."""
        return self._parts(size) is not None

    def compute(self, image: Tensor, forward: Callable[[Tensor], Maps]) -> Iterator[Maps]:
        """Compute an image in parts, from the top; see `Slabs.compute` and `Tiles.compute`."""
        return (self._parts((image.shape[-2], image.shape[-1])) or self.slabs).compute(image, forward)

    def lines(self) -> list[str]:
        """Lines for the user with the numbers of images that were computed in parts."""
        return [line for line in (self.slabs.line(), self.tiles.line()) if line]

    def _parts(self, size: Size) -> Slabs | Tiles | None:
        if self._always_in_tiles:
            return self.tiles if self.tiles.applies(size) else None
        if self._in_slabs and self.slabs.applies(size):
            wide = self.tiles.applies(size) and self.slabs.repeats(size) > self.tiles.repeats(size)
            return self.tiles if wide else self.slabs
        return self.tiles if math.prod(size) > self._most_pixels else None
