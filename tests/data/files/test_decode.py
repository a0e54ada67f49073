"""Reading deep colours, greys and numbers."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from PIL.JpegImagePlugin import JpegImageFile
from torchvision import tv_tensors

from semipix.data.files.decode import bits, image_size, read_grey, read_image, read_pixels, read_values, unit_range
from semipix.data.files.opening import Encoded
from semipix.data.files.resize import resize_image
from semipix.errors import SemipixError
from tests.helpers.image_files import tiff
from tests.helpers.tiny_files import noise, save

DEEP = noise(6, 8, 3, top=65536)


def deep_tiff(order: str, compressed: bool) -> bytes:
    """A TIFF (6, 8, 3) of 16 bits a colour, in one strip, with the byte order "<" or ">"."""
    data = DEEP.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if compressed else data
    tags = {256: 8, 257: 6, 258: None, 259: 8 if compressed else 1, 262: 2, 273: None, 277: 3, 278: 6, 279: len(data)}
    depths = 10 + 12 * len(tags) + 4
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, value in tags.items():
        place = {258: depths, 273: depths + 6}.get(tag)
        head += struct.pack(f"{order}HHI", tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1)
        head += struct.pack(f"{order}I", value if place is None else place)
    return head + struct.pack(f"{order}I3H", 0, 16, 16, 16) + data


def test_deep_png_keeps_all_bits(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", DEEP)
    assert torch.equal((read_image(path) * 65535).round(), torch.from_numpy(DEEP.astype(np.float32)).permute(2, 0, 1))
    assert torch.equal(read_values(path), torch.from_numpy(DEEP.astype(np.float32)).permute(2, 0, 1))
    assert bits(path) == "16-bit"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_deep_tiff_keeps_all_bits(tmp_path: Path, order: str, compressed: bool) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(deep_tiff(order, compressed))
    assert torch.equal((read_image(path) * 65535).round(), torch.from_numpy(DEEP.astype(np.float32)).permute(2, 0, 1))
    assert bits(path) == "16-bit"


@pytest.mark.parametrize("depth", [8, 16])
def test_zero_may_be_white(tmp_path: Path, depth: int) -> None:
    values = noise(6, 8, top=1 << depth)
    (tmp_path / "a.tif").write_bytes(tiff(values, depth, {262: 0}))
    expected = 1 - torch.from_numpy(values.astype(np.float32)) / ((1 << depth) - 1)
    assert torch.allclose(read_image(tmp_path / "a.tif"), expected.expand(3, 6, 8), atol=1e-6)
    assert torch.allclose(read_grey(tmp_path / "a.tif"), expected, atol=1e-6)


def test_12_bits_are_scaled_by_their_type(tmp_path: Path) -> None:
    values = np.tile(np.array([[0, 1, 2048, 4095]], np.uint16), (3, 1))
    (tmp_path / "a.tif").write_bytes(tiff(values, 12))
    assert torch.allclose(read_image(tmp_path / "a.tif")[0, 0] * 4095, torch.tensor([0.0, 1, 2048, 4095]), atol=1e-3)
    assert read_values(tmp_path / "a.tif")[0].tolist() == values.tolist()


@pytest.mark.parametrize(("depth", "kind"), [(8, 2), (16, 2), (32, 1), (32, 2)])
def test_signed_and_long_grey_has_no_usual_range(tmp_path: Path, depth: int, kind: int) -> None:
    """Divided by 65535, it would be nearly black, or dark by half."""
    (tmp_path / "a.tif").write_bytes(tiff(np.array([[0, 100], [120, 7]]), depth, {339: kind}))
    word = {1: "unsigned", 2: "signed"}[kind]
    with pytest.raises(SemipixError, match=rf"a\.tif: found {word} numbers of {depth} bits from 0 to 120, exp"):
        read_image(tmp_path / "a.tif")


def test_zero_as_white_in_big_endian_order_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(noise(6, 8, top=65536), 16, {262: 0}, order=">"))
    with pytest.raises(
        SemipixError, match=r"a\.tif: grey of 16 bits in which 0 is white \(WhiteIsZero\), in big-endian"
    ):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("values", "name", "expected"),
    [
        (noise(6, 8), "a.png", "8-bit"),
        (noise(6, 8, 3), "a.jpg", "8-bit"),
        (noise(6, 8, top=65536), "a.png", "16-bit"),
        (noise(6, 8, top=65536), "a.tif", "16-bit"),
        (noise(6, 8).astype(np.float32), "a.tif", "float"),
        (noise(6, 8).astype(np.float64), "a.npy", "float"),
        (noise(6, 8, top=65536), "a.npy", "16-bit"),
    ],
)
def test_bits_and_size_are_in_the_header(tmp_path: Path, values: np.ndarray, name: str, expected: str) -> None:
    path = save(tmp_path / name, values)
    assert bits(path) == expected
    assert image_size(path) == (6, 8)


class TestValues:
    """The numbers of maps keep their units."""

    @pytest.mark.parametrize("name", ["a.npy", "a.tif"])
    def test_floats(self, tmp_path: Path, name: str) -> None:
        values = np.array([[0.5, 12.25], [-3, np.inf]], np.float32)
        read = read_values(save(tmp_path / name, values))
        assert read.shape == (1, 2, 2)
        assert read[0, 0].tolist() == [0.5, 12.25]
        assert read[0, 1, 0] == -3
        assert read[0, 1, 1].isnan()

    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            (np.array([[-100, -1], [5, 127]], np.int8), 2),
            (np.array([[-100, -1], [5, 32767]], np.int16), 2),
            (np.array([[0, 2**31], [2**32 - 256, 7]], np.uint32), 1),
        ],
    )
    def test_numbers_keep_their_sign(self, tmp_path: Path, values: np.ndarray, kind: int) -> None:
        unsigned = values.view(f"u{values.itemsize}")
        (tmp_path / "a.tif").write_bytes(tiff(unsigned, 8 * values.itemsize, {339: kind}))
        assert read_values(tmp_path / "a.tif")[0].tolist() == values.tolist()

    @pytest.mark.parametrize(("kind", "number"), [("i2", 2), ("i4", 2), ("f4", 3)])
    @pytest.mark.parametrize("order", ["<", ">"])
    def test_compressed_numbers_of_either_byte_order(self, tmp_path: Path, kind: str, number: int, order: str) -> None:
        """Pillow swaps the bytes of those that are signed or float, which libtiff has swapped already."""
        values = np.array([[1, -2, 300], [4, 5, 6]], kind)
        unsigned = values.view(f"u{values.itemsize}")
        (tmp_path / "a.tif").write_bytes(tiff(unsigned, 8 * values.itemsize, {339: number}, order, compressed=True))
        assert read_values(tmp_path / "a.tif")[0].tolist() == values.tolist()

    @pytest.mark.parametrize(("bands", "meaning", "read"), [(2, 1, 1), (4, 2, 3)])
    def test_no_band_is_left_out(self, tmp_path: Path, bands: int, meaning: int, read: int) -> None:
        """A target of two bands had one channel."""
        (tmp_path / "a.tif").write_bytes(tiff(noise(6, 8, bands), 8, {262: meaning, 338: 0}))
        with pytest.raises(SemipixError, match=f"holds {bands} bands, of which only {read} can be read as numbers"):
            read_values(tmp_path / "a.tif")

    def test_several_channels(self, tmp_path: Path) -> None:
        values = np.arange(60, dtype=np.float64).reshape(5, 3, 4)
        assert torch.equal(read_values(save(tmp_path / "a.npy", values)), torch.from_numpy(values).float())

    @pytest.mark.parametrize("top", [256, 65536])
    def test_whole_numbers_are_not_scaled(self, tmp_path: Path, top: int) -> None:
        values = noise(6, 8, top=top)
        assert torch.equal(
            read_values(save(tmp_path / "a.png", values))[0], torch.from_numpy(values.astype(np.float32))
        )

    @pytest.mark.parametrize(
        ("values", "pattern"),
        [
            (np.zeros(4), r"shape \[4\], expected real ones of shape \[height,width\] or \[channels,height,width\]"),
            (np.zeros((2, 2), complex), "found complex128 numbers"),
            (np.array([["a"]]), "numbers of shape"),
        ],
    )
    def test_arrays_of_something_else(self, tmp_path: Path, values: np.ndarray, pattern: str) -> None:
        with pytest.raises(SemipixError, match=rf"a\.npy: found .*{pattern.removeprefix('found ')}"):
            read_values(save(tmp_path / "a.npy", values))

    def test_objects_are_never_loaded(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.array([{}], object), allow_pickle=True)
        with pytest.raises(SemipixError, match=r"a\.npy: not an array of numpy"):
            read_values(tmp_path / "a.npy")

    def test_errors(self, tmp_path: Path) -> None:
        (tmp_path / "a.npy").write_bytes(b"broken")
        Image.new("P", (8, 6)).save(tmp_path / "a.png")
        for name, pattern in (("a.npy", "not an array"), ("b.npy", "no such file"), ("a.png", "pixels of mode P")):
            with pytest.raises(SemipixError, match=rf"{name}: .*{pattern}") as caught:
                read_values(tmp_path / name)
            assert "\n" not in str(caught.value)


class TestGrey:
    """`read_grey` returns one value a pixel in [0, 1]."""

    @pytest.mark.parametrize(
        ("values", "name"),
        [
            (np.full((6, 8), 51, np.uint8), "a.png"),
            (np.full((6, 8, 3), 51, np.uint8), "a.png"),
            (np.full((6, 8), 13107, np.uint16), "a.png"),
            (np.full((6, 8), 0.2, np.float32), "a.tif"),
            (np.full((6, 8), 0.2), "a.npy"),
        ],
    )
    def test_formats(self, tmp_path: Path, values: np.ndarray, name: str) -> None:
        assert torch.allclose(read_grey(save(tmp_path / name, values)), torch.full((6, 8), 0.2))

    @pytest.mark.parametrize("name", ["a.tif", "a.npy"])
    @pytest.mark.parametrize("value", [1.7, -0.1, float("nan")])
    def test_floats_outside_0_to_1(self, tmp_path: Path, name: str, value: float) -> None:
        values = np.full((6, 8), 0.5, np.float32)
        values[2, 3] = value
        with pytest.raises(SemipixError, match=rf"{name}: found values from .* expected 0 to 1; scale the values"):
            read_grey(save(tmp_path / name, values))

    def test_colours(self, tmp_path: Path) -> None:
        with pytest.raises(SemipixError, match=r"a\.png: found colours, expected one grey value a pixel"):
            read_grey(save(tmp_path / "a.png", noise(6, 8, 3)))
        with pytest.raises(SemipixError, match=r"a\.npy: found 3 channels, expected one value a pixel"):
            read_grey(save(tmp_path / "a.npy", np.zeros((3, 6, 8))))


class TestPixels:
    """Bytes stay bytes, and an image that is shrunk may be decoded at a reduced scale."""

    def photo(self, path: Path, height: int = 600, width: int = 802, **options: Any) -> Path:
        """A smooth image with a little noise."""
        y, x = np.mgrid[:height, :width]
        values = 127 + 90 * np.sin(x / 60)[..., None] * np.cos(y / 45)[..., None] * np.array([1, -1, 0.5])
        values = np.clip(values + np.random.default_rng(0).normal(0, 4, values.shape), 0, 255).astype(np.uint8)
        Image.fromarray(values).save(path, **options)
        return path

    @pytest.mark.parametrize("name", ["a.png", "a.jpg"])
    def test_as_read_image(self, tmp_path: Path, name: str) -> None:
        path = self.photo(tmp_path / name)
        pixels = read_pixels(path)
        assert pixels.dtype == torch.uint8
        assert torch.equal(unit_range(pixels), read_image(path))

    @pytest.mark.parametrize("resize", [400, 100, (90, 101), 37])
    @pytest.mark.parametrize("name", ["a.png", "a.jpg"])
    def test_shrunk_is_close_to_decoded_and_resized(
        self, tmp_path: Path, name: str, resize: int | tuple[int, int]
    ) -> None:
        path = self.photo(tmp_path / name)
        pixels = read_pixels(path, resize)
        expected = resize_image(tv_tensors.Image(read_image(path)), resize)
        assert pixels.dtype == torch.uint8
        assert pixels.shape == expected.shape
        assert (unit_range(pixels) - expected).abs().mean() < 0.01

    @pytest.fixture
    def decoded(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
        """Width and height at which each JPEG is decoded."""
        sizes: list[tuple[int, int]] = []
        load = JpegImageFile.load
        monkeypatch.setattr(JpegImageFile, "load", lambda image: [sizes.append(image.size), load(image)][1])
        return sizes

    def test_a_jpeg_is_decoded_at_reduced_scale_only_where_it_covers_the_result_twice(
        self, tmp_path: Path, decoded: list[tuple[int, int]]
    ) -> None:
        path = self.photo(tmp_path / "a.jpg", 800, 1600)
        for resize, size in ((None, (1600, 800)), (401, (1600, 800)), (400, (800, 400)), (199, (400, 200))):
            decoded.clear()
            read_pixels(path, resize)
            assert decoded[0] == size

    @pytest.mark.parametrize(
        ("height", "resize", "size"), [(375, 125, (250, 188)), (375, (94, 125), (250, 188)), (373, 62, (125, 94))]
    )
    def test_sides_of_odd_length_round_up(
        self, tmp_path: Path, decoded: list[tuple[int, int]], height: int, resize: Any, size: tuple[int, int]
    ) -> None:
        path = self.photo(tmp_path / "a.jpg", height, 500)
        expected = resize_image(tv_tensors.Image(read_image(path)), resize)
        decoded.clear()
        pixels = read_pixels(path, resize)
        assert decoded[0] == size
        assert pixels.shape == expected.shape
        assert (unit_range(pixels) - expected).abs().mean() < 0.01

    def test_sideways(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        path = self.photo(tmp_path / "a.jpg", exif=exif)
        expected = resize_image(tv_tensors.Image(read_image(path)), 100)
        assert expected.shape == (3, 100, 75)
        pixels = read_pixels(path, 100)
        assert pixels.shape == expected.shape
        assert (unit_range(pixels) - expected).abs().mean() < 0.01

    def test_deep_files_keep_their_depth(self, tmp_path: Path) -> None:
        path = save(tmp_path / "a.png", noise(40, 60, 3, top=65536))
        assert torch.equal(read_pixels(path, 20), read_image(path))

    def test_bytes_in_memory(self, tmp_path: Path) -> None:
        path = self.photo(tmp_path / "a.jpg")
        assert torch.equal(read_pixels(Encoded("shard.tar/a.jpg", path.read_bytes())), read_pixels(path))
        with pytest.raises(SemipixError, match=r"^shard\.tar/a\.jpg: corrupt or truncated"):
            read_pixels(Encoded("shard.tar/a.jpg", path.read_bytes()[:3000]))
