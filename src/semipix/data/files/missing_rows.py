"""Whether a file that Pillow decoded without an error holds all of its pixels.

Where the packed pixels of a file end too early but properly, Pillow leaves the rest of the image black, and libjpeg
fills it with grey. What is looked at first costs nothing; only an image whose end looks like that is looked at again.
"""

import io
from typing import IO

import numpy as np
from PIL import Image

from semipix.data.files.file_headers import Tags, jpeg_scan, png_rows, tiff_missing

_FILLED_BY_LIBJPEG = {127, 128}

_ROWS = 64
"""That are compared at a time."""

_PADDING = bytes(37 * index % 251 for index in range(4096))
"""Bytes that a decoder of JPEG takes for pixels where some are missing, and skips where none are."""


def missing_part(image: Image.Image, file: IO[bytes], tags: Tags | None) -> str:
    """What an image that was loaded holds of what it should hold, such as "5 of 20 rows"; empty where it holds all.

    Of BMP, GIF and WebP Pillow itself says that pixels are missing.

    Args:
        image: the loaded image.
        file: its file.
        tags: of a TIFF.
    """
    if tags is not None:
        return tiff_missing(tags)
    if image.format == "PNG" and _has_empty_row(image):
        held, expected = png_rows(file)
        return f"{held} of {expected} rows" if held < expected else ""
    if image.format in ("JPEG", "MPO") and _ends_filled(image):
        return _missing_of_jpeg(file)
    return ""


def _has_empty_row(image: Image.Image) -> bool:
    """Whether one of the last two rows is black; both are looked at since the last pass of an interlaced file has one.

    A single row, which all passes share, may always lack some of them.
    """
    rows = np.asarray(image.crop((0, max(0, image.height - 2), *image.size)))
    return len(rows) < 2 or not rows.reshape(2, -1).any(axis=1).all()


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
    first = Image.open(io.BytesIO(content))
    second = Image.open(io.BytesIO(content[:end] + _PADDING + content[end:]))
    same, held = True, 0
    for top in range(0, first.height, _ROWS):  # arrays of the whole images would take more memory than reading does
        box = (0, top, first.width, min(top + _ROWS, first.height))
        rows = np.asarray(first.crop(box))
        same = same and np.array_equal(rows, np.asarray(second.crop(box)))
        filled = np.isin(rows.reshape(len(rows), -1), list(_FILLED_BY_LIBJPEG)).all(axis=1)
        held = max([held, *(top + 1 + np.flatnonzero(~filled)).tolist()])
    return "" if same else f"{held} of {first.height} rows"
