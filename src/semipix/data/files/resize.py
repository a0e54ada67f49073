"""Resize images and targets, or compute a window of a resized one."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from semipix.data.files.bands import BandImage
from semipix.data.files.decode import unit_range
from semipix.data.files.sizes import Size, resized_size
from semipix.data.targets import ImageTarget, Matte, Target

Window = tuple[int, int, int, int]
"""Top, left, height and width of a part of an image."""

UNKNOWN = 0.5
"""Value of unknown pixels in the trimap channel of an image."""

MATTE_COLOURS = slice(2, 8)
"""Channels of a `Matte` that hold colours."""

_MATTE_UNKNOWN = 1
"""Channel of a `Matte` that marks the unknown pixels."""


def resize_image(image: tv_tensors.Image, resize: int | Size | None) -> tv_tensors.Image:
    """Resize an image by the `data.resize` setting: colours antialiased bilinear, a trimap to the nearest pixel.

    Args:
        image: (C, H, W); red, green and blue come first, or all channels are bands (`BandImage`).
        resize: length of the longer side (aspect kept), the exact height and width, or None for no change.

    Returns:
        (C, H', W').
    """
    resized: tv_tensors.Image = resize_to(image, resized_size(tuple(image.shape[-2:]), resize))
    return resized


def resize_target(target: Target, resize: int | Size | None) -> Target:
    """Resize a target by the `data.resize` setting: nearest for masks, antialiased bilinear for images.

    A pixel becomes NaN if more than half of its weight comes from NaN pixels.
    """
    resized: Target = resize_to(target, resized_size(tuple(target.shape[-2:]), resize))
    return resized


def resize_to(inpt: Any, size: Size) -> Any:
    """Resize a tv_tensor to (height, width): masks and trimaps to the nearest pixel, images antialiased bilinear.

    A tensor that has this size already is returned unchanged. Otherwise bytes become floats in [0, 1].
    """
    if tuple(inpt.shape[-2:]) == tuple(size):
        return inpt
    plain = inpt.as_subclass(torch.Tensor)
    if isinstance(inpt, tv_tensors.Mask):
        return tv_tensors.wrap(resize_nearest(plain[None], size)[0], like=inpt)
    resized = by_channel(
        inpt, unit_range(plain), lambda part: resize_nearest(part, size), lambda part: _bilinear(part, size)
    )
    return tv_tensors.wrap(resized, like=inpt)


def scaled_window(inpt: Any, size: Size, window: Window) -> Tensor:
    """A window of the result of `resize_to`, computed only from the pixels that it depends on.

    Args:
        inpt: an image of bytes or in [0, 1], a mask of integers, or a regression target.
        size: height and width of the whole result.
        window: the part of the result.

    Returns:
        A new tensor (..., height, width) of the window: float32, or int64 for masks.
    """
    plain: Tensor = inpt.as_subclass(torch.Tensor)
    top, left, height, width = window
    if tuple(plain.shape[-2:]) == tuple(size):
        part = plain[..., top : top + height, left : left + width]
        if isinstance(inpt, tv_tensors.Mask):
            return part.to(torch.int64, copy=True)
        return unit_range(part.contiguous()).clone()
    rows, columns = (
        _nearest_indices(have, want, start, count)
        for have, want, start, count in zip(plain.shape[-2:], size, (top, left), (height, width), strict=True)
    )
    if isinstance(inpt, tv_tensors.Mask):
        indices: Tensor = plain[rows[:, None], columns].long()
        return indices
    box = _SourceBox(plain.shape[-2:], size, window)
    nearby = plain[..., box.rows, box.columns]
    rows, columns = rows - box.rows.start, columns - box.columns.start
    return by_channel(inpt, unit_range(nearby.contiguous()), lambda part: part[:, rows[:, None], columns], box.scaled)


def resize_nearest(plain: Tensor, size: Size) -> Tensor:
    """Resize (C, H, W) to (C, *size) by the nearest pixel."""
    rows, columns = (_nearest_indices(have, want, 0, want) for have, want in zip(plain.shape[-2:], size, strict=True))
    return plain.as_subclass(torch.Tensor)[:, rows[:, None], columns]


class _SourceBox:
    """The pixels that a window of a resized image depends on.

    Args:
        have: height and width of the image.
        size: height and width that it is resized to.
        window: the part of the result.
    """

    def __init__(self, have: Sequence[int], size: Size, window: Window) -> None:
        self.window = window
        spans = []
        for side, want, start, count in zip(have, size, window[:2], window[2:], strict=True):
            step = side / want
            reach = math.ceil(max(1.0, step)) + 1
            first, last = start * step, (start + count) * step
            low, high = max(0, math.floor(first) - reach), min(side, math.ceil(last) + reach)
            spans.append((slice(low, high), first - low, min(last, side) - low))
        (self.rows, top, bottom), (self.columns, left, right) = spans
        self._edges = left, top, right, bottom

    def scaled(self, nearby: Tensor) -> Tensor:
        """The window from (C, rows, columns), antialiased bilinear."""
        _, _, height, width = self.window
        channels = [
            Image.fromarray(channel.numpy()).resize((width, height), Image.Resampling.BILINEAR, self._edges)
            for channel in nearby.contiguous()
        ]
        return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))


def by_channel(
    inpt: Any, plain: Tensor, nearest: Callable[[Tensor], Tensor], bilinear: Callable[[Tensor], Tensor]
) -> Tensor:
    """Resample channels (C, H, W) of a tv_tensor: trimaps and unknown regions to the nearest pixel, others bilinear.

    Args:
        inpt: an image or a regression target.
        plain: its values.
        nearest: resamples channels to the nearest pixel.
        bilinear: resamples channels between pixels; gets no NaN.
    """
    resized = _ignoring_nan(plain, bilinear)
    if isinstance(inpt, Matte):
        resized[_MATTE_UNKNOWN] = nearest(plain[_MATTE_UNKNOWN][None])[0]
    elif not isinstance(inpt, ImageTarget | BandImage) and len(plain) > 3:
        resized[3:] = nearest(plain[3:])
    return resized


def _nearest_indices(have: int, want: int, start: int, count: int) -> Tensor:
    """For pixels `start` to `start + count` of `want`, the pixel of `have` whose centre is nearest.

    Masks then stay aligned with their bilinearly resized image. torchvision's nearest mode for masks shifts them by up
    to half a pixel.
    """
    step = np.float32(have / want)
    places = (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) * step
    return torch.from_numpy(np.minimum(places.astype(np.int64), have - 1))


def _bilinear(values: Tensor, size: Size) -> Tensor:
    """Resize (C, H, W) to (C, *size), antialiased bilinear."""
    result: Tensor = F.resize_image(values, list(size), InterpolationMode.BILINEAR, antialias=True)
    return result


def _ignoring_nan(plain: Tensor, resized: Callable[[Tensor], Tensor]) -> Tensor:
    """Resize channels (C, H, W) without the NaN pixels; a pixel is NaN if more than half of its weight is NaN."""
    unknown = plain.isnan()
    if not bool(unknown.any()):
        return resized(plain)
    weight = resized((~unknown).float())
    values = resized(plain.nan_to_num(0.0))
    whole = ~unknown.flatten(1).any(1)[:, None, None]
    enough = weight > 0.4999  # an exact half is enough, even if rounding makes it smaller
    return values.where(whole, (values / weight.clamp(min=1e-6)).where(enough, math.nan))
