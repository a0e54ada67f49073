"""Reading image and mask files."""

import io
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from semipix.data.sizes import Size, at_most_half, reduction, resized_size
from semipix.errors import SemipixError, UnreadableFileError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
"""Extensions of readable files, in lower case."""

FORMATS = "png, jpeg, webp, bmp or tiff"

ARRAY = ".npy"
"""Extension of targets that are arrays."""

_GREY_16_BIT = 65535
_NATIVE_IS_LITTLE = sys.byteorder == "little"
_LOW_BYTES = {
    "16B": "16L",
    "16L": "16B",
    "16N": "16B" if _NATIVE_IS_LITTLE else "16L",
}
"""Layouts of 16-bit colour in a file, and the layout by which Pillow reads the low bytes instead of the high ones."""
_SIDEWAYS = range(5, 9)
"""EXIF orientations that swap width and height."""

# Pillow reports a broken file by whichever of these its decoder happens to stumble over.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class Encoded:
    """An image file that is in memory, such as a member of an archive; its text is what messages call it."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def read_image(path: Path | Encoded) -> Tensor:
    """Read any supported image as RGB, upright by its EXIF orientation.

    Args:
        path: a file with 1, 8 or 16 bits a channel: grey, colour, palette, with or without alpha (dropped).

    Returns:
        (3, H, W) float32 in [0, 1]; 16-bit grey is scaled by 65535, never by its own maximum.

    Raises:
        SemipixError: the file is missing, no image, corrupt or truncated, or holds numbers of unknown range.
    """
    return unit_range(read_pixels(path)).contiguous()


def read_pixels(path: Path | Encoded, resize: int | Size | None = None) -> Tensor:
    """Read an image as `read_image` does, but leave bytes bytes, so that a crop costs what it holds.

    Args:
        path: see `read_image`.
        resize: the `data.resize` setting. An image of 8 bits that it shrinks to at most half comes shrunk, antialiased;
            a JPEG is then decoded at a half, a quarter or an eighth of its size, whichever still covers the result.

    Returns:
        (3, H, W): uint8 where the file has up to 8 bits a channel, else float32 in [0, 1]. A view, channels last.

    Raises:
        SemipixError: see `read_image`.
    """
    with _opened(path) as image:
        layout = _layout(image)
        size = _upright_size(image)
        wanted = resized_size(size, resize)
        shrinks = at_most_half(wanted, size)
        if shrinks:
            factor = reduction(wanted, size)  # Pillow compares sizes rounded down, and takes less than it could
            image.draft(image.mode, (image.width // factor, image.height // factor))
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("F", "I") or upright.mode.startswith("I;16"):
            grey = _unit_grey(path, upright.mode, np.asarray(upright).astype(np.float32))
            return torch.from_numpy(np.repeat(grey[None], 3, axis=0))
        # A palette with transparency has to pass through RGBA, or Pillow mixes the transparent colour in.
        colour = upright.convert("RGBA") if "transparency" in upright.info else upright
        colour = colour.convert("RGB")
        if layout:
            high = np.asarray(colour, np.float32).transpose(2, 0, 1)
            return torch.from_numpy((256 * high + _low_bytes(path)) / np.float32(_GREY_16_BIT))
        if shrinks:
            colour = colour.resize(wanted[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(colour)).permute(2, 0, 1)


def unit_range(pixels: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; floats as they are."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def read_mask(path: Path) -> Tensor:
    """Read a mask of class indices: 8 or 16-bit grey, the indices of a palette, or 1 bit a pixel.

    Args:
        path: the mask file; its EXIF orientation is ignored.

    Returns:
        (H, W) int64, the values as stored.

    Raises:
        SemipixError: the file is missing, no image, corrupt or truncated, or holds colours instead of indices.
    """
    return read_indices(path).long()


def read_indices(path: Path) -> Tensor:
    """Read a mask as `read_mask` does, in as few bytes a pixel as the file has.

    Returns:
        (H, W) uint8 or int32.

    Raises:
        SemipixError: see `read_mask`.
    """
    with _opened(path) as image:
        if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
            raise SemipixError(
                f"{path}: found a mask of colours (mode {image.mode}), expected class indices; "
                "save it as 8-bit grey or palette with one index a pixel (255 = void)"
            )
        values = np.array(image)
    values = values.astype(np.uint8 if values.dtype.itemsize == 1 else np.int32, copy=False)
    if values.min() < 0 or values.max() > _GREY_16_BIT:
        raise SemipixError(
            f"{path}: found mask values from {values.min()} to {values.max()}, expected class indices from 0 to 65535"
        )
    return torch.from_numpy(values)


def read_grey(path: Path) -> Tensor:
    """Read one value a pixel in [0, 1], such as an alpha matte; colours that are all grey will do.

    Returns:
        (H, W) float32.

    Raises:
        SemipixError: the file cannot be read, holds colours, or values outside [0, 1].
    """
    if path.suffix.lower() == ARRAY:
        pixels = _load(path)
        if len(pixels) != 1:
            raise SemipixError(f"{path}: found {len(pixels)} channels, expected one value a pixel")
        return torch.from_numpy(_unit_grey(path, "F", pixels[0]))
    pixels = read_image(path).numpy()
    if (pixels != pixels[:1]).any():
        raise SemipixError(f"{path}: found colours, expected one grey value a pixel; save it as a grey PNG")
    return torch.from_numpy(pixels[0].copy())


def read_values(path: Path) -> Tensor:
    """Read the numbers of a map as they are stored: an array (H, W) or (C, H, W), a float TIFF, or 8 or 16-bit pixels.

    Returns:
        (C, H, W) float32, NaN where the file holds no finite number.

    Raises:
        SemipixError: the file cannot be read, or holds indices of a palette instead of numbers.
    """
    if path.suffix.lower() == ARRAY:
        values = _load(path)
    else:
        with _opened(path) as image:
            if image.mode not in ("L", "RGB", "F", "I") and not image.mode.startswith("I;16"):
                raise SemipixError(
                    f"{path}: found pixels of mode {image.mode}, expected grey, RGB or float values; save it as 16-bit "
                    "PNG, float TIFF or .npy"
                )
            layout = _layout(image)
            pixels = np.asarray(image).astype(np.float32)
        values = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        values = 256 * values + _low_bytes(path, upright=False) if layout else values
    return torch.from_numpy(np.where(np.isfinite(values), values, np.float32(np.nan)).copy())


def bits(path: Path) -> str:
    """How a file stores its numbers, from its header: "8-bit", "16-bit" or "float".

    Raises:
        SemipixError: the file is missing, no image, or its header is corrupt.
    """
    if path.suffix.lower() == ARRAY:
        kind, size = (dtype := _mapped(path).dtype).kind, dtype.itemsize
        return "float" if kind == "f" else f"{8 * size}-bit"
    with _opened(path) as image:
        if image.mode == "F":
            return "float"
        return "16-bit" if image.mode.startswith("I") or _layout(image) else "8-bit"


def image_size(path: Path) -> tuple[int, int]:
    """Height and width of an image as `read_image` would return it, from the file's header alone.

    Raises:
        SemipixError: the file is missing, no image, or its header is corrupt.
    """
    if path.suffix.lower() == ARRAY:
        height, width = _mapped(path).shape[-2:]
        return height, width
    with _opened(path) as image:
        return _upright_size(image)


def _upright_size(image: Image.Image) -> Size:
    sideways = image.getexif().get(ExifTags.Base.Orientation) in _SIDEWAYS
    return (image.width, image.height) if sideways else (image.height, image.width)


def check_size(image: Path, label: Path, values: Tensor, word: str = "mask") -> None:
    """Compare an image's size with what was read from its label, (..., H, W), reading only the image's header.

    Args:
        image: the image's file.
        label: the label's file.
        values: its pixels.
        word: what the label is called.

    Raises:
        SemipixError: they differ, or the image cannot be read.
    """
    height, width = image_size(image)
    if (height, width) != tuple(values.shape[-2:]):
        raise SemipixError(
            f"{label}: {word} is {values.shape[-1]}x{values.shape[-2]} pixels, its image {image.name} is "
            f"{width}x{height} (upright by its EXIF orientation); expected the same size, save the {word} at the "
            "image's size"
        )


@contextmanager
def _opened(path: Path | Encoded) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(path.content) if isinstance(path, Encoded) else path) as image:
            yield image
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such file; restore it") from None
    except UnidentifiedImageError:
        raise UnreadableFileError(
            f"{path}: not a readable image; expected {FORMATS}, replace or remove the file"
        ) from None
    except _BROKEN as error:
        reason = " ".join(str(error).split())
        raise UnreadableFileError(
            f"{path}: corrupt or truncated image ({reason}); replace or remove the file"
        ) from None


def _low_bytes(path: Path | Encoded, upright: bool = True) -> NDArray[np.float32]:
    """The low bytes (3, H, W) of 16-bit colours, of which Pillow gives the high ones."""
    with _opened(path) as image:
        name, _, order = _layout(image).partition(";")
        # Pillow has no image of 16-bit colours, but takes either byte, depending on the order it is told.
        image.tile = [_relabeled(tile, f"{name};{_LOW_BYTES[order]}") for tile in image.tile]  # type: ignore[attr-defined]
        turned = ImageOps.exif_transpose(image) if upright else image
        return np.asarray(turned.convert("RGB"), np.float32).transpose(2, 0, 1)


def _layout(image: Image.Image) -> str:
    """How a file stores 16-bit colours, such as "RGB;16B"; empty for all other files."""
    for tile in getattr(image, "tile", []):
        layout = tile[3] if isinstance(tile[3], str) else next(iter(tile[3] or ()), "")
        name, _, order = str(layout).partition(";")
        if name in ("RGB", "RGBA", "RGBX") and order in _LOW_BYTES:
            return str(layout)
    return ""


def _relabeled(tile: Any, layout: str) -> Any:
    """A tile of Pillow's with another layout of its pixels."""
    arguments = layout if isinstance(tile[3], str) else (layout, *tile[3][1:])
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _load(path: Path) -> NDArray[np.float32]:
    """An array file as (C, H, W) float32."""
    values = np.asarray(_mapped(path), np.float32)
    return values[None] if values.ndim == 2 else values


def _mapped(path: Path) -> NDArray[Any]:
    """An array file of numbers, (H, W) or (C, H, W), read when it is used."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such file; restore it") from None
    except (OSError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())[:80]
        raise UnreadableFileError(f"{path}: not an array of numpy ({reason}); replace or remove the file") from None
    if values.ndim not in (2, 3) or values.size == 0 or values.dtype.kind not in "fiub":
        raise SemipixError(
            f"{path}: found {values.dtype} numbers of shape {list(values.shape)}, expected real ones of shape "
            "[height,width] or [channels,height,width]"
        )
    return values


def _unit_grey(path: Path | Encoded, mode: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale grey values (H, W) of more than 8 bits to [0, 1] by the range of their type."""
    top = 1 if mode == "F" else _GREY_16_BIT
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):
        raise SemipixError(
            f"{path}: found values from {low:g} to {high:g} (mode {mode}), expected 0 to {top}; "
            "scale the values, or save the image with 8 or 16 bits a channel"
        )
    return values / np.float32(top)
