"""Headers with wrong lengths."""

import io
import struct

from PIL import Image

from semipix.data.files.file_headers import PNG, png_chunks, webp_without_metadata
from tests.helpers.image_files import png
from tests.helpers.tiny_files import noise


def test_a_chunk_is_never_longer_than_its_file() -> None:
    content = bytearray(png((6, 4, 8, 2, 0), bytes(4 * 19)))
    content[33:37] = struct.pack(">I", 2**31 - 1)
    lengths = [chunk.length for chunk in png_chunks(io.BytesIO(content))]
    assert lengths == [13, len(content) - 33 - 8]
    assert len(PNG) == 8


def test_a_webp_that_is_cut_off_is_not_made_whole() -> None:
    exif = Image.Exif()
    exif[274] = 6
    buffer = io.BytesIO()
    Image.fromarray(noise(20, 30, 3)).save(buffer, "WEBP", lossless=True, exif=exif)
    whole = buffer.getvalue()
    assert b"EXIF" not in webp_without_metadata(whole)
    for spoilt in (whole[:-3], whole.replace(b"WEBP", b"WEBQ", 1)):
        assert webp_without_metadata(spoilt) == spoilt
