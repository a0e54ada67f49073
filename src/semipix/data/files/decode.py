"""Decode image files: pixels, numbers of maps, and headers.

Every file is opened by `opening.open_image`. Only the first of several pages or frames is read. Masks are decoded in
`decode_masks`.
"""

import io
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
from semipix.data.files.opening import (
    BROKEN,
    MAX_PIXELS,
    Encoded,
    OpenedImage,
    check_pixels,
    open_image,
    raw_mode_of,
    with_raw_mode,
)
from semipix.data.files.sizes import Size, at_most_half, reduction, resized_size
from semipix.errors import SemipixError, UnreadableFileError, reason_of

ARRAY = ".npy"
"""Extension of targets that are arrays."""

_GREY_12_BIT = 4095

_GREY_16_BIT = 65535

_GREY_ALPHA = "LA;16B"
"""Raw mode of 16-bit grey with alpha, of which Pillow reads only the high bytes."""

_NATIVE_IS_LITTLE = sys.byteorder == "little"

_LOW_BYTES = {
    "16B": "16L",
    "16L": "16B",
    "16N": "16B" if _NATIVE_IS_LITTLE else "16L",
}
"""Byte order in the raw mode of 16-bit colours, and the one with which Pillow reads the low bytes instead."""

_BAND = 2**20
"""Pixels that are converted at a time, since a copy of a whole large image takes gigabytes."""

_STEPS = {"L;2": 85, "L;4": 17}
"""Raw modes of 2-bit and 4-bit grey, and the factor by which Pillow multiplies their numbers."""


class Header(NamedTuple):
    """The properties of an image file that are known from its header.

    Args:
        size: height and width, upright.
        orientation: the file's own tag, 1 to 8; 1 if it is missing or damaged.
        pages: number of pages or frames, without previews.
        dropped_bands: number of bands that `read_image` ignores although they are no alpha channel.
    """

    size: Size
    orientation: int
    pages: int
    dropped_bands: int


def read_image(path: Path | Encoded, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read any supported image as RGB, upright by its orientation.

    Args:
        path: a file with up to 16 bits a channel: grey, colours or palette. Alpha is ignored, and so are all pages or
            frames but the first.
        max_pixels: the `data.max_pixels` setting; a larger image is refused before it is decoded.

    Returns:
        (3, H, W) float32 in [0, 1]; 16-bit grey is scaled by 65535 and 12-bit grey by 4095, never by its own maximum.

    Raises:
        SemipixError: the file is missing, no image, corrupt, truncated or too large, its values exceed the range of its
            type, or that type (signed, or 32 bits) has no usual range.
    """
    return unit_range(read_pixels(path, max_pixels=max_pixels).contiguous())  # copies bytes instead of floats


def read_pixels(path: Path | Encoded, resize: int | Size | None = None, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read an image as `read_image` does, but keep bytes as bytes, so that only a crop needs to be converted.

    Args:
        path: see `read_image`.
        resize: the `data.resize` setting. If it shrinks an image of 8 bits to at most half, the result is already
            shrunk, antialiased; a JPEG is then decoded at 1/2, 1/4 or 1/8 of its size, the smallest that is still twice
            the result.
        max_pixels: see `read_image`.

    Returns:
        (3, H, W): uint8 (in memory with channels last) if the file has up to 8 bits a channel, else float32 in [0, 1].

    Raises:
        SemipixError: see `read_image`.
    """
    with open_image(path, max_pixels) as file:
        raw_mode = raw_mode_of(file.image)
        if not _is_deep(raw_mode):
            return _grey_or_bytes(file, raw_mode, resize)
        del file
    deep = _deep_colours(path, max_pixels)
    deep /= np.float32(_GREY_16_BIT)
    return torch.from_numpy(deep)


def unit_range(pixels: Tensor) -> Tensor:
    """Bytes as float32 in [0, 1]; floats unchanged."""
    return pixels.float().div_(255) if pixels.dtype == torch.uint8 else pixels


def read_grey(path: Path, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read one value a pixel in [0, 1], such as an alpha matte. An RGB file is accepted if all its colours are grey.

    Args:
        path: an array, or an image as for `read_image`.
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
        return torch.from_numpy(_unit_grey(path, "F", pixels[0], 1))
    pixels = read_image(path, max_pixels=max_pixels).numpy()
    if (pixels != pixels[:1]).any():
        raise SemipixError(f"{path}: found colours, expected one grey value a pixel; save it as a grey PNG")
    return torch.from_numpy(pixels[0].copy())


def read_values(path: Path, missing: float | None = None, *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read the stored numbers of a map: an array (H, W) or (C, H, W), a float TIFF, or an image of 8 or 16 bits.

    Args:
        path: the file. An image is turned upright by its own orientation; only the first of several pages is read.
        missing: the stored number of pixels without a value; by default the nodata that GDAL wrote into a TIFF.
        max_pixels: see `read_image`.

    Returns:
        (C, H, W) float32; numbers that are missing or not finite become NaN.

    Raises:
        SemipixError: the file cannot be read, has bands that Pillow ignores, or holds indices of a palette instead of
            numbers.
    """
    values: NDArray[np.float32] | None
    if path.suffix.lower() == ARRAY:
        values = _load(path, max_pixels)
        gone = _equal(values, missing)
    else:
        with open_image(path, max_pixels) as file:
            if missing is None and file.tags is not None:
                missing = headers.tiff_nodata(file.tags)
            raw_mode = raw_mode_of(file.image)
            pixels, colours = stored_numbers(file)
            if colours is not None or not _is_numeric(file.image.mode):
                raise SemipixError(
                    f"{path}: found pixels of mode {file.image.mode}, expected grey, RGB or float values; save it as "
                    "16-bit PNG, float TIFF or .npy"
                )
            pixels = file.to_upright(pixels)
            planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
            if (held := headers.tiff_samples(file.tags or {})[0]) > len(planes):
                raise SemipixError(
                    f"{path}: holds {held} bands, of which only {len(planes)} can be read as numbers; save it as .npy "
                    "(channels, height, width), or with the bands to use"
                )
            values = None if _is_deep(raw_mode) else np.array(planes, np.float32, order="C")
            gone = _equal(planes, missing)  # float32 cannot tell all numbers of 32 bits apart
            del file, pixels, planes
        if values is None:
            values = _deep_colours(path, max_pixels)
            gone = _equal(values, missing)
    values[gone] = np.nan
    values[~np.isfinite(values)] = np.nan
    return torch.from_numpy(values)


def _equal(numbers: NDArray[Any], value: float | None) -> NDArray[np.bool_] | np.bool_:
    """Where numbers have a value, rounded to their type if that is float; nowhere for None."""
    if value is None:
        return np.bool_(False)
    with np.errstate(over="ignore"):
        equal: NDArray[np.bool_] = numbers == (np.float32(value) if numbers.dtype == np.float32 else float(value))
    return equal


def stored_bands(path: Path | Encoded, max_pixels: int) -> NDArray[Any]:
    """The numbers of all bands of an image that Pillow reads, (C, H, W), upright; alpha is one of them.

    Numbers of 2 and 4 bits are scaled to 8 bits; all others are as they are stored.

    Args:
        path: the file.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file cannot be read, or holds indices of a palette instead of numbers.
    """
    with open_image(path, max_pixels) as file:
        raw_mode = raw_mode_of(file.image)
        deep = _is_deep(raw_mode)
        if raw_mode == _GREY_ALPHA or (deep and not raw_mode.startswith("RGB;")):
            raise SemipixError(
                f"{path}: found 16-bit values with alpha, of which Pillow reads 8 bits; save the image as TIFF"
            )
        pixels, colours = stored_numbers(file)
        if colours is not None or not (_is_numeric(file.image.mode) or file.image.mode in ("LA", "RGBA", "1")):
            raise SemipixError(
                f"{path}: found pixels of mode {file.image.mode}, expected grey or bands; save it as TIFF or PNG"
            )
        pixels = file.to_upright(pixels * np.uint8(step) if (step := _STEPS.get(raw_mode[:3])) else pixels)
        planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
        values = None if deep else np.array(planes, order="C")
        del file, pixels, planes
    return values if values is not None else _deep_colours(path, max_pixels).astype(np.uint16)


def stored_numbers(file: OpenedImage) -> tuple[NDArray[Any], dict[int, tuple[int, int, int]] | None]:
    """The numbers in a file, neither scaled nor turned, (H, W) or (H, W, C).

    The GIF format has no grey pixels: if all colours of a GIF's palette are grey, its grey values are returned.

    Returns:
        numbers: the stored values: 0 to 3 for 2-bit grey, 0 to 15 for 4-bit grey, indices for a palette.
        colours: if the numbers are indices of a palette, the colours of those that occur; otherwise None.

    Raises:
        SemipixError: in a TIFF of more than 1 bit 0 is white, or the file is truncated.
    """
    step = _STEPS.get(raw_mode_of(file.image)[:3], 1)
    if _is_white_zero(file):
        raise SemipixError(
            f"{file.path}: found grey in which 0 is white (WhiteIsZero), whose numbers programs read in two "
            "ways; expected 0 as black, save it as MinIsBlack, or as PNG"
        )
    image = file.load()
    numbers = np.asarray(image) // step if step > 1 else np.asarray(image)
    if image.mode != "P":
        return _typed(numbers, file.tags), None
    table = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    present = [index for index, count in enumerate(image.histogram()) if count]
    colours: dict[int, tuple[int, int, int]] = {
        index: tuple(table[index].tolist()) for index in present if index < len(table)
    }
    # The whole palette decides: which colours occur differs from mask to mask of one data set.
    if image.format == "GIF" and len(colours) == len(present) and (table == table[:, :1]).all():
        return table[:, 0][numbers], None
    return numbers, colours


def _typed(numbers: NDArray[Any], tags: headers.Tags | None) -> NDArray[Any]:
    """Numbers of one band with the sign that the tags of a TIFF say, which Pillow ignores for bytes and for 32 bits."""
    _, depths, kind = headers.tiff_samples(tags) if tags is not None else (1, (0,), "")
    if numbers.dtype == np.uint8 and depths == (8,) and kind == "signed":
        return numbers.view(np.int8)
    if numbers.dtype == np.int32 and depths == (32,) and kind == "unsigned":
        return numbers.view(np.uint32)
    return numbers


def bits(path: Path, *, max_pixels: int = MAX_PIXELS) -> str:
    """The type of the numbers of a file, from its header: "8-bit" (or less), "16-bit" or "float".

    Args:
        path: an image or an array.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file is missing, no image, too large, or its header is corrupt.
    """
    if path.suffix.lower() == ARRAY:
        kind, size = (dtype := _memory_mapped(path, max_pixels).dtype).kind, dtype.itemsize
        return "float" if kind == "f" else f"{8 * size}-bit"
    with open_image(path, max_pixels) as file:
        if file.image.mode == "F":
            return "float"
        raw_mode = raw_mode_of(file.image)
        return "16-bit" if file.image.mode.startswith("I") or _is_deep(raw_mode) or raw_mode == _GREY_ALPHA else "8-bit"


def image_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> Size:
    """Height and width of an image as `read_image` returns it, from the file's header only.

    Args:
        path: an image or an array.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file is missing, no image, too large, or its header is corrupt.
    """
    if path.suffix.lower() == ARRAY:
        height, width = _memory_mapped(path, max_pixels).shape[-2:]
        return height, width
    with open_image(path, max_pixels) as file:
        return file.size


def read_header(path: Path | Encoded, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of an image file, without decoding its pixels.

    Args:
        path: an image file.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the file is missing, no image, too large, or its header is corrupt.
    """
    with open_image(path, max_pixels) as file:
        if file.tags is not None:
            pages = headers.page_count(list(headers.tiff_pages(file.file)))
            dropped = file.tags.get(338, ()).count(0)
            return Header(file.size, file.orientation, pages, dropped)
        pages = 1
        if file.image.format not in ("JPEG", "MPO"):  # further pictures in a JPEG of a phone are previews
            with suppress(*BROKEN):  # the file is damaged after the first page
                pages = getattr(file.image, "n_frames", 1)
        return Header(file.size, file.orientation, pages, 0)


def check_label_size(
    image: Path, label: Path, values: Tensor, word: str = "mask", *, max_pixels: int = MAX_PIXELS
) -> None:
    """Check that a label has the size of its image, of which only the header is read.

    Args:
        image: the image's file.
        label: the label's file.
        values: the pixels of the label, (..., H, W).
        word: the word for the label in messages.
        max_pixels: see `read_image`.

    Raises:
        SemipixError: the sizes differ, or the image cannot be read.
    """
    check_same_size(image, label, image_size(image, max_pixels=max_pixels), tuple(values.shape[-2:]), word)


def check_same_size(image: Path, label: Path, wanted: Sequence[int], found: Sequence[int], word: str = "mask") -> None:
    """Check that an image and its label, both upright, have the same height and width.

    Raises:
        SemipixError: the sizes differ.
    """
    if tuple(found) != tuple(wanted):
        raise SemipixError(
            f"{label}: {word} is {found[1]}x{found[0]} pixels, its image {image.name} is {wanted[1]}x{wanted[0]} (each "
            f"upright by its own orientation); expected the same size, save the {word} at the image's size"
        )


def _grey_or_bytes(file: OpenedImage, raw_mode: str, resize: int | Size | None) -> Tensor:
    """The result of `read_pixels` for all files except those with 16-bit colours."""
    if raw_mode == _GREY_ALPHA:
        return torch.from_numpy(_planes(file, _deep_grey(file), _of_two_bytes))
    wanted = resized_size(file.size, resize)
    shrinks = at_most_half(wanted, file.size)
    stored_wanted = wanted[::-1] if file.sideways else wanted
    box = _reduce(file, stored_wanted) if shrinks else None
    top = _white(file, raw_mode)
    image = file.load()
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        grey = _unit_grey(file.path, image.mode, _planes(file, image, _numbers), top)
        if image.mode != "F" and _is_white_zero(file):  # Pillow inverts grey of 8 bits alone
            np.subtract(1, grey, out=grey)
        return torch.from_numpy(grey)
    if shrinks:
        image = _as_rgb(file.path, image).resize(stored_wanted[::-1], Image.Resampling.BILINEAR, box=box)
    upright = np.empty((*_upright_size(file, image), 3), np.uint8)
    _fill(file, upright, image, lambda band: np.asarray(_as_rgb(file.path, band)))
    return torch.from_numpy(upright).permute(2, 0, 1)


def _white(file: OpenedImage, raw_mode: str) -> int:
    """The number of white in a file of one number a pixel: 1 for floats, else the largest of its number of bits.

    Raises:
        SemipixError: it has signed numbers, or more than 16 bits, whose range is not usual.
    """
    if file.image.mode == "F":
        return 1
    _, depths, kind = headers.tiff_samples(file.tags) if file.tags is not None else (1, (8,), "unsigned")
    if kind == "signed" or (file.image.mode == "I" and max(depths) > 16):
        numbers = _typed(np.asarray(file.load()), file.tags)
        found = f"{kind} numbers of {max(depths)} bits from {numbers.min()} to {numbers.max()}"
        raise SemipixError(
            f"{file.path}: found {found}, expected unsigned ones of 8 or 16 bits; set data.range=[low,high], the "
            "numbers that become 0 and 1, or save the image as 8-bit or 16-bit grey"
        )
    return _GREY_12_BIT if raw_mode == "I;12" else _GREY_16_BIT


def _is_white_zero(file: OpenedImage) -> bool:
    """Whether a file is a TIFF of grey of more than 1 bit in which 0 is white."""
    if file.tags is None or headers.tiff_number(file.tags, 262, 0) != 0:
        return False
    bands, depths, kind = headers.tiff_samples(file.tags)
    return bands == 1 and max(depths) > 1 and kind != "float"


def _upright_size(file: OpenedImage, image: Image.Image) -> Size:
    return (image.width, image.height) if file.sideways else (image.height, image.width)


def _fill(
    file: OpenedImage,
    upright: NDArray[Any],
    image: Image.Image,
    values_of: Callable[[Image.Image], NDArray[Any]],
    add: bool = False,
) -> None:
    """Write the pixels of a file to an upright array (H, W, C), or add them to it, some rows at a time."""
    stored = file.to_stored(upright)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        values = values_of(image.crop((0, top, image.width, min(top + rows, image.height))))
        if add:
            stored[top : top + rows] += values
        else:
            stored[top : top + rows] = values


def _planes(
    file: OpenedImage, image: Image.Image, values_of: Callable[[Image.Image], NDArray[Any]]
) -> NDArray[np.float32]:
    """Upright float32 (3, H, W), made by a function that converts some rows to (rows, W, 1) or (rows, W, 3)."""
    planes = np.empty((3, *_upright_size(file, image)), np.float32)
    _fill(file, planes.transpose(1, 2, 0), image, values_of)
    return planes


def _numbers(band: Image.Image) -> NDArray[Any]:
    return np.asarray(band)[..., None]


def _reduce(file: OpenedImage, wanted: Size) -> tuple[float, float, float, float] | None:
    """Make Pillow decode a JPEG at the smallest scale that still has twice the wanted size.

    Returns:
        The box of the reduced image that the whole image fills. It is smaller than the reduced image if a side is no
        multiple of the factor, since the last column or row then represents fewer pixels. None for other files.
    """
    image = file.image
    factor = reduction(wanted, file.stored_size)  # Pillow rounds sizes down, and reduces less than possible
    drafted = image.draft(image.mode, (max(1, image.width // factor), max(1, image.height // factor)))
    return drafted[1] if drafted else None


def _as_rgb(path: Path | Encoded, image: Image.Image) -> Image.Image:
    if image.mode in ("LAB", "HSV"):
        raise SemipixError(f"{path}: found colours of the space {image.mode}, expected RGB; save the image as RGB")
    if image.mode == "La":
        image = image.convert("LA")
    # Convert transparent images through RGBA: converting directly, Pillow blends the transparent colour in.
    colour = image.convert("RGBA") if "transparency" in image.info else image
    return colour if colour.mode == "RGB" else colour.convert("RGB")  # converting RGB to RGB would only copy


def _is_numeric(mode: str) -> bool:
    return mode in ("L", "P", "RGB", "F", "I") or mode.startswith("I;16")


def _deep_grey(file: OpenedImage) -> Image.Image:
    """16-bit grey with 16-bit alpha, read as an image of four channels of one byte each."""
    image = file.image
    image._mode = "RGBA"
    image.tile = [with_raw_mode(tile, "RGBA") for tile in image.tile]  # type: ignore[attr-defined]
    return file.load()


def _of_two_bytes(band: Image.Image) -> NDArray[np.float32]:
    """The grey values (rows, W, 1) in [0, 1] of some rows of `_deep_grey`."""
    high, low = np.asarray(band)[..., :2].astype(np.float32).transpose(2, 0, 1)
    grey: NDArray[np.float32] = (256 * high + low) / np.float32(_GREY_16_BIT)
    return grey[..., None]


def _deep_colours(path: Path | Encoded, max_pixels: int) -> NDArray[np.float32]:
    """Colours of 16 bits, (3, H, W) from 0 to 65535, upright.

    Pillow cannot hold such an image, but reads the high or the low bytes, depending on the byte order in the raw mode.
    The file is decoded once for each, so that only one Pillow image is in memory at a time.
    """

    def high(band: Image.Image) -> NDArray[np.float32]:
        return 256 * np.asarray(_as_rgb(path, band), np.float32)

    def low(band: Image.Image) -> NDArray[np.float32]:
        return np.asarray(band.convert("RGB"), np.float32)

    with open_image(path, max_pixels) as file:
        deep = _planes(file, file.load(), high)
        del file
    with open_image(path, max_pixels) as file:
        name, _, order = raw_mode_of(file.image).partition(";")
        image: Any = file.image
        image.tile = [with_raw_mode(tile, f"{name};{_LOW_BYTES[order]}") for tile in image.tile]
        _fill(file, deep.transpose(1, 2, 0), file.load(), low, add=True)
    return deep


def _is_deep(raw_mode: str) -> bool:
    """Whether a raw mode is one of 16-bit colours."""
    name, _, order = raw_mode.partition(";")
    return name in ("RGB", "RGBA", "RGBX") and order in _LOW_BYTES


def _load(path: Path, max_pixels: int) -> NDArray[np.float32]:
    """The numbers of an array file, (C, H, W) float32."""
    values = np.array(_memory_mapped(path, max_pixels), np.float32, order="C")
    return values[None] if values.ndim == 2 else values


def load_array(path: Path | Encoded, planes: str) -> NDArray[Any]:
    """The numbers of an array file of two or three dimensions; those of a file on disk are mapped into memory.

    Args:
        path: the file.
        planes: the expected shape of three dimensions, for the message.

    Raises:
        SemipixError: it cannot be read, is empty, or holds no real numbers of such a shape.
    """
    try:
        values: NDArray[Any]
        if isinstance(path, Encoded):
            values = np.load(io.BytesIO(path.content), allow_pickle=False)
        else:
            values = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such file; restore it") from None
    except (OSError, ValueError, EOFError) as error:
        raise UnreadableFileError(
            f"{path}: not an array of numpy ({reason_of(error, 80)}); replace or remove the file"
        ) from None
    if values.ndim not in (2, 3) or values.size == 0 or values.dtype.kind not in "fiub":
        raise SemipixError(
            f"{path}: found {values.dtype} numbers of shape {list(values.shape)}, expected real ones of shape "
            f"[height,width] or {planes}"
        )
    return values


def _memory_mapped(path: Path, max_pixels: int) -> NDArray[Any]:
    """An array file, (H, W) or (C, H, W), mapped into memory: only the used parts are read."""
    values = load_array(path, "[channels,height,width]")
    height, width = values.shape[-2:]
    check_pixels(path, (height, width), max_pixels)
    if values.size > 3 * max_pixels:
        raise UnreadableFileError(
            f"{path}: {values.size} numbers, more than three for each pixel of data.max_pixels={max_pixels}; raise "
            "data.max_pixels to read it, or make the array smaller"
        )
    return values


def _unit_grey(path: Path | Encoded, mode: str, values: NDArray[np.float32], top: int) -> NDArray[np.float32]:
    """Scale grey values, from 0 to `top`, to [0, 1] in place."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):
        raise SemipixError(
            f"{path}: found values from {low:g} to {high:g} (mode {mode}), expected 0 to {top}; "
            "scale the values, save the image with 8 or 16 bits a channel or, if it has bands, set "
            "data.range=[low,high]"
        )
    values /= np.float32(top)
    return values
