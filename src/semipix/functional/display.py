"""Show images of any channels as colours."""

from torch import Tensor


def shown_colours(image: Tensor) -> Tensor:
    """The channels of images (..., C, H, W) that are shown as red, green and blue, (..., 3, H, W).

    The first three; of one or two channels, the first as grey. Missing values (NaN) are black.
    """
    shown = image[..., :3, :, :] if image.shape[-3] >= 3 else image[..., :1, :, :]
    shown = shown.nan_to_num(0.0) if shown.is_floating_point() else shown
    return shown.expand(*shown.shape[:-3], 3, -1, -1)
