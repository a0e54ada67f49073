"""Geometry that images and their targets go through together."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from semipix.data.decode import unit_range
from semipix.data.sizes import Size, resized_size
from semipix.data.source import ImageTarget, Matte, Target
from semipix.errors import SemipixError

Window = tuple[int, int, int, int]
"""Top, left, height and width of a part of an image."""

MOST_PIXELS_OF_A_SIDE = 2**16
"""More than any training asks for, and less than what overflows."""

UNKNOWN = 0.5
"""Value of a trimap's unknown pixels in an image."""

_MATTE_COLOURS = slice(2, 8)
_MATTE_UNKNOWN = 1


def train_transform(
    crop: Size, scale: tuple[float, float], flip: float, target_fill: float, at_unknown: bool = False
) -> "TrainTransform":
    """Joint augmentation of an image and its target: random scale, horizontal flip and crop.

    Args:
        crop: height and width of the result.
        scale: smallest and largest factor an image is scaled by, its aspect kept.
        flip: probability of a horizontal flip.
        target_fill: written into masks where a scaled-down image does not fill the crop; images are filled with 0,
            regression targets with NaN.
        at_unknown: whether crops are centred at unknown pixels of the image's trimap.

    Returns:
        A transform to be called as `transform(image)` or `transform(image, target)` with tv_tensors of one size. It
        draws from torch's global generator.
    """
    crops = UnknownCrop(crop, target_fill) if at_unknown else RandomPaddedCrop(crop, target_fill)
    return TrainTransform(RandomScale(scale), flip, crops)


class TrainTransform:
    """Random scale, horizontal flip and crop, at the cost of what the crop holds.

    The place is drawn first. Then only the pixels that it needs are converted to floats and scaled.

    Args:
        scale: draws the size that the image is scaled to.
        flip: probability of a horizontal flip.
        crop: draws the place, and pads.
    """

    def __init__(self, scale: "RandomScale", flip: float, crop: "RandomPaddedCrop") -> None:
        self.scale = scale
        self.flip = flip
        self.crop = crop

    def __call__(self, *inputs: Any) -> Any:
        """Transform an image, or an image and its target, of one size.

        Args:
            *inputs: tv_tensors: an image (C, H, W) of bytes or in [0, 1], a mask (H, W) of integers, or a regression
                target.

        Returns:
            As many: images float32 in [0, 1], masks int64.
        """
        first = inputs[0]
        size = self.scale.make_params([first])["size"]
        mirrored = bool(torch.rand(1) < self.flip)
        place = self.crop.place(size, lambda: _mirrored(_nearest(first[3:4], size)[0], mirrored))
        outputs = tuple(self._part(inpt, size, mirrored, place) for inpt in inputs)
        return outputs if len(outputs) > 1 else outputs[0]

    def _part(self, inpt: Any, size: Size, mirrored: bool, place: dict[str, Any]) -> Any:
        top, left, height, width = window = self.crop.window(size, place)
        if mirrored:
            window = (top, size[1] - left - width, height, width)
        part = _mirrored(scaled_window(inpt, size, window), mirrored)
        return self.crop.padded(tv_tensors.wrap(part, like=inpt), place)


def _mirrored(values: Tensor, mirrored: bool) -> Tensor:
    return values.flip(-1) if mirrored else values


class RandomScale(v2.Transform):  # type: ignore[misc]
    """Scale by a random factor, the aspect kept.

    Args:
        scale: smallest and largest factor.
    """

    def __init__(self, scale: tuple[float, float]) -> None:
        super().__init__()
        self.scale = scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        low, high = self.scale
        factor = low + (high - low) * torch.rand(()).item()
        height, width = flat_inputs[0].shape[-2:]
        return {"size": (max(1, round(height * factor)), max(1, round(width * factor)))}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return resize_to(inpt, params["size"])


class RandomPaddedCrop(v2.Transform):  # type: ignore[misc]
    """Crop at a random place; an image smaller than the crop lands at a random place in it and is padded.

    Args:
        crop: height and width of the result.
        target_fill: padding of masks; images are padded with 0, regression targets with NaN.
    """

    def __init__(self, crop: Size, target_fill: float) -> None:
        super().__init__()
        self.crop = crop
        self.target_fill = target_fill

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        first = flat_inputs[0]
        return self.place(tuple(first.shape[-2:]), lambda: first[3])

    def place(self, size: Size, trimap: Callable[[], Tensor]) -> dict[str, Any]:
        """Draw where the crop starts in an image of this size, or the image in the crop.

        Args:
            size: height and width of the image.
            trimap: makes its trimap (H, W), where crops depend on it.
        """
        spare = [have - want for have, want in zip(size, self.crop, strict=True)]
        # One draw a side serves both cases.
        return {"spare": spare, "start": [int(torch.randint(abs(room) + 1, ()).item()) for room in spare]}

    def window(self, size: Size, place: dict[str, Any]) -> Window:
        """The part of an image of this size that the crop shows."""
        (room_y, room_x), (y, x) = place["spare"], place["start"]
        return (
            y if room_y > 0 else 0,
            x if room_x > 0 else 0,
            min(self.crop[0], size[0]),
            min(self.crop[1], size[1]),
        )

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return self.padded(F.crop(inpt, *self.window(tuple(inpt.shape[-2:]), params)), params)

    def padded(self, part: Any, place: dict[str, Any]) -> Any:
        """The crop around what it shows of the image."""
        (room_y, room_x), (y, x) = place["spare"], place["start"]
        top, left = y if room_y < 0 else 0, x if room_x < 0 else 0
        bottom, right = max(0, -room_y) - top, max(0, -room_x) - left
        if not any((top, left, bottom, right)):
            return part
        fill = self.target_fill if isinstance(part, tv_tensors.Mask) else 0
        padded = F.pad(part, [left, top, right, bottom], fill=fill)
        if isinstance(part, ImageTarget):
            silent = torch.ones(padded.shape[-2:], dtype=torch.bool)
            silent[top : top + part.shape[-2], left : left + part.shape[-1]] = False
            padded[_MATTE_COLOURS if isinstance(part, Matte) else slice(None), silent] = math.nan
        return padded


class UnknownCrop(RandomPaddedCrop):
    """Crop around a random unknown pixel of the trimap, an image's fourth channel; anywhere where there is none."""

    def place(self, size: Size, trimap: Callable[[], Tensor]) -> dict[str, Any]:
        params = super().place(size, trimap)
        unknown = (trimap() == UNKNOWN).nonzero()
        if len(unknown) == 0:
            return params
        pixel = unknown[int(torch.randint(len(unknown), ()).item())].tolist()
        for axis, (room, side) in enumerate(zip(params["spare"], self.crop, strict=True)):
            if room > 0:
                params["start"][axis] = min(max(0, pixel[axis] - side // 2), room)
        return params


def resize_image(image: tv_tensors.Image, resize: int | Size | None) -> tv_tensors.Image:
    """Resize an image by the `data.resize` setting: colours antialiased bilinear, a trimap behind them to the nearest.

    Args:
        image: (C, H, W); red, green and blue come first.
        resize: length of the longer side (aspect kept), the exact height and width, or None for no change.

    Returns:
        (C, H', W').
    """
    resized: tv_tensors.Image = resize_to(image, resized_size(tuple(image.shape[-2:]), resize))
    return resized


def resize_target(target: Target, resize: int | Size | None) -> Target:
    """Resize a target by the `data.resize` setting: nearest for masks, antialiased bilinear for images.

    A pixel stays NaN where more than half of what it is made of is.
    """
    resized: Target = resize_to(target, resized_size(tuple(target.shape[-2:]), resize))
    return resized


def resize_to(inpt: Any, size: Size) -> Any:
    """Resize a tv_tensor to (height, width): masks and trimaps to the nearest pixel, images antialiased bilinear.

    What has that size already stays as it is; other bytes become floats in [0, 1].
    """
    if tuple(inpt.shape[-2:]) == tuple(size):
        return inpt
    plain = inpt.as_subclass(torch.Tensor)
    if isinstance(inpt, tv_tensors.Mask):
        return tv_tensors.wrap(_nearest(plain[None], size)[0], like=inpt)
    resized = _by_channel(inpt, unit_range(plain), lambda part: _nearest(part, size), lambda part: _whole(part, size))
    return tv_tensors.wrap(resized, like=inpt)


def scaled_window(inpt: Any, size: Size, window: Window) -> Tensor:
    """A part of what `resize_to` would make of a tv_tensor, from the pixels that this part depends on.

    Args:
        inpt: an image of bytes or in [0, 1], a mask of integers, or a regression target.
        size: height and width of the whole result.
        window: the part of it.

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
    box = _Box(plain.shape[-2:], size, window)
    nearby = plain[..., box.rows, box.columns]
    rows, columns = rows - box.rows.start, columns - box.columns.start
    return _by_channel(inpt, unit_range(nearby.contiguous()), lambda part: part[:, rows[:, None], columns], box.scaled)


class _Box:
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


def _by_channel(
    inpt: Any, plain: Tensor, nearest: Callable[[Tensor], Tensor], bilinear: Callable[[Tensor], Tensor]
) -> Tensor:
    """Resize channels (C, H, W) by what they mean in the given tv_tensor: trimaps and masks to the nearest pixel."""
    resized = _known(plain, bilinear)
    if isinstance(inpt, Matte):
        resized[_MATTE_UNKNOWN] = nearest(plain[_MATTE_UNKNOWN][None])[0]
    elif not isinstance(inpt, ImageTarget) and len(plain) > 3:
        resized[3:] = nearest(plain[3:])
    return resized


def _nearest(plain: Tensor, size: Size) -> Tensor:
    """(C, H, W) to (C, *size)."""
    rows, columns = (_nearest_indices(have, want, 0, want) for have, want in zip(plain.shape[-2:], size, strict=True))
    return plain.as_subclass(torch.Tensor)[:, rows[:, None], columns]


def _nearest_indices(have: int, want: int, start: int, count: int) -> Tensor:
    """For pixels `start` to `start + count` of `want`, the pixel of `have` whose centre is nearest.

    That keeps pixel centres where bilinear does; torchvision's choice for masks shifts them by up to half a pixel
    against their image.
    """
    step = np.float32(have / want)
    places = (np.arange(start, start + count, dtype=np.float32) + np.float32(0.5)) * step
    return torch.from_numpy(np.minimum(places.astype(np.int64), have - 1))


def _whole(values: Tensor, size: Size) -> Tensor:
    """(C, H, W) to (C, *size), antialiased bilinear."""
    result: Tensor = F.resize_image(values, list(size), InterpolationMode.BILINEAR, antialias=True)
    return result


def _known(plain: Tensor, resized: Callable[[Tensor], Tensor]) -> Tensor:
    """Resize channels (C, H, W); what is NaN has no weight, and more than half of it makes a NaN."""
    unknown = plain.isnan()
    if not bool(unknown.any()):
        return resized(plain)
    weight = resized((~unknown).float())
    values = resized(plain.nan_to_num(0.0))
    whole = ~unknown.flatten(1).any(1)[:, None, None]
    enough = weight > 0.4999  # an exact half counts, whatever the rounding
    return values.where(whole, (values / weight.clamp(min=1e-6)).where(enough, math.nan))


def check_crop(name: str, image: Tensor, crop: Size) -> None:
    """Check that an image (C, H, W), after `data.resize`, is at least as large as the training crop.

    Raises:
        SemipixError: one side is smaller.
    """
    height, width = image.shape[-2:]
    if height < crop[0] or width < crop[1]:
        # The longer side the image needs so that both sides reach the crop.
        needed = math.ceil(max(height, width) * max(crop[0] / height, crop[1] / width))
        raise SemipixError(
            f"{name}: image is {width}x{height} pixels, smaller than the training crop of {crop[1]}x{crop[0]}; "
            f"set data.crop=[{min(height, crop[0])},{min(width, crop[1])}] or less, data.resize={needed} or more, or "
            "data.pad=true"
        )


def as_size(key: str, value: int | Sequence[int]) -> Size:
    """A setting that is one side of a square or [height, width].

    Raises:
        SemipixError: it is something else, not positive, or above 65,536.
    """
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise SemipixError(f"{key}={value}: expected a positive number of pixels or [height,width]")
    if max(sides) > MOST_PIXELS_OF_A_SIDE:
        raise SemipixError(f"{key}={max(sides)}: expected at most {MOST_PIXELS_OF_A_SIDE}")
    return sides[0], sides[1]


def as_resize(value: int | Sequence[int] | None) -> int | Size | None:
    """The `data.resize` setting: length of the longer side, height and width, or None.

    Raises:
        SemipixError: it is something else, not positive, or above 65,536.
    """
    if isinstance(value, int) and value < 1:
        raise SemipixError(f"data.resize={value}: expected at least 1")
    size = None if value is None else as_size("data.resize", value)
    return value if isinstance(value, int) else size
