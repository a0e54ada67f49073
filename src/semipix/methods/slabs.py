"""Large images are computed in slabs of rows, so that memory does not grow with the image.

A slab is computed with rows around it, the halo, that are dropped again: what a network says of a pixel depends on its
surroundings. How far is measured once for each method, by changing the far part of a random image.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semipix.data.files.decode import unit_range
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError
from semipix.functional.resizing import Window
from semipix.methods.base import Method

PIXELS_AT_ONCE = {"cpu": 5_800_000, "cuda": 2**24}
"""Pixels above which an image is computed in slabs, and of a slab with its halo: about 2 GB of `unet` on a CPU."""

HALOS = (192, 256, 384)
"""Rows around a slab: the first that is enough for the network, or the last; multiples of `STEP`.

With 192 rows, slabs of 384 rows changed 0.07 to 0.12 % of the labels of a trained `unet` on photos of 3 megapixels; 128
rows changed 0.16 to 0.35 %.
"""

FAR = 768
"""Rows beyond which convolutions see nothing, or next to nothing, but networks that pool the whole image do."""

STEP = 64
"""Slabs begin at multiples of it, so that the cells of a network's coarse maps are those of the whole image."""

ENOUGH, LOCAL = 0.03, 0.01
"""Mean change of an output, in its standard deviations, that a change of all pixels beyond a halo, or of all that are
far, may make. Before training, `unet` makes 0.002 beyond 192 rows and `deeplab_v2` 0.011, a SegFormer 0.003 however
far, and squeeze-and-excite encoders, `hdrnet` and DeepLab v3+ 0.1.
"""


class Slab(NamedTuple):
    """Rows of an image.

    Attributes:
        computed: those that the network is given.
        kept: those of them whose output is kept.
    """

    computed: range
    kept: range


Maps = tuple[Tensor | None, ...]
"""Maps (1, C, H, W) of one image and one size."""


class Slabs:
    """How a method computes images, whole or in slabs of rows.

    Args:
        method: in evaluation mode, on its device.
        layout: how its images lie in memory.

    Attributes:
        images: how many images were computed in slabs.
    """

    def __init__(self, method: Method, layout: torch.memory_format = torch.contiguous_format) -> None:
        self.method = method
        self.layout = layout
        self.images = 0
        self._halo: int | None = None
        self._measured = False

    @property
    def most_pixels(self) -> int:
        """Pixels of an image that is computed whole whatever the network."""
        return most_pixels(self._device.type)

    def applies(self, size: Size) -> bool:
        """Whether images of this height and width are computed in slabs."""
        return math.prod(size) > self.most_pixels and self.halo is not None

    @property
    def halo(self) -> int | None:
        """Rows of the method's halo; None where it has to see an image whole."""
        if not self._measured:
            self._halo, self._measured = measured_halo(self.method, self._device), True
        return self._halo

    def compute(self, image: Tensor, forward: Callable[[Tensor], Maps]) -> Iterator[Maps]:
        """What a method makes of an image, slab by slab from the top.

        Args:
            image: (C, H, W), of bytes or in [0, 1], on any device.
            forward: images (1, C, h, W) to maps of that size, or of a coarser one, which are resized.

        Yields:
            The maps of the next rows.
        """
        height, width = image.shape[-2:]
        self.images += 1
        for computed, kept in slabs_of((height, width), self.most_pixels, self.halo or 0):
            part = unit_range(image[None, :, computed.start : computed.stop])
            part = part.to(self._device).contiguous(memory_format=self.layout)
            with placed(self.method, Window(computed.start, height)):
                maps = forward(part)
            rows = slice(kept.start - computed.start, kept.stop - computed.start)
            yield tuple(None if found is None else _fitted(found, part.shape[-2:])[..., rows, :] for found in maps)

    def line(self) -> str:
        """How many images were computed in slabs, for the user; empty where none was."""
        if not self.images:
            return ""
        were = "image of more than {} pixels was" if self.images == 1 else "images of more than {} pixels were"
        return f"{self.images} {were.format(self.most_pixels)} computed in slabs of rows, to bound memory"

    @property
    def _device(self) -> torch.device:
        return next(self.method.parameters()).device


def most_pixels(device: str) -> int:
    """Pixels that a type of device computes at once."""
    return PIXELS_AT_ONCE.get(device, PIXELS_AT_ONCE["cuda"])


def slabs_of(size: Size, pixels: int, halo: int) -> list[Slab]:
    """The slabs of an image, from the top, of nearly equal height.

    Args:
        size: height and width.
        pixels: most pixels of a slab with its halo; a slab keeps at least `STEP` rows, however wide the image.
        halo: rows computed above and below what is kept, where the image has them; a multiple of `STEP`.
    """
    height, width = size
    most = max(pixels // width // STEP * STEP - 2 * halo, STEP)
    count = math.ceil(height / most)
    rows = math.ceil(height / count / STEP) * STEP
    return [
        Slab(range(max(top - halo, 0), min(top + rows + halo, height)), range(top, min(top + rows, height)))
        for top in range(0, height, rows)
    ]


@contextmanager
def placed(method: nn.Module, window: Window) -> Iterator[None]:
    """Let the modules that have an attribute `window` know which rows of an image they are given."""
    modules: list[Any] = [module for module in method.modules() if hasattr(module, "window")]
    for module in modules:
        module.window = window
    try:
        yield
    finally:
        for module in modules:
            module.window = None


def measured_halo(method: Method, device: torch.device) -> int | None:
    """The halo that a method needs, or None where its outputs depend on the whole image.

    A module says so by `whole_image = True`. Otherwise two random images are computed that differ below a line alone,
    one dark and one bright: what changes above it, at the halo's distance, is what a slab would get wrong at most.
    """
    if any(getattr(module, "whole_image", False) for module in method.modules()):
        return None
    images = torch.cat([_probe(method.task.in_channels, bright) for bright in (False, True)]).to(device)
    try:
        with torch.inference_mode():
            outputs = method.forward_with_flaw(images)
    except (RuntimeError, ValueError, SemipixError):  # the network takes images of certain sizes alone
        return None
    maps = [_fitted(found, images.shape[-2:]).float() for found in outputs if found is not None]
    if not max(_change(found, FAR) for found in maps) <= LOCAL:
        return None
    return next((halo for halo in HALOS if max(_change(found, halo) for found in maps) <= ENOUGH), HALOS[-1])


def _change(maps: Tensor, distance: int) -> float:
    """How much two maps (2, C, H, W) differ at a distance above the line, in standard deviations along a row."""
    line = FAR + STEP
    dark, bright = maps[..., line - distance - STEP : line - distance, :]
    moved, spread = float((dark - bright).abs().mean()), float(dark.std((-2, -1)).mean())
    return moved / spread if spread else moved


def _probe(channels: int, bright: bool) -> Tensor:
    """A smooth random image 64 pixels wide, the same above the line whether it is dark or bright below."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for rows, start, reach in ((FAR + STEP, 0.1, 0.8), (256, 0.7 if bright else 0.05, 0.25)):
        small = torch.rand(1, channels, rows // 8, 8, generator=generator)
        parts.append(start + reach * F.interpolate(small, scale_factor=8, mode="bilinear"))
    return torch.cat(parts, dim=2)


def _fitted(maps: Tensor, size: Size | torch.Size) -> Tensor:
    """Maps at the size of the image that they belong to."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear")
