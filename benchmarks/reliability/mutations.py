"""Image files of every kind that semipix reads, and the ways in which they are damaged."""

import gzip
import io
import random
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 37, 29
ORIENTATION = 274

Effect = Literal["none", "truncated", "damaged", "refused"]
"""What damage may do: nothing to the pixels; leave a part of the file; anything; or it has to be refused."""

HUGE = ((60_000, 50_000), (65_535, 65_535), (2**31 - 1, 1), (2**31 - 1, 2**31 - 1), (13_000, 13_000), (1, 2**30))


class Base(NamedTuple):
    """An intact file.

    Attributes:
        name: what it is.
        suffix: its extension.
        content: its bytes.
        values: the numbers of a mask (H, W), or the exact colours of an image (H, W, 3) in [0, 1] where Pillow gives
            only a part of their bits; otherwise None.
        mask: whether it is a mask.
        deep: whether Pillow gives only the high byte of its colours.
    """

    name: str
    suffix: str
    content: bytes
    values: NDArray[Any] | None = None
    mask: bool = False
    deep: bool = False


class Mutant(NamedTuple):
    """A damaged file."""

    content: bytes
    suffix: str
    effect: Effect


def saved(pixels: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits a colour, which Pillow does not write."""
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + row.astype(">u2").tobytes() for row in values))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def tiled_tiff(values: NDArray[np.uint8], side: int = 16, packed: bool = False) -> bytes:
    """A grey TIFF in tiles, which Pillow does not write."""
    height, width = values.shape
    padded = np.pad(values, ((0, -height % side), (0, -width % side)))
    tiles = [
        padded[y : y + side, x : x + side].tobytes()
        for y in range(0, padded.shape[0], side)
        for x in range(0, padded.shape[1], side)
    ]
    tiles = [zlib.compress(tile) for tile in tiles] if packed else tiles
    count = len(tiles)
    tags = [
        (256, width),
        (257, height),
        (258, 8),
        (259, 8 if packed else 1),
        (262, 1),
        (277, 1),
        (322, side),
        (323, side),
    ]
    offsets_at = 8 + 2 + 12 * (len(tags) + 2) + 4
    data_at = offsets_at + 8 * count
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in tags)
    entries += struct.pack("<HHII", 324, 4, count, offsets_at) + struct.pack(
        "<HHII", 325, 4, count, offsets_at + 4 * count
    )
    lengths = [len(tile) for tile in tiles]
    offsets = [data_at + sum(lengths[:index]) for index in range(count)]
    numbers = struct.pack(f"<{2 * count}I", *offsets, *lengths)
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 2) + entries + struct.pack("<I", 0) + numbers + b"".join(tiles)


@cache
def bases() -> tuple[Base, ...]:
    """An intact file of every kind."""
    draw = np.random.default_rng(0)
    colour = draw.integers(1, 256, (HEIGHT, WIDTH, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(colour[:5, :6]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    alpha = draw.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8)
    grey = draw.integers(1, 256, (HEIGHT, WIDTH), np.uint8)
    deep = draw.integers(1, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    deep_colour = draw.integers(1, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    labels = draw.integers(0, 5, (HEIGHT, WIDTH), np.uint8)
    palette = Image.fromarray(colour).quantize(32)
    indexed = Image.fromarray(labels, "L").convert("P")
    indexed.putdata(labels.ravel().tolist())
    indexed.putpalette([20, 30, 40, 200, 10, 10, 10, 200, 10, 10, 10, 200, 90, 90, 0])
    frames = [Image.fromarray(np.roll(colour, shift, 1)) for shift in (0, 5, 9)]
    turned = Image.Exif()
    turned[ORIENTATION] = 6
    bits = Image.fromarray((labels > 2).astype(np.uint8) * 255).convert("1")
    images = [
        ("png", "png", saved(colour, "PNG")),
        ("png turned", "png", saved(colour, "PNG", exif=turned)),
        ("png with alpha", "png", saved(np.concatenate([colour, alpha], -1), "PNG")),
        ("png grey", "png", saved(grey, "PNG")),
        ("png grey with alpha", "png", saved(Image.fromarray(grey).convert("LA"), "PNG")),
        ("png palette", "png", saved(palette, "PNG")),
        ("png palette with transparency", "png", saved(palette, "PNG", transparency=3)),
        ("png 16-bit grey", "png", saved(deep, "PNG")),
        ("png 1-bit", "png", saved(bits, "PNG")),
        ("jpeg", "jpg", saved(smooth, "JPEG", quality=90)),
        ("jpeg turned", "jpg", saved(smooth, "JPEG", quality=90, exif=turned)),
        ("jpeg progressive", "jpeg", saved(smooth, "JPEG", progressive=True)),
        ("jpeg grey", "jpg", saved(grey, "JPEG")),
        ("jpeg cmyk", "jpg", saved(Image.fromarray(smooth).convert("CMYK"), "JPEG")),
        ("webp", "webp", saved(smooth, "WEBP")),
        ("webp lossless", "webp", saved(colour, "WEBP", lossless=True)),
        ("webp turned", "webp", saved(colour, "WEBP", lossless=True, exif=turned)),
        ("webp animated", "webp", saved(frames[0], "WEBP", lossless=True, save_all=True, append_images=frames[1:])),
        ("bmp", "bmp", saved(colour, "BMP")),
        ("bmp palette", "bmp", saved(palette, "BMP")),
        ("bmp 1-bit", "bmp", saved(bits, "BMP")),
        ("tiff", "tif", saved(colour, "TIFF")),
        ("tiff turned", "tif", saved(colour, "TIFF", exif=turned)),
        ("tiff lzw in strips", "tiff", saved(colour, "TIFF", compression="tiff_lzw", tiffinfo={278: 4})),
        ("tiff deflate", "tif", saved(colour, "TIFF", compression="tiff_adobe_deflate")),
        ("tiff packbits", "tif", saved(grey, "TIFF", compression="packbits")),
        ("tiff jpeg", "tif", saved(smooth, "TIFF", compression="jpeg")),
        ("tiff 16-bit grey", "tif", saved(deep, "TIFF")),
        ("tiff float", "tif", saved(grey.astype(np.float32) / 256, "TIFF")),
        ("tiff of pages", "tif", saved(frames[0], "TIFF", save_all=True, append_images=frames[1:])),
        ("tiff in tiles", "tif", tiled_tiff(grey)),
        ("tiff in packed tiles", "tif", tiled_tiff(grey, packed=True)),
        ("gif", "gif", saved(palette, "GIF")),
        ("gif animated", "gif", saved(frames[0], "GIF", save_all=True, append_images=frames[1:])),
        ("gif transparent", "gif", saved(palette, "GIF", transparency=3)),
    ]
    masks = [
        ("mask png", "png", saved(labels, "PNG"), labels),
        ("mask png palette", "png", saved(indexed, "PNG"), labels),
        ("mask png 1-bit", "png", saved(bits, "PNG"), np.asarray(bits).astype(np.uint8)),
        ("mask png 16-bit", "png", saved(deep, "PNG"), deep),
        ("mask tiff lzw", "tif", saved(labels, "TIFF", compression="tiff_lzw"), labels),
        ("mask tiff 16-bit", "tif", saved(deep, "TIFF"), deep),
        ("mask tiff in tiles", "tif", tiled_tiff(labels, packed=True), labels),
        ("mask bmp", "bmp", saved(labels, "BMP"), labels),
        ("mask gif", "gif", saved(labels, "GIF"), labels),
    ]
    return (
        *(Base(*each) for each in images),
        Base("png 16-bit colours", "png", deep_png(deep_colour), deep_colour / 65535, deep=True),
        *(Base(*each, mask=True) for each in masks),
    )


def intact(base: Base, draw: random.Random) -> Mutant:
    return Mutant(base.content, base.suffix, "none")


def truncated(base: Base, draw: random.Random) -> Mutant:
    return Mutant(base.content[: draw.randrange(1, len(base.content))], base.suffix, "truncated")


def truncated_little(base: Base, draw: random.Random) -> Mutant:
    return Mutant(base.content[: -draw.randrange(1, 30)], base.suffix, "truncated")


def flipped(base: Base, draw: random.Random, most: int | None = None) -> Mutant:
    content = bytearray(base.content)
    for _ in range(draw.randint(1, 8)):
        content[draw.randrange(min(len(content), most or len(content)))] ^= 1 << draw.randrange(8)
    return Mutant(bytes(content), base.suffix, "damaged")


def flipped_in_header(base: Base, draw: random.Random) -> Mutant:
    return flipped(base, draw, most=80)


def overwritten(base: Base, draw: random.Random) -> Mutant:
    at = draw.randrange(len(base.content))
    length = draw.randint(1, 60)
    filler = bytes(length) if draw.random() < 0.5 else draw.randbytes(length)
    return Mutant(base.content[:at] + filler + base.content[at + length :], base.suffix, "damaged")


def swapped(base: Base, draw: random.Random) -> Mutant:
    """Two parts change places: chunks or segments where the format has them, otherwise any two blocks."""
    parts = pieces(base.content) or [base.content[at : at + 32] for at in range(0, len(base.content), 32)]
    first, second = (draw.randrange(len(parts)) for _ in range(2))
    parts[first], parts[second] = parts[second], parts[first]
    return Mutant(b"".join(parts), base.suffix, "damaged")


def repeated(base: Base, draw: random.Random) -> Mutant:
    """A chunk, a segment or a block comes twice, or not at all."""
    parts = pieces(base.content) or [base.content[at : at + 32] for at in range(0, len(base.content), 32)]
    at = draw.randrange(len(parts))
    parts[at : at + 1] = [parts[at]] * draw.choice((0, 2, 3))
    return Mutant(b"".join(parts), base.suffix, "damaged")


def wrong_length(base: Base, draw: random.Random) -> Mutant:
    """A length that the file names is another one."""
    content = bytearray(base.content)
    number = draw.choice((0, 1, 7, 2**16, 2**31 - 1, 2**31, 2**32 - 1))
    if content.startswith(b"\x89PNG"):
        starts = np.cumsum([len(part) for part in pieces(base.content)])[:-1].tolist()
        at = draw.choice(starts)
        content[at : at + 4] = struct.pack(">I", number)
    elif content.startswith(b"RIFF"):
        at = draw.choice((4, 16))
        content[at : at + 4] = struct.pack("<I", number)
    elif content.startswith(b"\xff\xd8"):
        starts = np.cumsum([len(part) for part in pieces(base.content)])[:-1].tolist()
        at = draw.choice(starts) + 2
        content[at : at + 2] = struct.pack(">H", number % 2**16)
    elif content.startswith(b"BM"):
        at = draw.choice((2, 10, 14, 34))
        content[at : at + 4] = struct.pack("<I", number)
    elif content.startswith(b"II*"):
        at = draw.choice(tiff_entries(base.content))
        at += draw.choice((4, 8))  # how many values, or where they are
        content[at : at + 4] = struct.pack("<I", number)
    else:
        at = draw.randrange(13, len(content))
        content[at] = number % 256
    return Mutant(bytes(content), base.suffix, "damaged")


def huge(base: Base, draw: random.Random) -> Mutant:
    """The header names a size that the file cannot hold."""
    width, height = draw.choice(HUGE)
    content = bytearray(base.content)
    if content.startswith(b"\x89PNG"):
        content[8:33] = chunk(b"IHDR", struct.pack(">II", width, height) + bytes(content[24:29]))
    elif content.startswith(b"GIF"):
        size = struct.pack("<HH", min(width, 65535), min(height, 65535))
        content[6:10] = size
        frame = content.index(b",", 13 + 3 * (2 << (content[10] & 7)) if content[10] & 0x80 else 13)
        content[frame + 5 : frame + 9] = size
    elif content.startswith(b"BM"):
        content[18:26] = struct.pack("<II", width, height)
    elif content.startswith(b"II*"):
        for at in tiff_entries(base.content):
            tag = struct.unpack_from("<H", content, at)[0]
            if tag in (256, 257):
                struct.pack_into("<HII", content, at + 2, 4, 1, width if tag == 256 else height)
    elif content.startswith(b"\xff\xd8"):
        at = next(
            place for place in range(len(content)) if content[place] == 0xFF and content[place + 1] in (0xC0, 0xC2)
        )
        content[at + 5 : at + 9] = struct.pack(">HH", min(height, 65535), min(width, 65535))
    else:
        content = bytearray(webp_of_size(min(width, 2**14), min(height, 2**14)))
    return Mutant(bytes(content), base.suffix, "refused")


def webp_of_size(width: int, height: int) -> bytes:
    """The beginning of a WebP with a canvas of this size."""
    sizes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + sizes + b"VP8L" + struct.pack("<I", 8) + bytes(8)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def other_suffix(base: Base, draw: random.Random) -> Mutant:
    suffixes = {"png", "jpg", "webp", "bmp", "tif", "gif", "jfif", "PNG"} - {base.suffix}
    return Mutant(base.content, draw.choice(sorted(suffixes)), "none")


def nothing(base: Base, draw: random.Random) -> Mutant:
    return Mutant(draw.choice((b"", b"\0", bytes(len(base.content)), base.content[:2])), base.suffix, "refused")


def appended(base: Base, draw: random.Random) -> Mutant:
    other = draw.choice(bases()).content
    after = draw.choice((b"\0" * 100, draw.randbytes(200), other, b"PK\3\4" + draw.randbytes(60), b"<?php evil(); ?>"))
    return Mutant(base.content + after, base.suffix, "none")


def garbage(base: Base, draw: random.Random) -> Mutant:
    """Something else that is called an image."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(marker) (w) file closefile\nshowpage\n"
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
    other = draw.choice(bases()).content
    forms = (gzip.compress(base.content), script, drawing, b"P6\n9 9\n255\n" + bytes(243), b"PK\3\4" + other)
    return Mutant(
        draw.choice((*forms, draw.randbytes(300), b"\x89PNG\r\n\x1a\n" + draw.randbytes(200))), base.suffix, "refused"
    )


def nested(base: Base, draw: random.Random) -> Mutant:
    """The beginning of this file, then another file."""
    other = draw.choice(bases()).content
    return Mutant(base.content[: draw.randrange(4, 60)] + other, base.suffix, "damaged")


def odd_metadata(base: Base, draw: random.Random) -> Mutant:
    """Comments, texts, profiles and EXIF that are garbage, or a bomb."""
    junk = draw.choice((b"", draw.randbytes(50), b"Exif\0\0MM\0*" + draw.randbytes(40), zlib.compress(bytes(10**7))))
    content = base.content
    if content.startswith(b"\x89PNG"):
        texts = {
            b"zTXt": b"key\0\0",
            b"iTXt": b"key\0\1\0\0\0",
            b"tEXt": b"key\0",
            b"eXIf": b"",
            b"prVt": b"",
            b"iCCP": b"p\0\0",
        }
        kind = draw.choice(sorted(texts))
        at = 33 if draw.random() < 0.7 else len(content) - 12
        content = content[:at] + chunk(kind, texts[kind] + junk) + content[at:]
    elif content.startswith(b"\xff\xd8"):
        kind = draw.choice((0xE1, 0xE2, 0xED, 0xEE, 0xFE) if "cmyk" not in base.name else (0xE1, 0xE2, 0xED, 0xFE))
        junk = junk[:60_000]
        content = content[:2] + bytes((0xFF, kind)) + struct.pack(">H", len(junk) + 2) + junk + content[2:]
    elif content.startswith(b"GIF"):
        blocks = b"".join(
            bytes((len(part),)) + part for part in (junk[at : at + 255] for at in range(0, len(junk), 255))
        )
        content = content[:-1] + b"!\xfe" + blocks + b"\0;"
    elif content.startswith(b"RIFF"):
        more = draw.choice((b"EXIF", b"XMP ", b"ABCD")) + struct.pack("<I", len(junk)) + junk + bytes(len(junk) % 2)
        content = b"RIFF" + struct.pack("<I", len(content) - 8 + len(more)) + content[8:] + more
    else:
        content += junk
    return Mutant(content, base.suffix, "none")


MUTATIONS: tuple[Callable[[Base, random.Random], Mutant], ...] = (
    *(intact, truncated, truncated_little, flipped, flipped_in_header, overwritten, swapped, repeated, wrong_length),
    *(huge, other_suffix, nothing, appended, garbage, nested, odd_metadata),
)


def pieces(content: bytes) -> list[bytes]:
    """The signature and chunks of a PNG or WebP, or the segments of a JPEG; empty for other formats."""
    found, at = [], 0
    if content.startswith(b"\x89PNG"):
        found, at = [content[:8]], 8
        while at < len(content):
            length = 12 + int.from_bytes(content[at : at + 4], "big")
            found.append(content[at : at + length])
            at += length
    elif content.startswith(b"RIFF"):
        found, at = [content[:12]], 12
        while at < len(content):
            length = 8 + int.from_bytes(content[at + 4 : at + 8], "little")
            length += length % 2
            found.append(content[at : at + length])
            at += length
    elif content.startswith(b"\xff\xd8"):
        found, at = [content[:2]], 2
        while content[at + 1] != 0xDA:
            length = 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            found.append(content[at : at + length])
            at += length
        found.append(content[at:])
    return found


def tiff_entries(content: bytes) -> list[int]:
    """Where the entries of a little-endian TIFF's first page begin."""
    first = struct.unpack_from("<I", content, 4)[0]
    count = struct.unpack_from("<H", content, first)[0]
    return [first + 2 + 12 * index for index in range(count)]
