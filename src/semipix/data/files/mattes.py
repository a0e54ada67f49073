"""Read images, trimaps and alpha mattes for matting."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torchvision import tv_tensors

from semipix.data.files.decode import check_label_size, read_grey, read_image
from semipix.data.files.opening import MAX_PIXELS
from semipix.data.files.resize import UNKNOWN, resize_to
from semipix.data.targets import Matte
from semipix.errors import SemipixError

Widths = tuple[int, int]
"""Smallest and largest number of pixels by which the unknown region extends beyond the fractional alphas."""

TOLERANCE = 2
"""By how much a value of a trimap file may differ from 0, 128 and 255."""

_TRIMAP = torch.full((256,), torch.nan)
"""Trimap value (0, 0.5 or 1) by the value of a file; NaN for values that are not allowed."""

for _value, _meaning in ((0, 0.0), (128, UNKNOWN), (255, 1.0)):
    _TRIMAP[max(0, _value - TOLERANCE) : _value + TOLERANCE + 1] = _meaning


class MatteFiles(NamedTuple):
    """The files of one sample; all but the image may be missing."""

    image: Path
    alpha: Path | None = None
    trimap: Path | None = None
    foreground: Path | None = None
    background: Path | None = None


@dataclass(frozen=True)
class MatteReader:
    """Reads matting samples. In training, trimaps and backgrounds vary.

    Attributes:
        widths: range of the width of the unknown region, for trimaps that are made from an alpha; evaluation uses the
            middle of the range.
        backgrounds: photographs that may replace the background of a sample.
        replace: share of the training samples with a known foreground whose background is replaced.
    """

    widths: Widths = (1, 25)
    backgrounds: tuple[Path, ...] = ()
    replace: float = 0.5

    def image(self, files: MatteFiles, seed: int | None = None, max_pixels: int = MAX_PIXELS) -> tv_tensors.Image:
        """Image and trimap, (4, H, W) float32.

        Args:
            files: the files of the sample.
            seed: draws the width of the unknown region of a trimap that is made from an alpha; None takes the middle of
                `widths`.
            max_pixels: most pixels of a file that is read.

        Raises:
            SemipixError: a file cannot be read, differs in size from the image, or there is neither trimap nor alpha.
        """
        colours = read_image(files.image, max_pixels=max_pixels)
        return tv_tensors.Image(torch.cat([colours, self._trimap(files, seed, max_pixels)[None]]))

    def target(self, files: MatteFiles, max_pixels: int = MAX_PIXELS) -> Matte:
        """The target of an image with an alpha, (8, H, W).

        Raises:
            SemipixError: a file cannot be read, or differs in size from the image.
        """
        alpha, trimap = _alpha(files, max_pixels), self._trimap(files, None, max_pixels)
        return matte_of(alpha, trimap, *self._layers(files, max_pixels))

    def pair(self, files: MatteFiles, seed: int, max_pixels: int = MAX_PIXELS) -> tuple[tv_tensors.Image, Matte]:
        """Image and target for training, (4, H, W) and (8, H, W).

        Raises:
            SemipixError: a file cannot be read, or differs in size from the image.
        """
        colours = read_image(files.image, max_pixels=max_pixels)
        trimap, alpha = self._trimap(files, seed, max_pixels), _alpha(files, max_pixels)
        foreground, background = self._layers(files, max_pixels)
        generator = np.random.default_rng(seed)
        if foreground is not None and self.backgrounds and generator.random() < self.replace:
            background = self._background(alpha.shape, generator, max_pixels)
            colours = alpha * foreground + (1 - alpha) * background
        image = tv_tensors.Image(torch.cat([colours, trimap[None]]))
        return image, matte_of(alpha, trimap, foreground, background)

    def _layers(self, files: MatteFiles, max_pixels: int) -> tuple[Tensor | None, Tensor | None]:
        """Colours (3, H, W) of foreground and background; None for one that is not known."""
        return (
            _colours(files, files.foreground, "foreground", max_pixels),
            _colours(files, files.background, "background", max_pixels),
        )

    def _trimap(self, files: MatteFiles, seed: int | None, max_pixels: int) -> Tensor:
        if files.trimap is not None:
            trimap = trimap_of(files.trimap, self._reach(seed), max_pixels)
            check_label_size(files.image, files.trimap, trimap, "trimap", max_pixels=max_pixels)
            return trimap
        if files.alpha is not None:
            return make_trimap(_alpha(files, max_pixels), *self._reach(seed))
        raise SemipixError(
            f"{files.image}: no trimap found and no alpha to make one from; add a trimap, or a mask of 0 and 255"
        )

    def _reach(self, seed: int | None) -> Widths:
        if seed is None:
            return middle(self.widths)
        low, high = self.widths
        inner, outer = np.random.default_rng([seed, 1]).integers(low, high + 1, 2)
        return int(inner), int(outer)

    def _background(self, size: torch.Size, generator: Generator, max_pixels: int) -> Tensor:
        """A random part of a random photograph, (3, *size); a small photograph is enlarged first."""
        path = self.backgrounds[int(generator.integers(len(self.backgrounds)))]
        photograph = read_image(path, max_pixels=max_pixels)
        sides = list(zip(size, photograph.shape[-2:], strict=True))
        scale = max(want / have for want, have in sides)
        if scale > 1:
            height, width = (max(want, round(have * scale)) for want, have in sides)
            photograph = resize_to(tv_tensors.Image(photograph), (height, width)).as_subclass(Tensor)
            sides = list(zip(size, photograph.shape[-2:], strict=True))
        y, x = (int(generator.integers(have - want + 1)) for want, have in sides)
        return photograph[:, y : y + size[0], x : x + size[1]]


def matte_of(alpha: Tensor, trimap: Tensor, foreground: Tensor | None, background: Tensor | None) -> Matte:
    """The target made of alpha (H, W), trimap (H, W), and the colours (3, H, W) that are known."""
    nothing = torch.full((3, *alpha.shape), torch.nan)
    colours = [nothing if part is None else part for part in (foreground, background)]
    return torch.cat([alpha[None], (trimap == UNKNOWN).float()[None], *colours]).as_subclass(Matte)


def middle(widths: Widths) -> Widths:
    """Width of the unknown region towards the foreground and the background if it is not drawn at random."""
    return sum(widths) // 2, sum(widths) // 2


def trimap_of(path: Path, reach: Widths, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a trimap file; a file without unknown pixels is taken for a mask, around whose edges they are added.

    Args:
        path: the file.
        reach: pixels of unknown region that a mask gets inside the foreground and inside the background.
        max_pixels: most pixels of a file that is read.

    Raises:
        SemipixError: the file cannot be read, or holds values that no trimap has.
    """
    trimap = read_trimap(path, max_pixels)
    return trimap if bool((trimap == UNKNOWN).any()) else make_trimap(trimap, *reach)


def make_trimap(alpha: Tensor, inner: int, outer: int) -> Tensor:
    """Make a trimap from an alpha by eroding the certain foreground and background.

    Args:
        alpha: (H, W) in [0, 1].
        inner: pixels by which the unknown region extends into the foreground.
        outer: pixels by which it extends into the background.

    Returns:
        (H, W): 0 background, 0.5 unknown, 1 foreground. Fractional pixels are always unknown.
    """
    foreground, background = alpha >= 1, alpha <= 0
    certain_foreground = foreground & ~_dilated(~foreground, inner)
    certain_background = background & ~_dilated(~background, outer)
    trimap = torch.full_like(alpha, UNKNOWN)
    return trimap.masked_fill(certain_foreground, 1).masked_fill(certain_background, 0)


def read_trimap(path: Path, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a trimap file of the values 0, 128 and 255 (each may differ by 2), or a mask of the class indices 0 and 1.

    Returns:
        (H, W) float32: 0 background, 0.5 unknown, 1 foreground; a mask has no unknown pixels.

    Raises:
        SemipixError: the file cannot be read, or holds other values.
    """
    values = (read_grey(path, max_pixels=max_pixels) * 255).round(decimals=3)
    if values.max() == 1:
        return values
    trimap = _TRIMAP[values.round().long()]
    wrong = values[trimap.isnan()]
    if len(wrong):
        raise SemipixError(
            f"{path}: found trimap value {wrong[0]:.0f} ({len(wrong)} pixels), expected 0, 128 and 255 up to "
            f"{TOLERANCE} off for background, unknown and foreground; save it as PNG: JPEG and resizing change values"
        )
    return trimap


def _alpha(files: MatteFiles, max_pixels: int) -> Tensor:
    assert files.alpha is not None
    alpha = read_grey(files.alpha, max_pixels=max_pixels)
    check_label_size(files.image, files.alpha, alpha, "alpha", max_pixels=max_pixels)
    return alpha


def _colours(files: MatteFiles, path: Path | None, word: str, max_pixels: int) -> Tensor | None:
    if path is None:
        return None
    colours = read_image(path, max_pixels=max_pixels)
    check_label_size(files.image, path, colours, word, max_pixels=max_pixels)
    return colours


def _dilated(mask: Tensor, pixels: int) -> Tensor:
    """A mask (H, W) dilated by a square of `pixels` to each side."""
    for axis in (0, 1):
        # The number of marked pixels in a window is the difference of two running counts, which takes the same time
        # for windows of any width.
        length = mask.shape[axis]
        counts = torch.cat([mask.new_zeros(1, mask.shape[1 - axis]), mask.movedim(axis, 0)]).cumsum(
            0, dtype=torch.int32
        )
        index = torch.arange(length)
        marked = counts[(index + pixels + 1).clamp(max=length)] - counts[(index - pixels).clamp(min=0)]
        mask = (marked > 0).movedim(0, axis)
    return mask
