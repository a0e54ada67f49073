"""The reader of images and masks: keeps bytes as bytes, decodes at a reduced scale, and uses a cache."""

import hashlib
from collections.abc import Callable, Collection
from pathlib import Path

import torch
from torch import Tensor
from torchvision import tv_tensors

from semipix.data.files.bands import BandImage, Bands
from semipix.data.files.cache import Cache
from semipix.data.files.decode import Header, read_header, read_pixels, unit_range
from semipix.data.files.decode_colours import ColourTable, read_colour_mask
from semipix.data.files.decode_masks import read_indices
from semipix.data.files.opening import MAX_PIXELS, Encoded
from semipix.data.files.rasters import bands_header, read_bands
from semipix.data.files.sizes import Size

_VERSION = 3
"""Version of the cached entries; entries of other versions are not found."""


class Reader:
    """Reads images and masks in the data type of their file.

    Args:
        resize: the `data.resize` setting; large images may already be shrunk by it (`read_pixels`).
        cache: keeps decoded images; a file whose length or time of change differs is decoded again.
        reduced: whether large images may be decoded at a reduced scale. False if targets are images too: inputs and
            targets are then decoded whole and resized in the same way.
        max_pixels: the `data.max_pixels` setting.
        bands: the bands that images have; None for colours.
    """

    def __init__(
        self,
        resize: int | Size | None = None,
        cache: Cache | None = None,
        reduced: bool = True,
        max_pixels: int = MAX_PIXELS,
        bands: Bands | None = None,
    ) -> None:
        self.resize = resize
        self.cache = cache
        self.reduced = reduced
        self.max_pixels = max_pixels
        self.bands = bands

    def image(self, path: Path | Encoded, *, whole: bool = False) -> Tensor:
        """An image, (3, H, W) uint8 or float32 in [0, 1]; of bands, (C, H, W) float32 with NaN for missing values.

        Args:
            path: its file.
            whole: whether to read it at its own size even if `resize` is set; images of bands always are.

        Raises:
            SemipixError: see `read_image` and `read_bands`.
        """
        if (bands := self.bands) is not None:
            return self._cached(path, f"bands {bands.identity}", lambda: read_bands(path, bands, self.max_pixels))
        resize = self.resize if self.reduced and not whole else None
        pixels = self._cached(
            path,
            f"image {resize}",
            lambda: read_pixels(path, resize, max_pixels=self.max_pixels).permute(1, 2, 0),
        )
        return pixels.permute(2, 0, 1)

    def tensor(self, path: Path | Encoded) -> tv_tensors.Image:
        """An image as `image` returns it, with the type by which transforms know whether it has bands or colours.

        Raises:
            SemipixError: see `image`.
        """
        return self.wrap(self.image(path))

    def wrap(self, pixels: Tensor) -> tv_tensors.Image:
        """Pixels (C, H, W) that `image` returned, with the type that `tensor` gives them."""
        return tv_tensors.Image(pixels) if self.bands is None else BandImage(pixels)

    def header(self, path: Path | Encoded) -> Header:
        """The header of an image as `image` returns it.

        Raises:
            SemipixError: see `read_header` and `bands_header`.
        """
        if self.bands is not None:
            return bands_header(path, self.max_pixels)
        return read_header(path, max_pixels=self.max_pixels)

    def whole(self, path: Path | Encoded) -> Tensor:
        """An image at its own size, (3, H, W) float32 in [0, 1].

        Raises:
            SemipixError: see `read_image`.
        """
        return unit_range(self.image(path, whole=True).contiguous())  # copies bytes instead of floats

    def mask(self, path: Path, stated: Collection[int] = ()) -> Tensor:
        """The stored values of a mask, (H, W) uint8 or int32.

        Args:
            path: its file.
            stated: see `read_mask_file`.

        Raises:
            SemipixError: see `read_mask_file`.
        """
        what = f"mask {sorted(stated)}"
        return self._cached(path, what, lambda: read_indices(path, stated, max_pixels=self.max_pixels))

    def colour_mask(self, path: Path, table: ColourTable) -> Tensor:
        """The class indices of a mask of colours, (H, W) uint8.

        Raises:
            SemipixError: see `read_colour_mask`.
        """
        what = f"colours {table.identity}"
        return self._cached(path, what, lambda: read_colour_mask(path, table, max_pixels=self.max_pixels).values)

    def _cached(self, path: Path | Encoded, what: str, read: Callable[[], Tensor]) -> Tensor:
        """The cached array of a file; if there is none, the file is read and cached."""
        if self.cache is None or isinstance(path, Encoded):
            return read()
        try:
            state = path.stat()
        except OSError:
            return read()  # raises the error of the file
        identity = f"{_VERSION}/{what}/{self.max_pixels}/{state.st_mtime_ns}/{state.st_size}/{path.absolute()}"
        key = hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).digest()
        found = self.cache.get(key)
        if found is not None:
            return torch.from_numpy(found)
        values = read()
        self.cache.put(key, values.numpy())
        return values
