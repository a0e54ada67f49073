"""Whether a file that Pillow decoded without an error holds all of its pixels.

Where the packed pixels of a file end too early but properly, Pillow leaves the rest of the image black, and libjpeg
fills it with grey. What is looked at first costs nothing; only an image whose end looks like that is looked at again.
"""

import io
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semipix.data.file_headers import Tags, jpeg_scan, png_rows, tiff_missing

_FILLED_BY_LIBJPEG = {127, 128}
_PADDING = bytes(37 * index % 251 for index in range(4096))
"""Bytes that a decoder of JPEG takes for pixels where some are missing, and skips where none are."""


def missing(image: Image.Image, file: IO[bytes], tags: Tags | None, box: tuple[int, int, int, int] | None) -> str:
    """What an image that was loaded holds of what it should hold, such as "5 of 20 rows"; empty where it holds all.

    Args:
        image: the loaded image.
        file: its file.
        tags: of a TIFF.
        box: left, top, right and bottom of what the file's pixels cover.
    """
    if tags is not None:
        return tiff_missing(tags)
    if image.format == "PNG" and _has_empty_row(np.asarray(_last_rows(image, None)), 0):
        held, expected = png_rows(file)
        return f"{held} of {expected} rows" if held < expected else ""
    if image.format == "GIF":
        return _missing_of_gif(image, file, box)
    if image.format in ("JPEG", "MPO") and _ends_filled(image):
        return _missing_of_jpeg(file)
    return ""


def _last_rows(image: Image.Image, box: tuple[int, int, int, int] | None) -> Image.Image:
    left, top, right, bottom = box or (0, 0, *image.size)
    return image.crop((left, max(top, bottom - 2), right, bottom))


def _has_empty_row(rows: NDArray[Any], value: int) -> bool:
    """Whether one of the rows holds nothing else; a single one may be from an interlaced file, so it is looked at."""
    return len(rows) < 2 or bool((rows.reshape(len(rows), -1) == value).all(1).any())


def _missing_of_gif(image: Image.Image, file: IO[bytes], box: tuple[int, int, int, int] | None) -> str:
    background = image.info.get("transparency", 0)
    if not _has_empty_row(np.asarray(_last_rows(image, box)), background):
        return ""
    # Decoded into memory that holds another value, a pixel that is not in the file differs.
    file.seek(0)
    again: Any = Image.open(file)
    again._frame_transparency = None
    again.im = Image.new(image.mode, image.size, (background + 1) % 256).im
    first, second = (np.asarray(picture.crop(box)) for picture in (image, again))
    held = int((first == second).all(1).sum())
    return f"{held} of {len(first)} rows" if held < len(first) else ""


def _ends_filled(image: Image.Image) -> bool:
    last = image.getpixel((image.width - 1, image.height - 1))
    return {int(value) for value in (last if isinstance(last, tuple) else (last or 0,))} <= _FILLED_BY_LIBJPEG


def _missing_of_jpeg(file: IO[bytes]) -> str:
    file.seek(0)
    content = file.read()
    scan = jpeg_scan(content)
    if scan is None:
        return ""
    end = scan[1]
    first = np.asarray(Image.open(io.BytesIO(content)))
    second = np.asarray(Image.open(io.BytesIO(content[:end] + _PADDING + content[end:])))
    if np.array_equal(first, second):
        return ""
    filled = np.isin(first.reshape(len(first), -1), list(_FILLED_BY_LIBJPEG))
    held = np.flatnonzero(~filled.all(axis=1))
    return f"{held[-1] + 1 if len(held) else 0} of {len(first)} rows"
