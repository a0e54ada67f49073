"""Read the headers of image files from their bytes, without decoding a pixel and without Pillow.

Pillow decodes a whole PNG to find EXIF after its pixels, cannot open some valid TIFFs, and does not report whether a
WebP is lossless.
"""

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from typing import IO, NamedTuple

from semipix.data.files.sizes import Size

PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of every PNG."""

ORIENTATION = 274
"""The tag of EXIF and TIFF for the orientation, 1 to 8."""

_TEXTS = (b"tEXt", b"zTXt", b"iTXt")

_EXIF_TEXT = b"Raw profile type exif"

_XMP_TEXT = b"XML:com.adobe.xmp"

_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9]+)")

_MOST_TEXT = 1 << 24
"""Bytes that are unpacked at most from a text of a PNG."""

_WHOLE_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
"""Integer types of TIFF tags, with their letters in `struct`."""

_MOST_VALUES = 1 << 20
"""Values that are read at most from a TIFF tag."""

_READ_TAGS = frozenset({254, 256, 257, 258, 259, 262, 273, ORIENTATION, 277, 278, 284, 322, 323, 324, 338, 339})

GEOREFERENCE = frozenset({33550, 34264})
"""Tags of a GeoTIFF that say where each pixel is: scale of pixels, or transformation. Their values are not read."""

_NODATA = 42113
"""Tag of GDAL for the number of pixels without a value, which is text."""

_TEXT = 2
"""Type of TIFF tags that are text."""

_MOST_NODATA = 64
"""Characters that are read at most of that number."""

_PREVIEW = 1 | 4
"""Bits of NewSubfileType: a page at reduced resolution, or the transparency mask of another page."""

Tags = dict[int, tuple[int, ...]]
"""The integer values of a page of a TIFF, by tag."""


class Chunk(NamedTuple):
    """A chunk of a PNG: its kind, the place where its data begin, and their length."""

    kind: bytes
    start: int
    length: int


def png_chunks(file: IO[bytes]) -> Iterator[Chunk]:
    """The chunks of a PNG in their order, up to the place where the file is cut off or damaged.

    The length of a chunk is limited to the rest of the file, so that a damaged length allocates no gigabytes.
    """
    place, size = len(PNG), file.seek(0, io.SEEK_END)
    while True:
        file.seek(place)
        head = file.read(8)
        if len(head) < 8 or not head[4:].isalpha():
            return
        (length,) = struct.unpack(">I", head[:4])
        yield Chunk(head[4:], place + 8, min(length, size - place - 8))
        place += 12 + length


def png_metadata(file: IO[bytes]) -> tuple[int, bool]:
    """The orientation of a PNG, 1 to 8, and whether text or EXIF follows its pixels.

    EXIF takes precedence, then EXIF in a text, then XMP. Damaged ones are ignored.
    """
    exif, text_exif, xmp = b"", b"", b""
    pixels = late = False
    for kind, start, length in png_chunks(file):
        pixels = pixels or kind == b"IDAT"
        if kind != b"eXIf" and kind not in _TEXTS:
            continue
        late = late or pixels
        file.seek(start)
        data, checksum = file.read(length), file.read(4)
        if checksum != struct.pack(">I", zlib.crc32(kind + data)):
            continue
        if kind == b"eXIf":
            exif = data
        elif data.startswith(_EXIF_TEXT + b"\0"):
            text_exif = _from_hex(_text(kind, data)) or text_exif
        elif data.startswith(_XMP_TEXT + b"\0"):
            xmp = _text(kind, data) or xmp
    return orientation_of_exif(exif or text_exif, xmp), late


def png_without_metadata(content: bytes) -> bytes:
    """A PNG without its texts and EXIF, whose pixels can be read even if these are damaged."""
    kept = [
        content[start - 8 : start + length + 4]
        for kind, start, length in png_chunks(io.BytesIO(content))
        if kind != b"eXIf" and kind not in _TEXTS
    ]
    return PNG + b"".join(kept)


def png_rows(file: IO[bytes]) -> Size:
    """How many rows of pixels a PNG contains, and how many it should contain.

    For an interlaced PNG the rows of all passes are counted.
    """
    chunks = list(png_chunks(file))
    file.seek(chunks[0].start)
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", file.read(13))
    per_pixel = bits * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    starts = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    passes = starts if interlaced else [(0, 0, 1, 1)]
    lengths = []
    for left, top, right, down in passes:
        columns, rows = (
            -(-max(0, side - at) // step) for side, at, step in ((width, left, right), (height, top, down))
        )
        if columns:
            lengths.append((rows, 1 + (columns * per_pixel + 7) // 8))
    left_over, held = _inflated_length(file, chunks), 0
    for rows, length in lengths:
        whole = min(rows, left_over // length)
        held, left_over = held + whole, left_over - rows * length
        if whole < rows:
            break
    return held, sum(rows for rows, _ in lengths)


def orientation_of_exif(exif: bytes, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, from EXIF, or from XMP if EXIF has none; 1 if both are damaged."""
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    return orientation_of_tags(next(tiff_pages(io.BytesIO(exif)), {}), xmp)


def orientation_of_tags(tags: Tags, xmp: bytes = b"") -> int:
    """The orientation, 1 to 8, from the tags of EXIF or of a page of a TIFF, or from XMP if the tags have none."""
    values = tags.get(ORIENTATION)
    if values is None and (found := _XMP_ORIENTATION.search(xmp)):
        values = (int(found[1][:3]),)
    return values[0] if values and values[0] in range(1, 9) else 1


def tiff_pages(file: IO[bytes]) -> Iterator[Tags]:
    """The tags of each page of a TIFF (classic or BigTIFF, either byte order), up to the place where it is damaged."""
    file.seek(0)
    head = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return
    (version,) = struct.unpack(order + "H", head[2:4])
    if version not in (42, 43, 42 << 8):
        return
    big = version == 43
    number, pointer, entry = ("Q", "Q", "HHQ") if big else ("H", "I", "HHI")
    number_length, inline = struct.calcsize(order + number), struct.calcsize(pointer)
    entry_length = struct.calcsize(order + entry) + inline
    seen: set[int] = set()
    (place,) = struct.unpack(order + pointer, head[8:16] if big else head[4:8])
    while place and place not in seen and place < 1 << 62:
        seen.add(place)
        file.seek(place)
        count = file.read(number_length)
        if len(count) < number_length:
            return
        entries = file.read(min(struct.unpack(order + number, count)[0], 1 << 16) * entry_length)
        following = file.read(inline)
        tags: Tags = {}
        for at in range(0, len(entries) - entry_length + 1, entry_length):
            tag, kind, amount = struct.unpack_from(order + entry, entries, at)
            if tag in _READ_TAGS and kind in _WHOLE_NUMBERS and amount:
                field = entries[at + entry_length - inline : at + entry_length]
                tags[tag] = _values(file, order, pointer, kind, amount, field)
            elif tag == _NODATA and kind == _TEXT:
                field = entries[at + entry_length - inline : at + entry_length]
                tags[tag] = _values(file, order, pointer, 1, min(amount, _MOST_NODATA), field)
            elif tag in GEOREFERENCE:
                tags[tag] = ()
        yield tags
        if len(following) < inline:
            return
        (place,) = struct.unpack(order + pointer, following)


def page_count(pages: list[Tags]) -> int:
    """The number of pages of a TIFF; previews and transparency masks count only as the first, which is read."""
    return 1 + sum(not (tags.get(254) or (0,))[0] & _PREVIEW for tags in pages[1:])


def tiff_size(tags: Tags) -> Size | None:
    """Height and width of a page of a TIFF, as it is stored; None if its tags are missing."""
    width, height = tags.get(256), tags.get(257)
    return (height[0], width[0]) if width and height else None


def tiff_number(tags: Tags, tag: int, default: int) -> int:
    """The first value of a tag, or the default if the tag is missing."""
    return (tags.get(tag) or (default,))[0]


def tiff_missing(tags: Tags) -> str:
    """How many strips or tiles a page of a TIFF contains, such as "3 of 10 strips"; empty if it contains all."""
    size = tiff_size(tags)
    if size is None or (273 not in tags and 324 not in tags):
        return ""
    height, width = size
    planes = tiff_number(tags, 277, 1) if tiff_number(tags, 284, 1) == 2 else 1
    if 273 in tags:
        word, offsets, expected = "strips", tags[273], math.ceil(height / max(1, tiff_number(tags, 278, height)))
    else:
        sides = max(1, tiff_number(tags, 323, height)), max(1, tiff_number(tags, 322, width))
        word, offsets = "tiles", tags[324]
        expected = math.ceil(height / sides[0]) * math.ceil(width / sides[1])
    held, expected = sum(offset > 0 for offset in offsets), expected * planes
    return f"{held} of {expected} {word}" if held < min(expected, _MOST_VALUES) else ""


def tiff_samples(tags: Tags) -> tuple[int, tuple[int, ...], str]:
    """The number of bands of a page of a TIFF, the bits of each band, and the kind of its numbers."""
    bands = tiff_number(tags, 277, 1)
    depths = tags.get(258) or (1,)
    depths = depths * bands if len(depths) == 1 and bands < 1 << 16 else depths[:bands]
    return bands, depths, {1: "unsigned", 2: "signed", 3: "float"}.get(tiff_number(tags, 339, 1), "other")


def tiff_nodata(tags: Tags) -> float | None:
    """The number of pixels without a value, as GDAL writes it into a TIFF; None if there is none, or no number."""
    text = bytes(tags.get(_NODATA, ())).split(b"\0")[0]
    try:
        return float(text)
    except ValueError:
        return None


def webp_size(prefix: bytes) -> Size | None:
    """Height and width of a WebP from its first 30 bytes; None for other files."""
    if prefix[:4] != b"RIFF" or prefix[8:12] != b"WEBP" or len(prefix) < 30:
        return None
    if prefix[12:16] == b"VP8X":
        width, height = (int.from_bytes(prefix[at : at + 3], "little") + 1 for at in (24, 27))
        return height, width
    if prefix[12:16] == b"VP8L":
        bits = int.from_bytes(prefix[21:25], "little")
        return (bits >> 14 & 0x3FFF) + 1, (bits & 0x3FFF) + 1
    width, height = struct.unpack("<HH", prefix[26:30])
    return height & 0x3FFF, width & 0x3FFF


def webp_is_lossy(content: bytes) -> bool:
    """Whether a WebP contains a lossy image (VP8); lossless images are VP8L."""
    for kind, start, length in _webp_chunks(content, 12, len(content)):
        frame = kind == b"ANMF" and _webp_chunks(content, start + 16, min(start + length, len(content)))
        if kind == b"VP8 " or (frame and any(part == b"VP8 " for part, _, _ in frame)):
            return True
    return False


def webp_without_metadata(content: bytes) -> bytes:
    """A WebP without its EXIF and XMP. One that is cut off is returned unchanged, so that the error is reported."""
    if content[8:12] != b"WEBP" or len(content) < 8 + int.from_bytes(content[4:8], "little"):
        return content
    kept = []
    for kind, start, length in _webp_chunks(content, 12, len(content)):
        data = content[start : start + length]
        if kind == b"VP8X":
            data = bytes([data[0] & ~0b1100]) + data[1:]  # clear the flags for EXIF and XMP
        if kind not in (b"EXIF", b"XMP "):
            kept.append(kind + struct.pack("<I", length) + data + b"\0" * (length % 2))
    body = b"WEBP" + b"".join(kept)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_scan(content: bytes) -> Size | None:
    """Start and end of the pixel data of a JPEG with one scan; None for a progressive JPEG, or one without an end."""
    for marker, _, end in _jpeg_segments(content):
        if marker in (0xC2, 0xC6, 0xCA, 0xCE):
            return None
        if marker == 0xDA:
            last = content.find(b"\xff\xd9", end)
            return (end, last) if last >= 0 else None
    return None


def jpeg_without_index(content: bytes) -> bytes:
    """A JPEG without its index of further pictures (MPF)."""
    return _without_segments(content, exif=False)


def jpeg_without_metadata(content: bytes) -> bytes:
    """A JPEG without its index of further pictures (MPF), EXIF and XMP."""
    return _without_segments(content, exif=True)


def _inflated_length(file: IO[bytes], chunks: list[Chunk]) -> int:
    inflate, total = zlib.decompressobj(), 0
    for kind, start, length in chunks:
        if kind == b"IDAT":
            file.seek(start)
            data = file.read(length)
            while data:
                total += len(inflate.decompress(data, 1 << 20))
                data = inflate.unconsumed_tail
    return total + len(inflate.flush())


def _text(kind: bytes, data: bytes) -> bytes:
    """The unpacked text of a text chunk of a PNG, cut off at `_MOST_TEXT`; empty if it is damaged."""
    text = data.partition(b"\0")[2]
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed, text = text[:1] == b"\1", text[2:].partition(b"\0")[2].partition(b"\0")[2]
    elif packed:
        text = text[1:]
    if not packed:
        return text
    try:
        return zlib.decompressobj().decompress(text, _MOST_TEXT)
    except zlib.error:
        return b""


def _from_hex(text: bytes) -> bytes:
    """EXIF from a text: one line with its name, one with its length, then its bytes as hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.decode("latin-1").split("\n")[3:]))
    except ValueError:
        return b""


def _values(file: IO[bytes], order: str, pointer: str, kind: int, amount: int, field: bytes) -> tuple[int, ...]:
    """The values of a tag: in its field if they fit there, otherwise at the place to which the field points."""
    letter = _WHOLE_NUMBERS[kind]
    amount = min(amount, _MOST_VALUES)
    length = amount * struct.calcsize(order + letter)
    if length > len(field):
        (place,) = struct.unpack(order + pointer, field)
        if place >= 1 << 62:
            return ()
        file.seek(place)
        field = file.read(length)
    whole = len(field) // struct.calcsize(order + letter)
    return struct.unpack_from(f"{order}{min(amount, whole)}{letter}", field)


def _webp_chunks(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        kind, (length,) = content[start : start + 4], struct.unpack_from("<I", content, start + 4)
        yield kind, start + 8, length
        start += 8 + length + length % 2


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment of a JPEG, up to the header of its first scan."""
    place = 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # padding
            place += 1
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        yield marker, place, end
        if marker == 0xDA or end < place + 4:
            return
        place = end


def _without_segments(content: bytes, exif: bool) -> bytes:
    kept, last = [content[:2]], 2
    for marker, start, end in _jpeg_segments(content):
        index = marker == 0xE2 and content[start + 4 : start + 8] == b"MPF\0"
        if not index and not (exif and marker == 0xE1):
            kept.append(content[start:end])
        last = end
    return b"".join([*kept, content[last:]])
