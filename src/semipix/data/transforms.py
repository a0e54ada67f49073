"""Geometry that images and their targets go through together."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from semipix.data.source import ImageTarget, Matte, Target
from semipix.errors import SemipixError

Size = tuple[int, int]
"""Height and width in pixels."""

UNKNOWN = 0.5
"""Value of a trimap's unknown pixels in an image."""

_MATTE_COLOURS = slice(2, 8)
_MATTE_UNKNOWN = 1


def train_transform(
    crop: Size, scale: tuple[float, float], flip: float, target_fill: float, at_unknown: bool = False
) -> v2.Transform:
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
    return v2.Compose([RandomScale(scale), v2.RandomHorizontalFlip(flip), crops])


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
        spare = [have - want for have, want in zip(flat_inputs[0].shape[-2:], self.crop, strict=True)]
        # One draw a side serves both cases: where the crop starts in the image, or the image in the crop.
        start = [int(torch.randint(abs(room) + 1, ()).item()) for room in spare]
        return {"spare": spare, "start": start}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        (room_y, room_x), (y, x) = params["spare"], params["start"]
        height, width = self.crop
        part = F.crop(
            inpt,
            y if room_y > 0 else 0,
            x if room_x > 0 else 0,
            min(height, inpt.shape[-2]),
            min(width, inpt.shape[-1]),
        )
        top, left = y if room_y < 0 else 0, x if room_x < 0 else 0
        bottom, right = max(0, -room_y) - top, max(0, -room_x) - left
        if not any((top, left, bottom, right)):
            return part
        fill = self.target_fill if isinstance(inpt, tv_tensors.Mask) else 0
        padded = F.pad(part, [left, top, right, bottom], fill=fill)
        if isinstance(inpt, ImageTarget):
            silent = torch.ones(padded.shape[-2:], dtype=torch.bool)
            silent[top : top + part.shape[-2], left : left + part.shape[-1]] = False
            padded[_MATTE_COLOURS if isinstance(inpt, Matte) else slice(None), silent] = math.nan
        return padded


class UnknownCrop(RandomPaddedCrop):
    """Crop around a random unknown pixel of the trimap, an image's fourth channel; anywhere where there is none."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        params = super().make_params(flat_inputs)
        unknown = (flat_inputs[0][3] == UNKNOWN).nonzero()
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
    resized: tv_tensors.Image = resize_to(image, resized_size(image, resize))
    return resized


def resize_target(target: Target, resize: int | Size | None) -> Target:
    """Resize a target by the `data.resize` setting: nearest for masks, antialiased bilinear for images.

    A pixel stays NaN where more than half of what it is made of is.
    """
    resized: Target = resize_to(target, resized_size(target, resize))
    return resized


def resized_size(image: Tensor, resize: int | Size | None) -> Size:
    """Height and width an image (..., H, W) gets from the `data.resize` setting."""
    height, width = image.shape[-2:]
    if resize is None:
        return height, width
    if isinstance(resize, int):
        factor = resize / max(height, width)
        return max(1, round(height * factor)), max(1, round(width * factor))
    return resize


def resize_to(inpt: Any, size: Size) -> Any:
    """Resize a tv_tensor to (height, width): masks and trimaps to the nearest pixel, images antialiased bilinear."""
    if tuple(inpt.shape[-2:]) == tuple(size):
        return inpt
    plain = inpt.as_subclass(torch.Tensor)
    if isinstance(inpt, tv_tensors.Mask):
        return tv_tensors.wrap(_nearest(plain[None], size)[0], like=inpt)
    resized = _bilinear(plain, size)
    if isinstance(inpt, Matte):
        resized[_MATTE_UNKNOWN] = _nearest(plain[None, _MATTE_UNKNOWN], size)[0]
    elif not isinstance(inpt, ImageTarget) and len(plain) > 3:
        resized[3:] = _nearest(plain[3:], size)
    return tv_tensors.wrap(resized, like=inpt)


def _nearest(plain: Tensor, size: Size) -> Tensor:
    """(C, H, W) to (C, *size).

    `nearest-exact` keeps pixel centres where bilinear does; plain `nearest`, torchvision's choice for masks, shifts the
    mask by up to half a pixel against its image.
    """
    nearest: Tensor = F.resize_image(plain, list(size), InterpolationMode.NEAREST_EXACT)
    return nearest


def _bilinear(plain: Tensor, size: Size) -> Tensor:
    """(C, H, W) to (C, *size), antialiased; what is NaN has no weight."""

    def resized(values: Tensor) -> Tensor:
        result: Tensor = F.resize_image(values, list(size), InterpolationMode.BILINEAR, antialias=True)
        return result

    known = ~plain.isnan()
    share = known.flatten(1).float().mean(1)
    result = plain.new_full((len(plain), *size), math.nan)
    whole, partly = share == 1, (share > 0) & (share < 1)
    if bool(whole.all()):
        return resized(plain)
    if bool(whole.any()):
        result[whole] = resized(plain[whole])
    if bool(partly.any()):
        weight = resized(known[partly].to(plain.dtype))
        mean = resized(plain[partly].nan_to_num(0.0)) / weight.clamp(min=1e-6)
        result[partly] = mean.where(weight >= 0.5, math.nan)
    return result


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
        SemipixError: it is something else, or not positive.
    """
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise SemipixError(f"{key}={value}: expected a positive number of pixels or [height,width]")
    return sides[0], sides[1]
