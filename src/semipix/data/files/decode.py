"""Reading image files: their pixels, the numbers of maps, and what their headers say.

Every file is opened by `opened` of `opening`. Of a file with several pages or frames the first one is read. Masks are
read in `decode_masks`.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semipix.data.files import file_headers as headers
from semipix.data.files.opening import BROKEN, MAX_PIXELS, Encoded, Opened, check_pixels, opened, rawmode, relabeled
from semipix.data.files.sizes import Size, at_most_half, reduction, resized_size
from semipix.errors import SemipixError, UnreadableFileError, reason_of

ARRAY = ".npy"
"""Extension of targets that are arrays."""

_GREY_16_BIT = 65535

_GREY_ALPHA = "LA;16B"
"""Layout of grey with alpha of 16 bits, of which Pillow takes the high bytes."""

_NATIVE_IS_LITTLE = sys.byteorder == "little"

_LOW_BYTES = {
    "16B": "16L",
    "16L": "16B",
    "16N": "16B" if _NATIVE_IS_LITTLE else "16L",
}
"""Layouts of 16-bit colour in a file, and the layout by which Pillow reads the low bytes instead of the high ones."""

_BAND = 2**20
"""Pixels that are converted at a time, since a copy of a large image costs gigabytes."""

_STEPS = {"L;2": 85, "L;4": 17}
"""Layouts of grey of 2 and 4 bits, and by how much Pillow multiplies their numbers."""


class Header(NamedTuple):
    """What an image file says of itself before a pixel is decoded.

    Args:
        size: height and width, upright.
        orientation: the file's own tag, 1 to 8; 1 where it has none, or a damaged one.
        pages: pages or frames that the file holds, without previews.
        dropped_bands: bands that `read_image` leaves out although they are no alpha channel.
    """

    size: Size
    orientation: int
    pages: int
    dropped_bands: int


def read_image(path: Path | Encoded, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read any supported image as RGB, upright by its orientation.

    Args:
        path: a file with 1, 2, 4, 8 or 16 bits a channel: grey, colour, palette, with or without alpha (dropped). Of
            several pages or frames, the first is read.
        max_pixels: the `data.max_pixels` setting; a larger image is refused before it is decoded.

    Returns:
        (3, H, W) float32 in [0, 1]; 16-bit grey is scaled by 65535, never by its own maximum.

    Raises:
        SemipixError: the file is missing, no image, corrupt or truncated, too large, or holds numbers of unknown range.
    """
    return unit_range(read_pixels(path, max_pixels=max_pixels).contiguous())  # bytes are copied, not floats


def read_pixels(path: Path | Encoded, resize: int | Size | None = None, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image as `read_image` does, but leave bytes bytes, so that a crop costs what it holds.

    Args:
        path: see `read_image`.
        resize: the `data.resize` setting. An image of 8 bits that it shrinks to at most half comes shrunk, antialiased;
            a JPEG is then decoded at a half, a quarter or an eighth of its size, whichever is still twice the result.
        max_pixels: see `read_image`.

    Returns:
        (3, H, W): uint8, channels last, where the file has up to 8 bits a channel, else float32 in [0, 1].

    Raises:
        SemipixError: see `read_image`.
    """
    with opened(path, max_pixels) as file:
        layout = rawmode(file.image)
        if not _is_deep(layout):
            return _grey_or_bytes(file, layout, resize)
        del file
    deep = _deep_colours(path, max_pixels)
    deep /= np.float32(_GREY_16_BIT)
    return torch.from_numpy(deep)


def _grey_or_bytes(file: Opened, layout: str, resize: int | Size | None) -> Tensor:
    """What `read_pixels` returns of a file, unless it holds colours of 16 bits."""
    if layout == _GREY_ALPHA:
        return torch.from_numpy(_planes(file, _deep_grey(file), _of_two_bytes))
    wanted = resized_size(file.size, resize)
    shrinks = at_most_half(wanted, file.size)
    stored_wanted = wanted[::-1] if file.sideways else wanted
    box = _reduce(file, stored_wanted) if shrinks else None
    image = file.load()
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        return torch.from_numpy(_unit_grey(file.path, image.mode, _planes(file, image, _numbers)))
    if shrinks:
        image = _as_rgb(file.path, image).resize(stored_wanted[::-1], Image.Resampling.BILINEAR, box=box)
    upright = np.empty((*_upright_size(file, image), 3), np.uint8)
    _fill(file, upright, image, lambda band: np.asarray(_as_rgb(file.path, band)))
    return torch.from_numpy(upright).permute(2, 0, 1)


def _upright_size(file: Opened, image: Image.Image) -> Size:
    return (image.width, image.height) if file.sideways else (image.height, image.width)


def _fill(
    file: Opened,
    upright: NDArray[Any],
    image: Image.Image,
    values_of: Callable[[Image.Image], NDArray[Any]],
    add: bool = False,
) -> None:
    """Write the pixels of a file to an upright array (H, W, C), or add them to what it holds, some rows at a time."""
    stored = file.stored(upright)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        values = values_of(image.crop((0, top, image.width, min(top + rows, image.height))))
        if add:
            stored[top : top + rows] += values
        else:
            stored[top : top + rows] = values


def _planes(file: Opened, image: Image.Image, values_of: Callable[[Image.Image], NDArray[Any]]) -> NDArray[np.float32]:
    """Upright float32 (3, H, W) of what a function makes of some rows at a time, (rows, W, 1) or (rows, W, 3)."""
    planes = np.empty((3, *_upright_size(file, image)), np.float32)
    _fill(file, planes.transpose(1, 2, 0), image, values_of)
    return planes


def _numbers(band: Image.Image) -> NDArray[Any]:
    return np.asarray(band)[..., None]


def _reduce(file: Opened, wanted: Size) -> tuple[float, float, float, float] | None:
    """Have a JPEG decoded at the least scale that covers a size twice.

    Returns:
        What the whole image covers of the reduced one; less than all where a side is no multiple of the factor, since
        the last column then covers fewer pixels. None for other files.
    """
    image = file.image
    factor = reduction(wanted, file.stored_size)  # Pillow compares sizes rounded down, and takes less than it could
    drafted = image.draft(image.mode, (max(1, image.width // factor), max(1, image.height // factor)))
    return drafted[1] if drafted else None


def _as_rgb(path: Path | Encoded, image: Image.Image) -> Image.Image:
    if image.mode in ("LAB", "HSV"):
        raise SemipixError(f"{path}: found colours of the space {image.mode}, expected RGB; save the image as RGB")
    if image.mode == "La":
        image = image.convert("LA")
    # A palette with transparency has to pass through RGBA, or Pillow mixes the transparent colour in.
    colour = image.convert("RGBA") if "transparency" in image.info else image
    return colour if colour.mode == "RGB" else colour.convert("RGB")  # which copies what is RGB already


def unit_range(pixels: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; floats as they are."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def read_grey(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read one value a pixel in [0, 1], such as an alpha matte; colours that are all grey will do.

    Args:
        path: an array, or see `read_image`.
        max_pixels: see `read_image`.

    Returns:
        (H, W) float32.

    Raises:
        SemipixError: the file cannot be read, holds colours, or values outside [0, 1].
    """
    if path.suffix.lower() == ARRAY:
        pixels = _load(path, max_pixels)
        if len(pixels) != 1:
            raise SemipixError(f"{path}: found {len(pixels)} channels, expected one value a pixel")
        return torch.from_numpy(_unit_grey(path, "F", pixels[0]))
    pixels = read_image(path, max_pixels=max_pixels).numpy()
    if (pixels != pixels[:1]).any():
        raise SemipixError(f"{path}: found colours, expected one grey value a pixel; save it as a grey PNG")
    return torch.from_numpy(pixels[0].copy())


def read_values(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read the numbers of a map as they are stored: an array (H, W) or (C, H, W), a float TIFF, or 8 or 16-bit pixels.

    Args:
        path: the file; an image is turned upright by its own orientation, and of several pages the first is read.
        max_pixels: see `read_image`.

    Returns:
        (C, H, W) float32, NaN where the file holds no finite number.

    Raises:
        SemipixError: the file cannot be read, or holds indices of a palette instead of numbers.
    """
    values: NDArray[np.float32] | None
    if path.suffix.lower() == ARRAY:
        values = _load(path, max_pixels)
    else:
        with opened(path, max_pixels) as file:
            layout = rawmode(file.image)
            pixels, colours = stored_numbers(file)
            if colours is not None or not _is_numeric(file.image.mode):
                raise SemipixError(
                    f"{path}: found pixels of mode {file.image.mode}, expected grey, RGB or float values; save it as "
                    "16-bit PNG, float TIFF or .npy"
                )
            pixels = file.turned(pixels)
            planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            values = None if _is_deep(layout) else np.array(planes, np.float32, order="C")
            del file, pixels, planes
        if values is None:
            values = _deep_colours(path, max_pixels)
    values[~np.isfinite(values)] = np.nan
    return torch.from_numpy(values)


def _is_numeric(mode: str) -> bool:
    return mode in ("L", "P", "RGB", "F", "I") or mode.startswith("I;16")


def stored_numbers(file: Opened) -> tuple[NDArray[Any], dict[int, tuple[int, int, int]] | None]:
    """The numbers that a file holds, neither scaled nor turned, (H, W) or (H, W, C).

    A GIF has no grey pixels: where all colours of its palette that occur are grey, these are its numbers.

    Returns:
        numbers: of grey of 2 and 4 bits 0 to 3 and 0 to 15, of a palette its indices.
        colours: of the indices that occur, where the numbers are the indices of a palette.

    Raises:
        SemipixError: a TIFF of more than 1 bit counts its grey from white to black, or the file is truncated.
    """
    step = _STEPS.get(rawmode(file.image)[:3], 1)
    if file.tags is not None and headers.tiff_number(file.tags, 262, 0) == 0:
        bands, depths, kind = headers.tiff_samples(file.tags)
        if bands == 1 and max(depths) > 1 and kind != "float":
            raise SemipixError(
                f"{file.path}: found grey that counts from white (WhiteIsZero), whose numbers programs read in two "
                "ways; expected black as zero, save it as MinIsBlack, or as PNG"
            )
    image = file.load()
    numbers = np.asarray(image) // step if step > 1 else np.asarray(image)
    if image.mode != "P":
        return numbers, None
    table = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    present = [index for index, count in enumerate(image.histogram()) if count]
    colours: dict[int, tuple[int, int, int]] = {
        index: tuple(table[index].tolist()) for index in present if index < len(table)
    }
    if image.format == "GIF" and len(colours) == len(present) and all(r == g == b for r, g, b in colours.values()):
        return table[:, 0][numbers], None
    return numbers, colours


def bits(path: Path, *, max_pixels: int = MAX_PIXELS) -> str:
    """How a file stores its numbers, from its header: "8-bit" (or less), "16-bit" or "float".

    Args:
        path: an image or an array.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file is missing, no image, too large, or its header is corrupt.
    """
    if path.suffix.lower() == ARRAY:
        kind, size = (dtype := _mapped(path, max_pixels).dtype).kind, dtype.itemsize
        return "float" if kind == "f" else f"{8 * size}-bit"
    with opened(path, max_pixels) as file:
        if file.image.mode == "F":
            return "float"
        layout = rawmode(file.image)
        return "16-bit" if file.image.mode.startswith("I") or _is_deep(layout) or layout == _GREY_ALPHA else "8-bit"


def image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> Size:
    """Height and width of an image as `read_image` would return it, from the file's header alone.

    Args:
        path: an image or an array.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file is missing, no image, too large, or its header is corrupt.
    """
    if path.suffix.lower() == ARRAY:
        height, width = _mapped(path, max_pixels).shape[-2:]
        return height, width
    with opened(path, max_pixels) as file:
        return file.size


def read_header(path: Path | Encoded, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read what an image file says of itself, without decoding its pixels.

    Args:
        path: an image file.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file is missing, no image, too large, or its header is corrupt.
    """
    with opened(path, max_pixels) as file:
        if file.tags is not None:
            pages = headers.page_count(list(headers.tiff_pages(file.file)))
            dropped = file.tags.get(338, ()).count(0)
            return Header(file.size, file.orientation, pages, dropped)
        pages = 1
        if file.image.format not in ("JPEG", "MPO"):  # a phone's further pictures are previews
            with suppress(*BROKEN):  # damage behind the first page
                pages = getattr(file.image, "n_frames", 1)
        return Header(file.size, file.orientation, pages, 0)


def check_label_size(
    image: Path, label: Path, values: Tensor, word: str = "mask", *, max_pixels: int = MAX_PIXELS
) -> None:
    """Compare an image's size with what was read from its label, (..., H, W), reading only the image's header.

    Args:
        image: the image's file.
        label: the label's file.
        values: its pixels.
        word: what the label is called.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: they differ, or the image cannot be read.
    """
    check_same_size(image, label, image_size(image, max_pixels=max_pixels), tuple(values.shape[-2:]), word)


def check_same_size(image: Path, label: Path, wanted: Sequence[int], found: Sequence[int], word: str = "mask") -> None:
    """Compare height and width of an image with those of its label, both upright.

    Raises:
        SemipixError: they differ.
    """
    if tuple(found) != tuple(wanted):
        raise SemipixError(
            f"{label}: {word} is {found[1]}x{found[0]} pixels, its image {image.name} is {wanted[1]}x{wanted[0]} (each "
            f"upright by its own orientation); expected the same size, save the {word} at the image's size"
        )


def _deep_grey(file: Opened) -> Image.Image:
    """Grey of 16 bits beside an alpha channel, for Pillow an image of four channels: two bytes each."""
    image = file.image
    image._mode = "RGBA"
    image.tile = [relabeled(tile, "RGBA") for tile in image.tile]  # type: ignore[attr-defined]
    return file.load()


def _of_two_bytes(band: Image.Image) -> NDArray[np.float32]:
    """Some rows (rows, W, 1) of `_deep_grey` in [0, 1]."""
    high, low = np.asarray(band)[..., :2].astype(np.float32).transpose(2, 0, 1)
    grey: NDArray[np.float32] = (256 * high + low) / np.float32(_GREY_16_BIT)
    return grey[..., None]


def _deep_colours(path: Path | Encoded, max_pixels: int) -> NDArray[np.float32]:
    """Colours of 16 bits, (3, H, W) from 0 to 65535, upright.

    Pillow has no image of such colours, but takes either byte, depending on the order that is asked for. The file is
    decoded once for each, so that one of Pillow's images is in memory at a time.
    """

    def high(band: Image.Image) -> NDArray[np.float32]:
        return 256 * np.asarray(_as_rgb(path, band), np.float32)

    def low(band: Image.Image) -> NDArray[np.float32]:
        return np.asarray(band.convert("RGB"), np.float32)

    with opened(path, max_pixels) as file:
        deep = _planes(file, file.load(), high)
        del file
    with opened(path, max_pixels) as file:
        name, _, order = rawmode(file.image).partition(";")
        image: Any = file.image
        image.tile = [relabeled(tile, f"{name};{_LOW_BYTES[order]}") for tile in image.tile]
        _fill(file, deep.transpose(1, 2, 0), file.load(), low, add=True)
    return deep


def _is_deep(layout: str) -> bool:
    """Whether a layout is one of 16-bit colours."""
    name, _, order = layout.partition(";")
    return name in ("RGB", "RGBA", "RGBX") and order in _LOW_BYTES


def _load(path: Path, max_pixels: int) -> NDArray[np.float32]:
    """An array file as (C, H, W) float32."""
    values = np.array(_mapped(path, max_pixels), np.float32, order="C")
    return values[None] if values.ndim == 2 else values


def _mapped(path: Path, max_pixels: int) -> NDArray[Any]:
    """An array file of numbers, (H, W) or (C, H, W), read when it is used."""
    try:
        values: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such file; restore it") from None
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFileError(
            f"{path}: not an array of numpy ({reason_of(error, 80)}); replace or remove the file"
        ) from None
    if values.ndim not in (2, 3) or values.size == 0 or values.dtype.kind not in "fiub":
        raise SemipixError(
            f"{path}: found {values.dtype} numbers of shape {list(values.shape)}, expected real ones of shape "
            "[height,width] or [channels,height,width]"
        )
    height, width = values.shape[-2:]
    check_pixels(path, (height, width), max_pixels)
    if values.size > 3 * max_pixels:
        raise UnreadableFileError(
            f"{path}: {values.size} numbers, more than three for each pixel of data.max_pixels={max_pixels}; raise "
            "data.max_pixels to read it, or make the array smaller"
        )
    return values


def _unit_grey(path: Path | Encoded, mode: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale grey values of more than 8 bits to [0, 1] by the range of their type, in place."""
    top = 1 if mode == "F" else _GREY_16_BIT
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):
        raise SemipixError(
            f"{path}: found values from {low:g} to {high:g} (mode {mode}), expected 0 to {top}; "
            "scale the values, or save the image with 8 or 16 bits a channel"
        )
    values /= np.float32(top)
    return values
