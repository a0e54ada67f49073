"""Read masks: files of class indices."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from semipix.batch import VOID
from semipix.data.files import file_headers as headers
from semipix.data.files.decode import stored_numbers
from semipix.data.files.file_headers import webp_is_lossy
from semipix.data.files.opening import MAX_PIXELS, OpenedImage, open_image
from semipix.errors import SemipixError

GREY_PALETTE = "grey palette"
"""Kind of a GIF whose palette is grey, which is read by its grey values."""

_LARGEST = 65535


class MaskFile(NamedTuple):
    """The stored values of a mask, turned upright by its own orientation tag.

    Args:
        values: (H, W) uint8 or int32.
        palette: red, green and blue, 0 to 255, of each index that occurs; None if the mask has no palette.
        orientation: the file's own tag, 1 to 8.
        kind: what the values are in the file, such as "1-bit" or "grey".
        nodata: the number that a TIFF says is no value, if it occurs and became void; otherwise None.
    """

    values: Tensor
    palette: dict[int, tuple[int, int, int]] | None
    orientation: int
    kind: str = "grey"
    nodata: int | None = None


def read_indices(path: Path, stated: Collection[int] = (), *, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Read a mask of class indices: grey of up to 16 bits, the indices of a palette, or 1 bit a pixel.

    Args:
        path: see `read_mask_file`.
        stated: see `read_mask_file`.
        max_pixels: see `read_mask_file`.

    Returns:
        (H, W) uint8 or int32, the values as they are stored; 255 for the file's own nodata.

    Raises:
        SemipixError: see `read_mask_file`.
    """
    return read_mask_file(path, stated, max_pixels=max_pixels).values


def read_mask_file(path: Path, stated: Collection[int] = (), *, max_pixels: int = MAX_PIXELS) -> MaskFile:
    """Read a mask with the colours of its palette.

    Args:
        path: the mask's file. It is turned upright by its own orientation. Only the first of several pages or frames is
            read. Grey of 2 and 4 bits keeps its stored numbers; with 1 bit, white is 1. A GIF whose palette is all
            grey is read as a grey mask, since the format cannot store grey. The nodata that GDAL wrote into a TIFF
            becomes 255, void.
        stated: values that have a class of their own by `data.mask_values`, even if one is the file's nodata.
        max_pixels: the `data.max_pixels` setting; a larger mask is refused before it is decoded.

    Raises:
        SemipixError: the file is missing, no image, corrupt, truncated or too large; its format is lossy; or it holds
            colours or floats instead of indices, or grey whose 0 is white.
    """
    with open_image(path, max_pixels) as file:
        refuse_lossy(file)
        mode = file.image.mode
        if mode == "F":
            raise SemipixError(
                f"{path}: found a mask of floats, expected class indices; save it as 8-bit grey with one whole "
                "number a pixel (255 = void)"
            )
        if mode not in ("1", "L", "P", "I") and not mode.startswith("I;16"):
            raise SemipixError(
                f"{path}: found a mask of colours (mode {mode}), expected class indices; "
                "save it as 8-bit grey or palette with one index a pixel (255 = void), or set data.colours=true if "
                "each colour is a class of classes.txt"
            )
        numbers, palette = stored_numbers(file)
        numbers = file.to_upright(numbers)
        values = np.array(numbers, np.uint8 if numbers.dtype in (np.uint8, np.bool_) else np.int32, order="C")
        nodata = headers.tiff_nodata(file.tags) if file.tags is not None else None
        gone = np.False_ if nodata is None or nodata in (VOID, *stated) else numbers == nodata
        if gone.any():
            if VOID in stated:
                raise SemipixError(
                    f"{path}: {nodata:g} is the file's nodata, which becomes 255 (void), but data.mask_values names "
                    f"255; expected both there, add {nodata:g}:255 if it is void"
                )
            values[gone] = VOID
        if values.min() < 0 or values.max() > _LARGEST:
            raise SemipixError(
                f"{path}: found mask values from {values.min()} to {values.max()}, expected class indices from 0 to "
                f"{_LARGEST}"
            )
        grey = GREY_PALETTE if file.image.format == "GIF" else "grey"
        kind = "1-bit" if mode == "1" else "palette" if palette is not None else grey
        return MaskFile(
            torch.from_numpy(values),
            palette,
            file.orientation,
            kind,
            int(nodata) if nodata is not None and gone.any() else None,
        )


def refuse_lossy(file: OpenedImage) -> None:
    """Check that the format of a mask keeps its values.

    Raises:
        SemipixError: the format is lossy.
    """
    if kind := _lossy_kind(file):
        raise SemipixError(
            f"{file.path}: a mask stored as {kind}, a lossy format in which class values change; expected PNG, or "
            "another lossless format; save it again from the original annotation"
        )


def _lossy_kind(file: OpenedImage) -> str:
    """The name of the lossy format of a file; empty if the format is lossless."""
    image = file.image
    if image.format in ("JPEG", "MPO"):
        return "JPEG"
    if image.format == "TIFF" and image.info.get("compression") in ("jpeg", "tiff_jpeg"):
        return "TIFF with JPEG compression"
    if image.format == "WEBP":
        file.file.seek(0)
        return "lossy WebP" if webp_is_lossy(file.file.read()) else ""
    return ""
