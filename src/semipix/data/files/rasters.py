"""Read the bands of image files: of a TIFF by rasterio, of an array by NumPy, and of other files by Pillow.

No band is taken for a colour or for alpha, and numbers are scaled by a stated range.
"""

import functools
import importlib.util
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semipix.data.files import file_headers as headers
from semipix.data.files.bands import Bands
from semipix.data.files.decode import ARRAY, Header, load_array, stored_bands
from semipix.data.files.listing import split_extension
from semipix.data.files.opening import Encoded, check_pixels
from semipix.data.files.sizes import Size
from semipix.errors import SemipixError, UnreadableFileError, reason_of

TIFF = (".tif", ".tiff")
"""Extensions of files that rasterio reads."""

VALUES_OF_A_PIXEL = 4
"""Bands of an image of `data.max_pixels` pixels that may be read: 16 bytes a pixel, as of other images."""

_RANGES: dict[str, tuple[float, float]] = {"bool": (0, 1), "uint8": (0, 255), "uint16": (0, 65535)}
"""The range of a type, where images of this type usually fill it."""


class Contents(NamedTuple):
    """What the header of a file says of its bands.

    Attributes:
        bands: number of bands.
        size: height and width.
        dtype: type of the stored numbers.
        pages: number of pages; the first is read.
    """

    bands: int
    size: Size
    dtype: str
    pages: int = 1


@dataclass(frozen=True)
class _Opened:
    """A file whose header was read.

    Attributes:
        contents: what the header says.
        band: gives the numbers (H, W) of a band, and (H, W) bool where they are missing, or None.
        depth: number of bits of each number, if less than its type has; otherwise None.
    """

    contents: Contents
    band: Callable[[int], tuple[NDArray[Any], NDArray[np.bool_] | None]]
    depth: int | None = None


@dataclass(frozen=True)
class Georeference:
    """Where an image is: what rasterio calls crs and transform."""

    crs: Any
    transform: Any


def read_bands(path: Path | Encoded, bands: Bands, max_pixels: int) -> Tensor:
    """Read the chosen bands of an image.

    Args:
        path: the file.
        bands: the settings.
        max_pixels: the `data.max_pixels` setting.

    Returns:
        (C, H, W) float32 in [0, 1]; numbers out of range are 0 or 1, and missing ones (the file's nodata, NaN and
        infinity) are NaN.

    Raises:
        SemipixError: the file cannot be read, has other bands or is too large, or its range is not known.
    """
    with _opened(path, max_pixels) as file:
        held, size, dtype, _ = file.contents
        numbers = _numbers(path, bands, held)
        _check_memory(path, len(numbers), size, max_pixels)
        limits = _limits(path, bands, file, numbers)
        image = np.empty((len(numbers), *size), np.float32)
        # Numbers of up to 16 bits are exact in float32.
        wide: Any = np.float32 if np.dtype(dtype).itemsize <= 2 else np.float64
        for place, (number, (low, high)) in enumerate(zip(numbers, limits, strict=True)):
            stored, missing = file.band(number)
            values = (stored.astype(wide) - wide(low)) / wide(high - low)
            np.clip(values, 0, 1, out=values)
            _mark(values, stored, missing)
            image[place] = values
    return torch.from_numpy(image)


def stored_values(path: Path | Encoded, bands: Bands, max_pixels: int) -> Iterator[tuple[int, NDArray[Any], int]]:
    """The chosen bands one by one: number, the stored numbers (n,) that are not missing, and how many pixels it has.

    Raises:
        SemipixError: the file cannot be read, has other bands, or is too large.
    """
    with _opened(path, max_pixels) as file:
        numbers = _numbers(path, bands, file.contents.bands)
        for number in numbers:
            stored, missing = file.band(number)
            known = np.isfinite(stored) if missing is None else np.isfinite(stored) & ~missing
            yield number, stored[known], stored.size


def contents(path: Path | Encoded, max_pixels: int) -> Contents:
    """What the header of a file says of its bands.

    Raises:
        SemipixError: the file cannot be read, or is too large.
    """
    with _opened(path, max_pixels) as file:
        return file.contents


def bands_header(path: Path | Encoded, max_pixels: int) -> Header:
    """The header of an image as `read_bands` returns it: as it is stored, without bands that are ignored.

    Raises:
        SemipixError: the file cannot be read, or is too large.
    """
    found = contents(path, max_pixels)
    return Header(found.size, 1, found.pages, 0)


def georeference(path: Path) -> Georeference | None:
    """Where a TIFF is; None if it does not say, if it is stored turned, if it cannot be read, or without rasterio."""
    if not has_georeference(path) or not has_rasterio():
        return None
    rasterio = load_rasterio(path)
    try:
        with _dataset(rasterio, path) as dataset:
            return Georeference(dataset.crs, dataset.transform)
    except (OSError, rasterio.errors.RasterioError):
        return None


def has_georeference(path: Path) -> bool:
    """Whether the tags of a file say where each pixel is, and it is stored upright; rasterio is not needed.

    Ground control points, and files beside the TIFF, do not count.
    """
    if split_extension(path.name)[1] not in TIFF:
        return False
    try:
        with path.open("rb") as file:
            tags = next(headers.tiff_pages(file), {})
    except OSError:
        return False
    return headers.tiff_number(tags, 274, 1) == 1 and not headers.GEOREFERENCE.isdisjoint(tags)


def load_rasterio(path: Path | Encoded) -> Any:
    """Import rasterio.

    Args:
        path: the file that needs it, for the message.

    Raises:
        SemipixError: it is not installed.
    """
    try:
        return _imported()
    except ImportError:
        raise SemipixError(
            f"{path}: rasterio is not installed, which reads the bands of a TIFF; install it by: pip install "
            "'semipix[geo]'"
        ) from None


def has_rasterio() -> bool:
    """Whether rasterio is installed."""
    return importlib.util.find_spec("rasterio") is not None


@functools.cache
def _imported() -> Any:
    import rasterio
    import rasterio.errors
    import rasterio.windows

    warnings.filterwarnings("ignore", category=rasterio.errors.NotGeoreferencedWarning)  # many images are not
    return rasterio


@contextmanager
def _opened(path: Path | Encoded, max_pixels: int) -> Iterator[_Opened]:
    extension = split_extension(str(path))[1]
    if extension in TIFF:
        with _opened_tiff(path, max_pixels) as file:
            yield file
    elif extension == ARRAY:
        yield _opened_array(path, max_pixels)
    else:
        values = stored_bands(path, max_pixels)
        yield _Opened(
            Contents(len(values), (values.shape[1], values.shape[2]), values.dtype.name),
            lambda number: (values[number], None),
        )


@contextmanager
def _opened_tiff(path: Path | Encoded, max_pixels: int) -> Iterator[_Opened]:
    rasterio = load_rasterio(path)
    try:
        with io.BytesIO(path.content) if isinstance(path, Encoded) else path.open("rb") as file:
            pages = list(headers.tiff_pages(file))
        turned = headers.tiff_number(pages[0], 274, 1) if pages else 1
        if turned != 1:
            raise SemipixError(
                f"{path}: found a TIFF that is stored turned (orientation {turned}); with data.bands it is expected "
                "upright, save it again as it is shown"
            )
        with _dataset(rasterio, path) as dataset:
            check_pixels(path, dataset.shape, max_pixels)
            kinds = set(dataset.dtypes)
            problem = ""
            if len(kinds) > 1 or any(np.dtype(kind).kind not in "fiu" for kind in kinds):
                problem = f"bands of {', '.join(sorted(kinds))}; expected real numbers of one type"
            elif dataset.colorinterp[0] == rasterio.enums.ColorInterp.palette:
                problem = "indices of a palette, which are no measurements; save the image as colours or as grey"
            if problem:
                raise SemipixError(f"{path}: found {problem}")
            found = Contents(dataset.count, dataset.shape, dataset.dtypes[0], headers.page_count(pages))
            flags = rasterio.enums.MaskFlags

            def band(number: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
                of_band = dataset.mask_flag_enums[number]
                masked = flags.all_valid not in of_band and flags.alpha not in of_band
                missing = dataset.read_masks(number + 1) == 0 if masked else None
                return dataset.read(number + 1), missing

            depth = dataset.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", "")
            yield _Opened(found, band, int(depth) if depth.isdigit() else None)
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such file; restore it") from None
    except (OSError, rasterio.errors.RasterioError) as error:
        raise UnreadableFileError(
            f"{path}: corrupt or truncated image ({reason_of(error.__cause__ or error, 100)}); replace or remove the "
            "file"
        ) from None


@contextmanager
def _dataset(rasterio: Any, path: Path | Encoded) -> Iterator[Any]:
    """rasterio's dataset of a TIFF. No other format is tried: some of them name further files, or hosts."""
    source: Any = io.BytesIO(path.content) if isinstance(path, Encoded) else str(path.absolute())
    if isinstance(source, str):
        try:
            source.encode()
            if ":" in source:
                raise ValueError  # rasterio would take what is before it for a protocol
        except ValueError:
            source = io.BytesIO(Path(str(path)).read_bytes())
    # Without listing the folder, which may hold many files, for each file.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"), rasterio.open(source, driver="GTiff") as dataset:
        yield dataset


def _opened_array(path: Path | Encoded, max_pixels: int) -> _Opened:
    """An array (H, W) or (H, W, C); that of a file is mapped into memory."""
    values = load_array(path, "[height,width,bands]")
    planes = values[..., None] if values.ndim == 2 else values
    size = planes.shape[0], planes.shape[1]
    check_pixels(path, size, max_pixels)
    return _Opened(
        Contents(planes.shape[2], size, values.dtype.name), lambda number: (np.array(planes[..., number]), None)
    )


def _numbers(path: Path | Encoded, bands: Bands, count: int) -> Sequence[int]:
    """The numbers of the bands to read, of a file with so many.

    Raises:
        SemipixError: the file has not enough bands or, if all are to be read, another number than expected.
    """
    if bands.chosen is None:
        if bands.mean is not None and len(bands.mean) != count:
            raise SemipixError(
                f"{path}: holds {count} bands; expected {len(bands.mean)}, as the first training images have; name the "
                "bands to read in data.bands=[0,...], or remove the image"
            )
        if bands.limits is not None and len(bands.limits) not in (1, count):
            raise SemipixError(
                f"{path}: holds {count} bands; expected {len(bands.limits)}, as data.range has pairs; give one pair "
                "for each band, or name the bands in data.bands=[0,...]"
            )
        return range(count)
    if max(bands.chosen) >= count:
        raise SemipixError(
            f"{path}: holds {count} bands, numbered from 0; expected band {max(bands.chosen)} of "
            f"data.bands={list(bands.chosen)}; name bands that all images have"
        )
    return bands.chosen


def _check_memory(path: Path | Encoded, count: int, size: Size, max_pixels: int) -> None:
    if count * size[0] * size[1] > VALUES_OF_A_PIXEL * max_pixels:
        raise UnreadableFileError(
            f"{path}: {count} bands of {size[1]}x{size[0]} pixels, more than {VALUES_OF_A_PIXEL} numbers for each "
            f"pixel of data.max_pixels={max_pixels}; raise data.max_pixels to read it, or choose fewer bands"
        )


def _limits(path: Path | Encoded, bands: Bands, file: _Opened, numbers: Sequence[int]) -> list[tuple[float, float]]:
    """The range of each band.

    Raises:
        SemipixError: none is stated, and that of the type is not usual.
    """
    if bands.limits is not None:
        return list(bands.limits) * (len(numbers) if len(bands.limits) == 1 else 1)
    dtype = file.contents.dtype
    if dtype in ("uint8", "uint16") and file.depth is not None:
        return [(0, 2**file.depth - 1)] * len(numbers)
    if dtype in _RANGES:
        return [_RANGES[dtype]] * len(numbers)
    low, high = np.inf, -np.inf
    for number in numbers:
        stored, missing = file.band(number)
        known = stored[np.isfinite(stored) if missing is None else np.isfinite(stored) & ~missing]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    found = f"from {low:g} to {high:g}" if low <= high else "of which none is known"
    raise SemipixError(
        f"{path}: found {dtype} numbers {found}; expected data.range=[low,high] for numbers of this type, those that "
        "become 0 and 1"
    )


def _mark(values: NDArray[Any], stored: NDArray[Any], missing: NDArray[np.bool_] | None) -> None:
    """Set the values to NaN whose stored numbers are missing."""
    if missing is not None:
        values[missing] = np.nan
    if stored.dtype.kind == "f":
        values[~np.isfinite(stored)] = np.nan
