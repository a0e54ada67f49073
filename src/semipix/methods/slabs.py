"""Computation of large images in slabs of rows, so that memory does not grow with the image.

The output at a pixel depends on its surroundings. So a slab is computed together with rows above and below it, the
halo, whose outputs are dropped. How many rows a method needs is measured once with random images.
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
from semipix.functional.resizing import Window, resized_maps
from semipix.methods.base import Method

PIXELS_AT_ONCE = {"cpu": 5_800_000, "cuda": 2**24}
"""Largest number of pixels of an image, or of a slab with its halo; on a CPU `unet` takes about 2 GB for them."""

HALOS = (192, 256, 384)
"""Rows of a halo: the first value that is sufficient for the network is used, or the last; multiples of `STEP`.

With 192 rows, slabs of 384 rows changed 0.07 to 0.12 % of the labels of a trained `unet` on photos of 3 megapixels;
with 128 rows they changed 0.16 to 0.35 %.
"""

FAR = 768
"""Distance in rows at which convolutions have almost no effect, but pooling over the whole image has."""

STEP = 64
"""Slabs begin at multiples of this row, so that the cells of coarse maps are those of the whole image."""

SUFFICIENT, LOCAL = 0.03, 0.01
"""Largest mean changes of the output, in its standard deviations: at a halo's distance from changed pixels, so that the
halo is sufficient, and at the distance `FAR`, so that slabs can be used at all.

Untrained, `unet` has 0.002 at 192 rows and `deeplab_v2` has 0.011. A SegFormer has 0.003 at any distance; encoders with
squeeze and excitation, `hdrnet` and DeepLab v3+ have 0.1.
"""

Maps = tuple[Tensor | None, ...]
"""Maps (1, C, H, W) of one image."""


class Slab(NamedTuple):
    """Rows of an image.

    Attributes:
        computed: the rows that the network gets.
        kept: the rows among them whose output is used.
    """

    computed: range
    kept: range


class Slabs:
    """Decides which images a method computes in slabs, and computes them.

    Args:
        method: in evaluation mode, on its device.
        memory_format: the images' memory format.

    Attributes:
        images: number of images that were computed in slabs.
    """

    def __init__(self, method: Method, memory_format: torch.memory_format = torch.contiguous_format) -> None:
        self.method = method
        self.memory_format = memory_format
        self.images = 0
        self._halo: int | None = None
        self._measured = False

    def applies(self, size: Size) -> bool:
        """Whether an image of this height and width is computed in slabs."""
        return math.prod(size) > self._most_pixels and self.halo is not None

    def repeats(self, size: Size) -> float:
        """How often a pixel of an image of this size is computed, on average."""
        slabs = slabs_of(size, self._most_pixels, self.halo or 0)
        return sum(len(slab.computed) for slab in slabs) / size[0]

    @property
    def halo(self) -> int | None:
        """Rows of the method's halo; None if its networks depend on the whole image. Measured at the first use."""
        if not self._measured:
            self._halo, self._measured = measured_halo(self.method, self._device), True
        return self._halo

    def compute(self, image: Tensor, forward: Callable[[Tensor], Maps]) -> Iterator[Maps]:
        """Compute an image slab by slab, from the top.

        Args:
            image: (C, H, W), bytes or in [0, 1], on any device.
            forward: images (1, C, h, W) to maps of that size or of a smaller one, which are resized.

        Yields:
            The maps of the next rows.
        """
        height, width = image.shape[-2:]
        self.images += 1
        for computed, kept in slabs_of((height, width), self._most_pixels, self.halo or 0):
            part = unit_range(image[None, :, computed.start : computed.stop])
            part = part.to(self._device).contiguous(memory_format=self.memory_format)
            with window_set(self.method, Window(computed.start, height)):
                outputs = forward(part)
            rows = slice(kept.start - computed.start, kept.stop - computed.start)
            yield tuple(None if maps is None else resized_maps(maps, part.shape[-2:])[..., rows, :] for maps in outputs)

    def line(self) -> str:
        """A line for the user with the number of images that were computed in slabs; empty if there were none."""
        if not self.images:
            return ""
        were = "image of more than {} pixels was" if self.images == 1 else "images of more than {} pixels were"
        return f"{self.images} {were.format(self._most_pixels)} computed in slabs of rows, to bound memory"

    @property
    def _device(self) -> torch.device:
        return next(self.method.parameters()).device

    @property
    def _most_pixels(self) -> int:
        return PIXELS_AT_ONCE.get(self._device.type, PIXELS_AT_ONCE["cuda"])


def slabs_of(size: Size, pixels: int, halo: int) -> list[Slab]:
    """The slabs of an image, from the top, of almost equal height.

    Args:
        size: height and width.
        pixels: largest number of pixels of a slab with its halo; wide images may exceed it, since a slab keeps at least
            `STEP` rows.
        halo: rows that are computed above and below the kept ones, if the image has them; a multiple of `STEP`.
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
def window_set(method: nn.Module, window: Window) -> Iterator[None]:
    """Set the attribute `window` of all modules that have one."""
    modules: list[Any] = [module for module in method.modules() if hasattr(module, "window")]
    for module in modules:
        module.window = window
    try:
        yield
    finally:
        for module in modules:
            module.window = None


def measured_halo(method: Method, device: torch.device) -> int | None:
    """The halo that a method needs, or None if its outputs depend on the whole image.

    A module with `whole_image = True` depends on the whole image. Otherwise two random images are computed, which
    differ only below a line: one is dark there and the other bright. A halo is sufficient if the outputs hardly differ
    at its distance above the line.
    """
    if any(getattr(module, "whole_image", False) for module in method.modules()):
        return None
    images = torch.cat([_test_image(method.task.in_channels, bright) for bright in (False, True)]).to(device)
    try:
        with torch.inference_mode():
            evidence = method.evidence(images)
    except (RuntimeError, ValueError, SemipixError):  # the network takes only images of certain sizes
        return None
    others = [method.task.deactivate(prediction) for prediction in evidence.predictions[1:]]
    outputs = [evidence.output, *others, *([] if evidence.flaw is None else [evidence.flaw])]
    all_maps = [resized_maps(maps, images.shape[-2:]).float() for maps in outputs]

    def change(distance: int) -> float:
        return max(_change(maps, distance) for maps in all_maps)

    if not change(FAR) <= LOCAL:  # also if it is NaN
        return None
    return next((halo for halo in HALOS if change(halo) <= SUFFICIENT), HALOS[-1])


def _change(maps: Tensor, distance: int) -> float:
    """Mean difference of two maps (2, C, H, W) at a distance above the line, in standard deviations of the first."""
    line = FAR + STEP
    dark, bright = maps[..., line - distance - STEP : line - distance, :]
    difference, deviation = float((dark - bright).abs().mean()), float(dark.std((-2, -1)).mean())
    return difference / deviation if deviation else difference


def _test_image(channels: int, bright: bool) -> Tensor:
    """A smooth random image, 64 pixels wide; above row `FAR + STEP` it is the same for both values of `bright`."""
    generator = torch.Generator().manual_seed(0)
    parts = []
    for rows, darkest, contrast in ((FAR + STEP, 0.1, 0.8), (256, 0.7 if bright else 0.05, 0.25)):
        small = torch.rand(1, channels, rows // 8, 8, generator=generator)
        parts.append(darkest + contrast * F.interpolate(small, scale_factor=8, mode="bilinear"))
    return torch.cat(parts, dim=2)
