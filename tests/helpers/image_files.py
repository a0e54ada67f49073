"""Image files written byte by byte, of kinds that Pillow cannot write."""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row, and steps, of the passes of an interlaced PNG."""


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(header: Sequence[int], raw: bytes, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of width, height, bits, colour type, and interlacing, with chunks before and after its pixels."""
    width, height, bits, kind, interlaced = header
    data = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, interlaced)
    packed = zlib.compress(raw)
    middle = len(packed) // 2
    pixels = chunk(b"IDAT", packed[:middle]) + chunk(b"IDAT", packed[middle:])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", data) + before + pixels + after + chunk(b"IEND", b"")


def packed(values: NDArray[Any], depth: int, order: str = ">") -> list[bytes]:
    """The rows of numbers (H, W) or (H, W, C), packed with `depth` bits for each number."""
    flat = values.reshape(len(values), -1)
    if depth % 8 == 0:
        return [row.astype(f"{order}u{depth // 8}").tobytes() for row in flat]
    digits = (flat[..., None] >> np.arange(depth)[::-1]) & 1  # the first bit is the highest
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in digits.reshape(len(flat), -1)]


def grey_png(values: NDArray[Any], depth: int) -> bytes:
    """A grey PNG."""
    rows = b"".join(b"\0" + row for row in packed(values, depth))
    return png((values.shape[1], values.shape[0], depth, 0, 0), rows)


def tiff(
    values: NDArray[Any],
    depth: int = 8,
    tags: Mapping[int, int | Sequence[int] | None] | None = None,
    order: str = "<",
    big: bool = False,
    compressed: bool = False,
    rows_per_strip: int = 0,
    pages: int = 1,
) -> bytes:
    """A TIFF of values (H, W) or (H, W, C), classic or BigTIFF, of either byte order.

    `tags` replaces tags; one that is None is left out.
    """
    height, width = values.shape[:2]
    bands = values[0, 0].size
    step = rows_per_strip or height
    rows = packed(values, depth, order)
    strips = [b"".join(rows[top : top + step]) for top in range(0, height, step)]
    strips = [zlib.compress(strip) for strip in strips] if compressed else strips
    start = 16 if big else 8
    offsets = [start + sum(map(len, strips[:index])) for index in range(len(strips))]
    known: dict[int, int | Sequence[int] | None] = {
        256: width,
        257: height,
        258: [depth] * bands,
        259: 8 if compressed else 1,
        262: 2 if bands >= 3 else 1,
        273: offsets,
        277: bands,
        278: step,
        279: [len(strip) for strip in strips],
        **(tags or {}),
    }
    content = {tag: numbers for tag, numbers in known.items() if numbers is not None}
    data = b"".join(strips)
    pointer, counter, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    inline = struct.calcsize(pointer)
    first = start + len(data)
    for page in range(pages):
        place = start + len(data)
        table, more = struct.pack(order + counter, len(content)), b""
        length = len(table) + len(content) * (struct.calcsize(order + entry) + inline) + inline
        for tag in sorted(content):
            numbers = content[tag]
            numbers = [numbers] if isinstance(numbers, int) else numbers
            field = struct.pack(f"{order}{len(numbers)}I", *numbers)
            if len(field) > inline:
                field, more = struct.pack(order + pointer, place + length + len(more)), more + field
            table += struct.pack(order + entry, tag, 4, len(numbers)) + field.ljust(inline, b"\0")
        following = 0 if page == pages - 1 else place + length + len(more)
        data += table + struct.pack(order + pointer, following) + more
    mark = b"II" if order == "<" else b"MM"
    head = struct.pack(order + "HHHQ", 43, 8, 0, first) if big else struct.pack(order + "HI", 42, first)
    return mark + head + data


def gif(values: NDArray[Any], colours: Sequence[tuple[int, int, int]], rows: int | None = None) -> bytes:
    """A GIF of at most 128 colours that ends correctly after some rows."""
    height, width = values.shape
    palette = bytes(part for colour in colours for part in colour).ljust(3 * 128, b"\0")
    codes = [128]
    for index, value in enumerate(values[:rows].ravel().tolist()):
        codes += [128, value] if index % 100 == 99 else [value]  # cleared before codes grow to 9 bits
    data = bytes([*codes, 129])
    blocks = b"".join(bytes([len(part)]) + part for part in (data[at : at + 255] for at in range(0, len(data), 255)))
    screen = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | 6, 0, 0) + palette
    return screen + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\7" + blocks + b"\0;"
