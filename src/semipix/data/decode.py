"""Reading image and mask files."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from semipix.errors import SemipixError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Extensions of readable files, in lower case."""

FORMATS = "png, jpeg, webp, bmp or tiff"

_GREY_16_BIT = 65535
_SIDEWAYS = range(5, 9)
"""EXIF orientations that swap width and height."""

# Pillow reports a broken file by whichever of these its decoder happens to stumble over.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


def read_image(path: Path) -> Tensor:
    """Read any supported image as RGB, upright by its EXIF orientation.

    Args:
        path: a file with 1, 8 or 16 bits a channel: grey, colour, palette, with or without alpha (dropped).

    Returns:
        (3, H, W) float32 in [0, 1]; 16-bit grey is scaled by 65535, never by its own maximum.

    Raises:
        SemipixError: the file is missing, no image, corrupt or truncated, or holds numbers of unknown range.
    """
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("F", "I") or upright.mode.startswith("I;16"):
            grey = np.asarray(upright).astype(np.float32)
            pixels = np.repeat(_unit_range(path, upright.mode, grey)[None], 3, axis=0)
        else:
            # A palette with transparency has to pass through RGBA, or Pillow mixes the transparent colour in.
            colour = upright.convert("RGBA") if "transparency" in upright.info else upright
            pixels = np.asarray(colour.convert("RGB"), np.float32).transpose(2, 0, 1) / np.float32(255)
    return torch.from_numpy(np.ascontiguousarray(pixels))


def read_mask(path: Path) -> Tensor:
    """Read a mask of class indices: 8 or 16-bit grey, the indices of a palette, or 1 bit a pixel.

    Args:
        path: the mask file; its EXIF orientation is ignored.

    Returns:
        (H, W) int64, the values as stored.

    Raises:
        SemipixError: the file is missing, no image, corrupt or truncated, or holds colours instead of indices.
    """
    with _opened(path) as image:
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise SemipixError(
                f"{path}: found a mask of colours (mode {image.mode}), expected class indices; "
                "save it as 8-bit grey or palette with one index a pixel (255 = void)"
            )
        values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > _GREY_16_BIT:
        raise SemipixError(
            f"{path}: found mask values from {values.min()} to {values.max()}, expected class indices from 0 to 65535"
        )
    return torch.from_numpy(values)


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` would return it, from the file's header alone.

    Raises:
        SemipixError: the file is missing, no image, or its header is corrupt.
    """
    with _opened(path) as image:
        sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
        return (image.width, image.height) if sideways else (image.height, image.width)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as image:
            yield image
    except FileNotFoundError:
        raise SemipixError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise SemipixError(f"{path}: not a readable image; expected {FORMATS}, replace or remove the file") from None
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise SemipixError(f"{path}: corrupt or truncated image ({reason}); replace or remove the file") from None


def _unit_range(path: Path, mode: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale grey values (H, W) of more than 8 bits to [0, 1] by the range of their type."""
    top = 1 if mode == "F" else _GREY_16_BIT
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):
        raise SemipixError(
            f"{path}: found values from {low:g} to {high:g} (mode {mode}), expected 0 to {top}; "
            "save the image with 8 or 16 bits a channel"
        )
    return values / np.float32(top)
