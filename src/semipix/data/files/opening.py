"""Open image files: read header, orientation and size, and turn decoder errors into messages of one line."""

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImagePalette, UnidentifiedImageError
from PIL.TiffImagePlugin import COMPRESSION_INFO

from semipix.data.files import file_headers as headers
from semipix.data.files.file_headers import Tags
from semipix.data.files.missing_rows import missing_part
from semipix.data.files.quiet_decoders import quiet_decoders
from semipix.data.files.sizes import Size
from semipix.errors import UnreadableFileError, reason_of

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".tif", ".tiff", ".gif"})
"""Extensions of readable files, in lower case."""

FORMATS = "png, jpeg, webp, bmp, tiff or gif"

_DECODERS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
"""Pillow's names of the formats that are opened, by content and not by extension.

For some other formats Pillow starts programs, such as Ghostscript.
"""

MAX_PIXELS = 160_000_000
"""Default of `data.max_pixels`: the most pixels that an image may have.

The largest camera sensors in common use have 151 million pixels, a tile of Sentinel-2 has 121 million. Reading takes at
most 16 bytes of memory a pixel for every kind of file, so this limits the memory to 2.6 GB.
"""

SIDEWAYS = range(5, 9)
"""Orientations that swap width and height."""

BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error)
"""Errors that Pillow's decoders raise for broken files."""

_SWAPPED_BY_LIBTIFF = {"I;16BS": "I;16NS", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}
"""Raw modes of big-endian TIFFs, and those of the bytes that libtiff gives, which are in the machine's order."""

_CHOOSE_BANDS = "set data.bands=all or data.bands=[0,1,2], say, or save the bands to use as RGB"

_Number = TypeVar("_Number", bound=np.generic)

# Pillow has one limit for the whole process. `open_image` checks each file against the limit of its reader instead.
Image.MAX_IMAGE_PIXELS = None

quiet_decoders()


@dataclass(frozen=True)
class Encoded:
    """An image file in memory, such as a member of an archive; `str()` gives its name for messages."""

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


@dataclass
class OpenedImage:
    """An image file whose header was read.

    Args:
        path: the file's name in messages.
        file: its bytes.
        image: Pillow's image, not decoded yet.
        orientation: its orientation tag, 1 to 8.
        tags: the tags of the first page of a TIFF; None for other formats.
    """

    path: Path | Encoded
    file: IO[bytes]
    image: Image.Image
    orientation: int
    tags: Tags | None

    @property
    def sideways(self) -> bool:
        """Whether the image is stored lying on its side."""
        return self.orientation in SIDEWAYS

    @property
    def stored_size(self) -> Size:
        """Height and width of the stored image, before it is turned upright."""
        stored = headers.tiff_size(self.tags) if self.tags is not None else None
        return stored or (self.image.height, self.image.width)

    @property
    def size(self) -> Size:
        """Height and width of the upright image."""
        height, width = self.stored_size
        return (width, height) if self.sideways else (height, width)

    def load(self) -> Image.Image:
        """Decode the image; it is not turned upright.

        Raises:
            UnreadableFileError: the file contains only a part of its pixels.
        """
        self.image.load()
        if held := missing_part(self.image, self.file, self.tags):
            raise UnreadableFileError(
                f"{self.path}: corrupt or truncated image (holds {held}); replace or remove the file"
            )
        # Pillow gives a TIFF with a sideways orientation the upright size, although its pixels are not turned. A new
        # image of the same pixels has the size of the pixels.
        return self.image._new(self.image.im) if self.image.size != self.image.im.size else self.image

    def to_upright(self, values: NDArray[_Number]) -> NDArray[_Number]:
        """An upright view of stored values (H, W) or (H, W, C)."""
        return upright(values, self.orientation)

    def to_stored(self, upright: NDArray[_Number]) -> NDArray[_Number]:
        """A view of upright values (H, W) or (H, W, C) in the order of the file: the inverse of `to_upright`."""
        values = upright.swapaxes(0, 1) if self.sideways else upright
        if self.orientation in (3, 4, 6, 7):
            values = values[::-1]
        return values[:, ::-1] if self.orientation in (2, 3, 7, 8) else values


@contextmanager
def open_image(path: Path | Encoded, max_pixels: int) -> Iterator[OpenedImage]:
    """Open an image file and read its header.

    Errors of the decoder, also those raised later in the `with` block, become a message of one line.

    Args:
        path: the file.
        max_pixels: see `read_image`.

    Raises:
        UnreadableFileError: the file is missing, no image, too large, corrupt, or of an unsupported kind.
    """
    try:
        with io.BytesIO(path.content) if isinstance(path, Encoded) else path.open("rb") as file:
            yield _open(path, file, max_pixels)
    except FileNotFoundError:
        raise UnreadableFileError(f"{path}: no such file; restore it") from None
    except UnidentifiedImageError:
        raise UnreadableFileError(
            f"{path}: not a readable image; expected {FORMATS}, replace or remove the file"
        ) from None
    except MemoryError:  # a damaged file may contain a huge length, for which Pillow allocates memory
        raise UnreadableFileError(
            f"{path}: corrupt image, or too large for the memory of this machine; replace or remove the file, or make "
            "it smaller"
        ) from None
    except BROKEN as error:
        raise UnreadableFileError(
            f"{path}: corrupt or truncated image ({reason_of(error)}); replace or remove the file"
        ) from None


def upright(values: NDArray[_Number], orientation: int) -> NDArray[_Number]:
    """An upright view of values (H, W) or (H, W, C) that are stored with an orientation tag from 1 to 8."""
    if orientation in (2, 3, 7, 8):
        values = values[:, ::-1]
    if orientation in (3, 4, 6, 7):
        values = values[::-1]
    return values.swapaxes(0, 1) if orientation in SIDEWAYS else values


def check_pixels(path: Path | Encoded, size: Size, max_pixels: int) -> None:
    """Check the size in the header of a file.

    Raises:
        UnreadableFileError: the image has more than `max_pixels` pixels.
    """
    height, width = size
    if height * width > max_pixels:
        raise UnreadableFileError(
            f"{path}: {width}x{height} pixels, more than data.max_pixels={max_pixels}; raise data.max_pixels to read "
            "it, or make the image smaller"
        )


def raw_mode_of(image: Image.Image) -> str:
    """Pillow's raw mode of a file that is not decoded yet: the layout of its pixels, such as "RGB;16B"."""
    for tile in getattr(image, "tile", []):
        return tile[3] if isinstance(tile[3], str) else str(next(iter(tile[3] or ()), ""))
    return ""


def with_raw_mode(tile: Any, raw_mode: str) -> Any:
    """A tile of a Pillow image with another raw mode."""
    arguments = raw_mode if isinstance(tile[3], str) else (raw_mode, *tile[3][1:])
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _open(path: Path | Encoded, file: IO[bytes], max_pixels: int) -> OpenedImage:
    start = file.read(30)
    if canvas := headers.webp_size(start):
        check_pixels(path, canvas, max_pixels)  # before opening it, since libwebp then allocates the memory
    png = headers.png_metadata(file) if start.startswith(headers.PNG) else None
    if png and png[1]:  # Pillow would fail after the last pixel if these are damaged
        file = io.BytesIO(headers.png_without_metadata(_content(file)))
    tags = next(headers.tiff_pages(file), {})
    try:
        image = _identified(file, start)
    except UnidentifiedImageError:
        _explain_tiff(path, start, tags)
        raise
    if image.format == "TIFF":
        _explain_bands(path, image, tags)
        # Keep Pillow from turning a TIFF while decoding: `to_upright` turns all formats.
        image.getexif = Image.Exif  # type: ignore[method-assign]
        _repair_byte_order(image)
        orientation = headers.orientation_of_tags(tags, _xmp(image))
    else:
        _repair_bmp(file, image)
        orientation = png[0] if png else _orientation_of(image)
    image_file = OpenedImage(path, file, image, orientation, tags if image.format == "TIFF" else None)
    check_pixels(path, image_file.size, max_pixels)
    return image_file


def _orientation_of(image: Image.Image) -> int:
    """The orientation of an image, 1 to 8, from its EXIF or else its XMP; 1 if they are damaged."""
    exif = image.info.get("exif", b"")
    return headers.orientation_of_exif(exif if isinstance(exif, bytes) else b"", _xmp(image))


def _xmp(image: Image.Image) -> bytes:
    xmp = image.info.get("xmp", b"")
    return xmp if isinstance(xmp, bytes) else b""


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read()


def _identified(file: IO[bytes], start: bytes) -> Image.Image:
    """Pillow's image of a file. If Pillow fails because of EXIF, XMP or texts, they are removed first.

    Raises:
        UnidentifiedImageError: the file is no image.
        OSError: the image is corrupt.
    """
    try:
        return Image.open(file, formats=_DECODERS)
    except Exception as error:  # damaged EXIF may raise any exception
        content = _content(file)
        for without in _removers(start):
            with suppress(Exception):
                return Image.open(io.BytesIO(without(content)), formats=_DECODERS)
        raise error if isinstance(error, BROKEN) else OSError(str(error)) from None


def _removers(start: bytes) -> tuple[Callable[[bytes], bytes], ...]:
    """Functions that remove metadata from a file with these first bytes; the one that removes least comes first."""
    if start.startswith(headers.PNG):
        return (headers.png_without_metadata,)
    if start.startswith(b"RIFF"):
        return (headers.webp_without_metadata,)
    if start.startswith(b"\xff\xd8"):
        return headers.jpeg_without_index, headers.jpeg_without_metadata
    return ()


def _repair_bmp(file: IO[bytes], image: Image.Image) -> None:
    """Make Pillow read a grey-palette BMP with its real number of bits; Pillow assumes 1 or 8."""
    tile = next(iter(getattr(image, "tile", [])), None)
    if image.format != "BMP" or tile is None or tile[0] != "raw" or image.mode not in ("1", "L"):
        return
    file.seek(28)
    depth = int.from_bytes(file.read(2), "little")
    if depth == (1 if image.mode == "1" else 8):
        return
    greys = (0, 255) if image.mode == "1" else range(1 << depth)
    image._mode = "P"
    image.palette = ImagePalette.raw("RGB", bytes(grey for grey in greys for _ in range(3)))
    image.tile = [with_raw_mode(tile, "P" if depth == 8 else f"P;{depth}")]  # type: ignore[attr-defined]


def _repair_byte_order(image: Image.Image) -> None:
    """Make Pillow read a compressed big-endian TIFF of signed or float numbers, whose bytes it would swap twice."""
    tiles: list[Any] = getattr(image, "tile", [])
    native = _SWAPPED_BY_LIBTIFF.get(raw_mode_of(image))
    if native is not None and tiles[0][0] == "libtiff":
        image.tile = [with_raw_mode(tile, native) for tile in tiles]  # type: ignore[attr-defined]


def _explain_tiff(path: Path | Encoded, start: bytes, tags: Tags) -> None:
    """Raise an error that explains why Pillow cannot open a valid TIFF; return if no reason is known."""
    if headers.tiff_size(tags) is None:
        return
    if start.startswith(b"MM\0\x2b"):
        raise UnreadableFileError(
            f"{path}: a BigTIFF of big-endian byte order, which cannot be read; expected little-endian or a classic "
            "TIFF, save it again as one of these"
        )
    bands, depths, kind = headers.tiff_samples(tags)
    compression = headers.tiff_number(tags, 259, 1)
    if compression not in COMPRESSION_INFO:
        raise UnreadableFileError(
            f"{path}: a TIFF compressed by method {compression}, which cannot be read; expected none, LZW or deflate, "
            "save it again with one of these"
        )
    if bands == 1 and depths == (16,) and headers.tiff_number(tags, 262, 1) == 0:
        raise UnreadableFileError(
            f"{path}: grey of 16 bits in which 0 is white (WhiteIsZero), in big-endian byte order, which cannot be "
            "read; expected 0 as black, save it as MinIsBlack, or as PNG"
        )
    if bands in (1, 3) and kind == "unsigned" and depths in ((8,) * bands, (16,) * bands, (1,), (2,), (4,)):
        if bands == 3 and (meaning := headers.tiff_number(tags, 262, 1)) < 2:
            raise UnreadableFileError(
                f"{path}: holds 3 bands that are not tagged as red, green and blue (PhotometricInterpretation "
                f"{meaning}); expected RGB, {_CHOOSE_BANDS}"
            )
        return
    samples = f"{bands}x{depths[0]}-bit" if len(set(depths)) == 1 else "-".join(map(str, depths[:8])) + "-bit"
    if bands in (1, 3):
        problem = (
            f"{samples} {kind} samples, which cannot be read; expected 8 or 16 bits a sample, save it like this, or, "
            "if it is an image and no label, set data.range=[low,high], the numbers that become 0 and 1"
        )
    else:
        problem = f"{bands} bands ({samples} {kind} samples); expected 1 or 3, {_CHOOSE_BANDS}"
    raise UnreadableFileError(f"{path}: holds {problem}")


def _explain_bands(path: Path | Encoded, image: Image.Image, tags: Tags) -> None:
    """Check that the bands of a TIFF would be read correctly, and not mostly ignored."""
    bands, depths, _ = headers.tiff_samples(tags)
    if bands > 4:
        raise UnreadableFileError(f"{path}: holds {bands} bands; expected 1 or 3, {_CHOOSE_BANDS}")
    if bands > 1 and headers.tiff_number(tags, 284, 1) == 2 and max(depths) > 8:
        raise UnreadableFileError(
            f"{path}: holds {max(depths)}-bit bands one after another (PlanarConfiguration 2), of which 8 bits would "
            "be lost; expected all bands of a pixel together, save it as a 16-bit PNG or with PlanarConfiguration 1, "
            "or set data.bands=all"
        )
