"""How sources read their files in training: as bytes, at reduced scale, and from a cache."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from semipix.data.files.cache import Cache
from semipix.data.files.decode import read_pixels, unit_range
from semipix.data.files.decode_masks import read_indices
from semipix.data.files.opening import MAX_PIXELS, Encoded
from semipix.data.files.sizes import Size

_VERSION = 2
"""Of what is cached; entries of another version are not found."""


class Reader:
    """Reads images and masks in the form they are stored in.

    Args:
        resize: the `data.resize` setting, which images may be shrunk by already (`read_pixels`).
        cache: keeps what was decoded; a file that has changed in length or time is read again.
        reduced: whether large images may be decoded at reduced scale. Where targets are images too, both sides are
            resized alike after a whole decode.
        max_pixels: the `data.max_pixels` setting.
    """

    def __init__(
        self,
        resize: int | Size | None = None,
        cache: Cache | None = None,
        reduced: bool = True,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.resize = resize
        self.cache = cache
        self.reduced = reduced
        self.max_pixels = max_pixels

    def image(self, path: Path | Encoded, *, whole: bool = False) -> Tensor:
        """An image, (3, H, W) uint8 or float32 in [0, 1].

        Args:
            path: its file.
            whole: whether to read it at its own size.

        Raises:
            SemipixError: it cannot be read.
        """
        resize = self.resize if self.reduced and not whole else None
        pixels = self._cached(
            path,
            f"image {resize}",
            lambda: read_pixels(path, resize, max_pixels=self.max_pixels).permute(1, 2, 0),
        )
        return pixels.permute(2, 0, 1)

    def whole(self, path: Path | Encoded) -> Tensor:
        """An image at its own size, (3, H, W) float32 in [0, 1].

        Raises:
            SemipixError: it cannot be read.
        """
        return unit_range(self.image(path, whole=True).contiguous())  # bytes are copied, not floats

    def mask(self, path: Path) -> Tensor:
        """A mask's values as they are stored, (H, W) uint8 or int32.

        Raises:
            SemipixError: it cannot be read.
        """
        return self._cached(path, "mask", lambda: read_indices(path, max_pixels=self.max_pixels))

    def _cached(self, path: Path | Encoded, what: str, read: Callable[[], Tensor]) -> Tensor:
        """What the cache holds of a file, or what is read and, where there is room, cached."""
        if self.cache is None or isinstance(path, Encoded):
            return read()
        try:
            state = path.stat()
        except OSError:
            return read()  # which tells what is wrong
        identity = f"{_VERSION}/{what}/{self.max_pixels}/{state.st_mtime_ns}/{state.st_size}/{path.absolute()}"
        key = hashlib.blake2b(identity.encode(errors="surrogateescape"), digest_size=16).digest()
        found = self.cache.get(key)
        if found is not None:
            return torch.from_numpy(found)
        values = read()
        self.cache.put(key, values.numpy())
        return values
