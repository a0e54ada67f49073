"""Sizes in pixels."""

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
    """Whether a size is at most half of another one in both directions."""
    return all(2 * want <= side for want, side in zip(size, have, strict=True))
