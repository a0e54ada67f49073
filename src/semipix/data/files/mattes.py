"""Trimaps, mattes and the files they come from."""

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

TOLERANCE = 2
"""How far, of 255, a trimap's values may be from 0, 128 and 255."""

_TRIMAP = torch.full((256,), torch.nan)
"""What each value of a trimap file means; NaN where it means nothing."""

for _value, _meaning in ((0, 0.0), (128, UNKNOWN), (255, 1.0)):
    _TRIMAP[max(0, _value - TOLERANCE) : _value + TOLERANCE + 1] = _meaning

Widths = tuple[int, int]
"""Fewest and most pixels by which a trimap's unknown region reaches beyond the fractional alphas."""


class MatteFiles(NamedTuple):
    """An image and what is known about it; all but the image may be missing."""

    image: Path
    alpha: Path | None = None
    trimap: Path | None = None
    foreground: Path | None = None
    background: Path | None = None


@dataclass(frozen=True)
class MatteReader:
    """Reads matting samples, with what training varies.

    Attributes:
        widths: reach of the unknown region in trimaps that are made from an alpha; half-way between in evaluation.
        backgrounds: photographs that may stand behind a foreground.
        replace: share of the training samples with a known foreground that get another background.
    """

    widths: Widths = (1, 25)
    backgrounds: tuple[Path, ...] = ()
    replace: float = 0.5

    def image(self, files: MatteFiles, seed: int | None = None, max_pixels: int = MAX_PIXELS) -> tv_tensors.Image:
        """Image and trimap, (4, H, W) float32; with a seed, a trimap that is made differs by the seed.

        Args:
            files: what belongs to the image.
            seed: draws the reach of the unknown region; without one it is the middle of `widths`.
            max_pixels: most pixels of a file that is read.

        Raises:
            SemipixError: a file cannot be read or does not fit, or there is nothing to make a trimap from.
        """
        colours = read_image(files.image, max_pixels=max_pixels)
        return tv_tensors.Image(torch.cat([colours, self._trimap(files, seed, max_pixels)[None]]))

    def target(self, files: MatteFiles, max_pixels: int = MAX_PIXELS) -> Matte:
        """The target of an image with an alpha, (8, H, W).

        Raises:
            SemipixError: a file cannot be read or does not fit.
        """
        alpha, trimap = _alpha(files, max_pixels), self._trimap(files, None, max_pixels)
        return matte_of(alpha, trimap, *self._layers(files, max_pixels))

    def pair(self, files: MatteFiles, seed: int, max_pixels: int = MAX_PIXELS) -> tuple[tv_tensors.Image, Matte]:
        """Image and target for training, (4, H, W) and (8, H, W).

        Raises:
            SemipixError: a file cannot be read or does not fit.
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
        """Colours (3, H, W) of foreground and background, where they are known."""
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
        """A part of a random photograph that fills the size, (3, *size)."""
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
    """The target of alpha (H, W) and trimap (H, W), with colours (3, H, W) where they are known."""
    nothing = torch.full((3, *alpha.shape), torch.nan)
    colours = [nothing if part is None else part for part in (foreground, background)]
    return torch.cat([alpha[None], (trimap == UNKNOWN).float()[None], *colours]).as_subclass(Matte)


def middle(widths: Widths) -> Widths:
    """Reach of the unknown region into the foreground and the background where nothing is drawn at random."""
    return sum(widths) // 2, sum(widths) // 2


def trimap_of(path: Path, reach: Widths, max_pixels: int = MAX_PIXELS) -> Tensor:
    """A trimap file as `read_trimap` reads it; one without unknown pixels is a mask, which is widened.

    Args:
        path: the file.
        reach: pixels by which the unknown region of a mask reaches into the foreground and into the background.
        max_pixels: most pixels of a file that is read.

    Raises:
        SemipixError: the file cannot be read or holds other values.
    """
    trimap = read_trimap(path, max_pixels)
    return trimap if bool((trimap == UNKNOWN).any()) else make_trimap(trimap, *reach)


def make_trimap(alpha: Tensor, inner: int, outer: int) -> Tensor:
    """A trimap from an alpha by eroding what is certain.

    Args:
        alpha: (H, W) in [0, 1].
        inner: pixels by which the unknown region reaches into the foreground.
        outer: pixels by which it reaches into the background.

    Returns:
        (H, W): 0 background, 0.5 unknown, 1 foreground. Fractional pixels are always unknown.
    """
    foreground, background = alpha >= 1, alpha <= 0
    certain_foreground = foreground & ~_dilated(~foreground, inner)
    certain_background = background & ~_dilated(~background, outer)
    trimap = torch.full_like(alpha, UNKNOWN)
    return trimap.masked_fill(certain_foreground, 1).masked_fill(certain_background, 0)


def read_trimap(path: Path, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a trimap file of the values 0, 128 and 255, each up to 2 off, or a mask of the class indices 0 and 1.

    Returns:
        (H, W) float32: 0 background, 0.5 unknown, 1 foreground; a mask has no unknown pixels.

    Raises:
        SemipixError: the file cannot be read or holds other values.
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
        # How many marked pixels a window holds is the difference of two running counts, however wide it is.
        length = mask.shape[axis]
        counts = torch.cat([mask.new_zeros(1, mask.shape[1 - axis]), mask.movedim(axis, 0)]).cumsum(
            0, dtype=torch.int32
        )
        index = torch.arange(length)
        marked = counts[(index + pixels + 1).clamp(max=length)] - counts[(index - pixels).clamp(min=0)]
        mask = (marked > 0).movedim(0, axis)
    return mask
