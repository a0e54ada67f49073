"""Arrays that are written and read a few rows at a time; those of huge images are kept in temporary files."""

import math
import struct
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IN_MEMORY = 2**28
"""Most bytes of an array that is kept in memory."""

BLOCK = 2**24
"""Bytes of rows that are read from a file at a time."""

PNG_COMPRESSION = 1
"""Level of compression; Pillow's default of 6 makes smaller files but takes more time."""


class RowArray:
    """An array (H, ...) whose rows are added from the top.

    Args:
        shape: of the whole array.
        dtype: of its values, a type of NumPy.
        folder: gets the temporary file of an array of more than `IN_MEMORY` bytes. The file has no name where the
            system allows it, so that it is gone when the process ends in any way. Without a folder the array is in
            memory.

    Attributes:
        shape: of the whole array.
        nbytes: bytes of memory that the array takes.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, folder: Path | None) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        self._filled = 0
        self._array: NDArray[Any] | None = None
        self._file: IO[bytes] | None = None
        if folder is not None and shape[0] * self._row_bytes > IN_MEMORY:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        else:
            self._array = np.empty(shape, self.dtype)

    @property
    def nbytes(self) -> int:
        return 0 if self._array is None else self._array.nbytes

    def add(self, rows: Tensor) -> None:
        """Add the next rows.

        Raises:
            OSError: the disk of the temporary file is full.
        """
        values = rows.cpu().numpy().astype(self.dtype, copy=False)
        if self._array is not None:
            self._array[self._filled : self._filled + len(values)] = values
        elif self._file is not None:
            self._file.seek(self._filled * self._row_bytes)
            self._file.write(np.ascontiguousarray(values).data)
        self._filled += len(values)

    def read(self, rows: slice) -> Tensor:
        """Some of the rows that were added."""
        if self._array is not None:
            return torch.from_numpy(self._array[rows])
        assert self._file is not None
        self._file.seek(rows.start * self._row_bytes)
        content = bytearray(self._file.read((rows.stop - rows.start) * self._row_bytes))
        values = np.frombuffer(content, self.dtype)
        return torch.from_numpy(values.reshape(rows.stop - rows.start, *self.shape[1:]))

    def whole(self) -> Tensor:
        """All rows, in memory."""
        return self.read(slice(0, self.shape[0]))

    def blocks(self) -> Iterator[Tensor]:
        """All rows in parts, from the top."""
        step = max(1, BLOCK // self._row_bytes)
        for top in range(0, self.shape[0], step):
            yield self.read(slice(top, min(top + step, self.shape[0])))

    def save(self, file: IO[bytes], channel: int | None = None) -> None:
        """Write the array (H, W) or (H, W, 3), uint8 or uint16, as a PNG file.

        Args:
            file: where to.
            channel: write only this channel of an array (H, W, C).

        Raises:
            OSError: the file cannot be written.
        """
        shape, part = (self.shape, ...) if channel is None else (self.shape[:2], (..., channel))
        if self._array is not None:
            Image.fromarray(self._array[part]).save(file, format="PNG", compress_level=PNG_COMPRESSION)
        else:
            write_png(file, shape, self.dtype.itemsize, (block[part] for block in self.blocks()))

    def close(self) -> None:
        """Remove the temporary file."""
        if self._file is not None:
            self._file.close()


def write_png(file: IO[bytes], shape: tuple[int, ...], depth: int, blocks: Iterator[Tensor]) -> None:
    """Write a PNG file without having all of its pixels in memory, which Pillow needs.

    Each row is stored as its difference to the row above (filter type 2 of the PNG specification, Section 9).

    Args:
        file: where to.
        shape: (H, W), or (H, W, 3) for colours.
        depth: bytes of a value, 1 or 2.
        blocks: all rows in parts, from the top, uint8 or uint16.

    Raises:
        OSError: the file cannot be written.
    """
    file.write(b"\x89PNG\r\n\x1a\n")
    colours = 2 if len(shape) == 3 else 0
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", shape[1], shape[0], 8 * depth, colours, 0, 0, 0))
    compressor = zlib.compressobj(PNG_COMPRESSION)
    above = np.zeros((1, math.prod(shape[1:]) * depth), np.uint8)
    for block in blocks:
        values = block.numpy()
        values = values.astype(values.dtype.newbyteorder(">"), copy=False)
        values = np.ascontiguousarray(values).view(np.uint8).reshape(len(values), -1)
        difference = values - np.concatenate([above, values[:-1]])  # modulo 256
        above = values[-1:]
        filtered = np.concatenate([np.full((len(values), 1), 2, np.uint8), difference], axis=1)
        if part := compressor.compress(filtered.tobytes()):
            _write_chunk(file, b"IDAT", part)
    _write_chunk(file, b"IDAT", compressor.flush())
    _write_chunk(file, b"IEND", b"")


def _write_chunk(file: IO[bytes], kind: bytes, content: bytes) -> None:
    file.write(struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content)))
