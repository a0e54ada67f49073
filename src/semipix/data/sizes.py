"""Sizes in pixels."""

import math

Size = tuple[int, int]
"""Height and width in pixels."""


def resized_size(size: Size, resize: int | Size | None) -> Size:
    """Height and width that an image of this size gets from the `data.resize` setting."""
    if resize is None:
        return size
    if isinstance(resize, int):
        factor = resize / max(size)
        return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))
    return resize


def at_most_half(size: Size, have: Size) -> bool:
    """Whether a size is at most half of another one in both directions, an odd side's half rounded up."""
    return all(2 * want <= side + 1 for want, side in zip(size, have, strict=True))


def reduction(size: Size, have: Size) -> int:
    """By how much (8, 4, 2 or 1) both sides of a JPEG can be divided, rounding up, and still be twice a size.

    What is left to the resize is then its own antialiasing, so that a JPEG is seen as a PNG is; decoded straight to
    about the size, it would be sharper.
    """
    covers = (
        factor
        for factor in (8, 4, 2)
        if all(math.ceil(side / factor) >= 2 * want for want, side in zip(size, have, strict=True))
    )
    return next(covers, 1)
