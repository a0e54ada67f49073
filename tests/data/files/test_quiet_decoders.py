"""Libraries print nothing about damaged files."""

import io
import warnings
from pathlib import Path

import pytest
from PIL import Image

from semipix.data.files.decode import read_image
from semipix.data.files.quiet_decoders import quiet_decoders
from semipix.errors import UnreadableFileError
from tests.helpers.tiny_files import noise


def lzw() -> bytearray:
    buffer = io.BytesIO()
    Image.fromarray(noise(20, 30)).save(buffer, "TIFF", compression="tiff_lzw")
    return bytearray(buffer.getvalue())


def damaged_pixels() -> bytes:
    content = lzw()
    content[40:200] = bytes(255 - each for each in content[40:200])
    return bytes(content)


@pytest.mark.parametrize("content", [damaged_pixels(), bytes(lzw()[:-20])], ids=["libtiff", "Pillow"])
def test_nothing_is_printed(content: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        quiet_decoders()
        with pytest.raises(UnreadableFileError, match=r"a\.tif: corrupt"):
            read_image(path)
    assert capfd.readouterr().err == ""
    assert [str(each.message) for each in warned] == []
