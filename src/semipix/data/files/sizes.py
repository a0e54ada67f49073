"""Sizes in pixels, and the settings that give them."""

import math
from collections.abc import Sequence

from torch import Tensor

from semipix.errors import SemipixError

MOST_PIXELS_OF_A_SIDE = 2**16
"""Upper limit of settings: above any useful value, and low enough that no computation overflows."""

Size = tuple[int, int]
"""Height and width in pixels."""


def resized_size(size: Size, resize: int | Size | None) -> Size:
    """Height and width of an image after `data.resize`."""
    if resize is None:
        return size
    if isinstance(resize, int):
        factor = resize / max(size)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    return resize


def at_most_half(size: Size, have: Size) -> bool:
    """Whether a size is at most half of another one in both directions; half of an odd side is rounded up."""
    return all(2 * want <= side + 1 for want, side in zip(size, have, strict=True))


def reduction(size: Size, have: Size) -> int:
    """The largest factor (8, 4, 2 or 1) by which a JPEG can be decoded smaller and still have twice the wanted size.

    Sides are rounded up, as libjpeg does. The antialiased resize does the rest, so that a JPEG looks like a PNG of the
    same image. Decoding straight to the wanted size would make it sharper.

    Args:
        size: the wanted height and width.
        have: height and width of the JPEG.
    """
    covers = (
        factor
        for factor in (8, 4, 2)
        if all(math.ceil(side / factor) >= 2 * want for want, side in zip(size, have, strict=True))
    )
    return next(covers, 1)


def check_crop(name: str, image: Tensor, crop: Size) -> None:
    """Check that an image (C, H, W), after `data.resize`, is at least as large as the training crop.

    Raises:
        SemipixError: a side of the image is smaller than that of the crop.
    """
    height, width = image.shape[-2:]
    if height < crop[0] or width < crop[1]:
        # The value of data.resize (the longer side) with which both sides are as long as the crop.
        needed = math.ceil(max(height, width) * max(crop[0] / height, crop[1] / width))
        raise SemipixError(
            f"{name}: image is {width}x{height} pixels, smaller than the training crop of {crop[1]}x{crop[0]}; "
            f"set data.crop=[{min(height, crop[0])},{min(width, crop[1])}] or less, data.resize={needed} or more, or "
            "data.pad=true"
        )


def as_size(key: str, value: int | Sequence[int]) -> Size:
    """Height and width from a setting that is the side of a square or [height, width].

    Raises:
        SemipixError: the value is neither of these, not positive, or above 65,536.
    """
    sides = [value, value] if isinstance(value, int) else list(value)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise SemipixError(f"{key}={value}: expected a positive number of pixels or [height,width]")
    if max(sides) > MOST_PIXELS_OF_A_SIDE:
        raise SemipixError(f"{key}={max(sides)}: expected at most {MOST_PIXELS_OF_A_SIDE}")
    return sides[0], sides[1]


def as_resize(value: int | Sequence[int] | None) -> int | Size | None:
    """Check the `data.resize` setting: length of the longer side, [height, width], or None.

    Raises:
        SemipixError: the value is none of these, not positive, or above 65,536.
    """
    if isinstance(value, int) and value < 1:
        raise SemipixError(f"data.resize={value}: expected at least 1")
    size = None if value is None else as_size("data.resize", value)
    return value if isinstance(value, int) else size
