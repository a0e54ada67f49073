"""Find files that Pillow decodes without an error although pixels are missing.

If the compressed data of a file end too early, but correctly, Pillow leaves the rest of the image black, and libjpeg
fills it with grey. A quick test looks at the end of the image; only if it is black or grey, the file is examined.
"""

import io
from typing import IO

import numpy as np
from PIL import Image

from semipix.data.files.file_headers import Tags, jpeg_scan, png_rows, tiff_missing

_FILLED_BY_LIBJPEG = {127, 128}
"""Values with which libjpeg fills missing pixels."""

_ROWS = 64
"""Rows that are compared at a time."""

_PADDING = bytes(37 * index % 251 for index in range(4096))
"""Bytes to insert before the end of a JPEG: they are decoded as pixels if some are missing, and skipped otherwise."""


def missing_part(image: Image.Image, file: IO[bytes], tags: Tags | None) -> str:
    """How much of an image its file contains, such as "5 of 20 rows"; empty if it contains all.

    For BMP, GIF and WebP Pillow itself raises an error if pixels are missing.

    Args:
        image: the loaded image.
        file: its file.
        tags: the tags of a TIFF; None for other formats.
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
    """Whether one of the last two rows is black.

    The last pass of an interlaced PNG fills every second row, so both are tested. An image of one row always counts as
    suspicious, since all passes share its row.
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
    for top in range(0, first.height, _ROWS):  # some rows at a time, to take less memory than decoding
        box = (0, top, first.width, min(top + _ROWS, first.height))
        rows = np.asarray(first.crop(box))
        same = same and np.array_equal(rows, np.asarray(second.crop(box)))
        filled = np.isin(rows.reshape(len(rows), -1), list(_FILLED_BY_LIBJPEG)).all(axis=1)
        held = max([held, *(top + 1 + np.flatnonzero(~filled)).tolist()])
    return "" if same else f"{held} of {first.height} rows"
