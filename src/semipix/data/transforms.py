"""Geometry that images and their targets go through together."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as F

from semipix.data.source import Target
from semipix.errors import SemipixError

Size = tuple[int, int]
"""Height and width in pixels."""


def train_transform(crop: Size, scale: tuple[float, float], flip: float, target_fill: float) -> v2.Transform:
    """Joint augmentation of an image and its target: random scale, horizontal flip and crop.

    Args:
        crop: height and width of the result.
        scale: smallest and largest factor an image is scaled by, its aspect kept.
        flip: probability of a horizontal flip.
        target_fill: written into masks where a scaled-down image does not fill the crop; images are filled with 0.

    Returns:
        A transform to be called as `transform(image)` or `transform(image, target)` with tv_tensors of one size. It
        draws from torch's global generator.
    """
    return v2.Compose([RandomScale(scale), v2.RandomHorizontalFlip(flip), RandomPaddedCrop(crop, target_fill)])


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
        target_fill: padding of masks; images are padded with 0.
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
        return F.pad(part, [left, top, right, bottom], fill=fill)


def resize_image(image: tv_tensors.Image, resize: int | Size | None) -> tv_tensors.Image:
    """Resize an image by the `data.resize` setting, antialiased bilinear.

    Args:
        image: (C, H, W).
        resize: length of the longer side (aspect kept), the exact height and width, or None for no change.

    Returns:
        (C, H', W').
    """
    resized: tv_tensors.Image = resize_to(image, resized_size(image, resize))
    return resized


def resize_target(target: Target, resize: int | Size | None) -> Target:
    """Resize a target by the `data.resize` setting: nearest for masks, antialiased bilinear for images."""
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
    """Resize a tv_tensor to (height, width): masks to the nearest pixel, images antialiased bilinear."""
    if tuple(inpt.shape[-2:]) == tuple(size):
        return inpt
    if isinstance(inpt, tv_tensors.Mask):
        # `nearest-exact` keeps pixel centres where bilinear does; plain `nearest`, torchvision's choice for masks,
        # shifts the mask by up to half a pixel against its image.
        plain = inpt.as_subclass(torch.Tensor)[None]
        nearest = F.resize_image(plain, list(size), InterpolationMode.NEAREST_EXACT)
        return tv_tensors.wrap(nearest[0], like=inpt)
    return F.resize(inpt, list(size), InterpolationMode.BILINEAR, antialias=True)


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
            f"set data.crop=[{min(height, crop[0])},{min(width, crop[1])}] or less, or data.resize={needed} or more"
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
