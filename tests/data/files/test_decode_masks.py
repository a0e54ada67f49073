"""Masks keep their numbers in every format, and files that cannot keep them are refused.

Also tests data/files/reader.py.
"""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from semipix.data.files.decode import bits, read_values
from semipix.data.files.decode_masks import read_indices, read_mask_file
from semipix.data.files.reader import Reader
from semipix.data.survey import survey_masks
from semipix.errors import SemipixError, UnreadableFileError
from tests.helpers.image_files import gif, grey_png, tiff
from tests.helpers.tiny_files import noise, save


class TestLowBits:
    """Grey of 2 and 4 bits keeps its stored numbers."""

    @pytest.mark.parametrize("depth", [2, 4])
    @pytest.mark.parametrize("kind", ["png", "tif", "deflated"])
    def test_numbers(self, tmp_path: Path, depth: int, kind: str) -> None:
        values = noise(5, 7, top=1 << depth)
        path = tmp_path / "a"
        if kind == "png":
            path.write_bytes(grey_png(values, depth))
        else:
            path.write_bytes(tiff(values, depth, compressed=kind == "deflated"))
        assert read_indices(path).tolist() == values.tolist()
        assert read_values(path)[0].tolist() == values.tolist()
        assert bits(path) == "8-bit"

    @pytest.mark.parametrize("photometric", [0, 1])
    def test_one_bit_is_1_where_white_is_shown(self, tmp_path: Path, photometric: int) -> None:
        stored = noise(5, 8, top=2)
        (tmp_path / "a.tif").write_bytes(tiff(stored, 1, {262: photometric}))
        shown = stored if photometric else 1 - stored
        assert read_indices(tmp_path / "a.tif").tolist() == shown.tolist()

    @pytest.mark.parametrize("depth", [2, 4, 8, 16])
    def test_white_as_zero_is_refused(self, tmp_path: Path, depth: int) -> None:
        (tmp_path / "a.tif").write_bytes(tiff(noise(5, 8, top=4), depth, {262: 0}))
        for read in (read_indices, read_values):
            with pytest.raises(SemipixError, match=r"a\.tif: found grey in which 0 is white .* save it as MinIsBlack"):
                read(tmp_path / "a.tif")

    @pytest.mark.parametrize(("depth", "colours"), [(4, 16), (8, 2)])
    def test_bmp_with_a_grey_palette_of_few_bits(self, tmp_path: Path, depth: int, colours: int) -> None:
        values = noise(4, 8, top=colours)
        greys = range(16) if colours == 16 else (0, 255)
        rows = values[::-1, ::2] << 4 | values[::-1, 1::2] if depth == 4 else values[::-1]
        data = b"".join(row.astype(np.uint8).tobytes() for row in rows)
        palette = b"".join(bytes([grey, grey, grey, 0]) for grey in greys)
        head = struct.pack("<IiiHHIIiiII", 40, 8, 4, 1, depth, 0, len(data), 0, 0, colours, 0)
        start = 14 + len(head) + len(palette)
        (tmp_path / "a.bmp").write_bytes(
            struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start) + head + palette + data
        )
        assert read_indices(tmp_path / "a.bmp").tolist() == values.tolist()


class TestOrientation:
    """A mask is turned once, by its own tag."""

    @pytest.mark.parametrize("name", ["a.png", "a.tif"])
    @pytest.mark.parametrize("mode", ["L", "P"])
    def test_upright(self, tmp_path: Path, name: str, mode: str) -> None:
        values = noise(4, 6)
        image = Image.fromarray(values)
        if mode == "P":
            image = Image.fromarray(values, "P")
            image.putpalette(noise(768, seed=1).tobytes())
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        image.save(tmp_path / name, exif=exif)
        mask = read_mask_file(tmp_path / name)
        assert mask.orientation == 6
        assert mask.values.tolist() == np.rot90(values, -1).tolist()
        assert Reader().mask(tmp_path / name).tolist() == np.rot90(values, -1).tolist()


class TestLossy:
    """Lossy formats, in which class values change, are refused."""

    @pytest.mark.parametrize(
        ("name", "options", "kind"),
        [
            ("a.jpg", {}, "JPEG"),
            ("a.png", {"format": "JPEG"}, "JPEG"),
            ("a.webp", {"quality": 90}, "lossy WebP"),
            ("a.webp", {"quality": 90, "exif": b"Exif\0\0abc"}, "lossy WebP"),
            ("a.webp", {"quality": 90, "save_all": True}, "lossy WebP"),
            ("a.tif", {"compression": "jpeg"}, "TIFF with JPEG compression"),
        ],
    )
    def test_refused(self, tmp_path: Path, name: str, options: dict[str, object], kind: str) -> None:
        image = Image.fromarray(noise(16, 16))
        if options.get("save_all"):
            options = options | {"append_images": [Image.fromarray(noise(16, 16, seed=1))]}
        image.save(tmp_path / name, **options)
        with pytest.raises(SemipixError, match=rf"{name}: a mask stored as {kind}, a lossy format .*; expected PNG"):
            read_indices(tmp_path / name)

    def test_lossless_webp_is_not_called_lossy(self, tmp_path: Path) -> None:
        Image.fromarray(noise(16, 16)).save(tmp_path / "a.webp", lossless=True, exif=b"Exif\0\0VP8 ")
        with pytest.raises(SemipixError, match="found a mask of colours"):
            read_indices(tmp_path / "a.webp")


class TestPalettes:
    """Indices of a palette are returned with the colours that occur."""

    @pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.gif"])
    def test_colours_that_occur(self, tmp_path: Path, name: str) -> None:
        colours = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (9, 8, 7)]
        (path := tmp_path / name).touch()
        values = np.array([[0, 1], [3, 1]], np.uint8)
        image = Image.fromarray(values, "P")
        image.putpalette([part for colour in colours for part in colour])
        image.save(path, **({"optimize": False} if name == "a.gif" else {}))
        mask = read_mask_file(path)
        assert mask.values.tolist() == values.tolist()
        assert mask.palette == {0: colours[0], 1: colours[1], 3: colours[3]}

    def test_grey_has_none(self, tmp_path: Path) -> None:
        assert read_mask_file(save(tmp_path / "a.png", noise(4, 4))).palette is None

    @pytest.mark.parametrize("values", [[[0, 7], [255, 7]], [[0, 1], [2, 1]], [[5, 5], [5, 5]]])
    def test_a_grey_gif_reads_as_the_png_does(self, tmp_path: Path, values: list[list[int]]) -> None:
        for name in ("a.png", "a.gif"):
            mask = read_mask_file(save(tmp_path / name, np.array(values, np.uint8)))
            assert mask.values.tolist() == values
            assert mask.palette is None
        assert read_values(tmp_path / "a.gif")[0].tolist() == values

    def test_the_whole_palette_of_a_gif_says_whether_it_is_grey(self, tmp_path: Path) -> None:
        """Red does not occur in the second mask, whose classes are the same."""
        for name, values in (("a", [[0, 1], [2, 2]]), ("b", [[0, 2], [2, 2]])):
            mask = np.array(values, np.uint8)
            (tmp_path / f"{name}.gif").write_bytes(gif(mask, [(0, 0, 0), (255, 0, 0), (255, 255, 255)]))
            assert read_mask_file(tmp_path / f"{name}.gif").values.tolist() == values

    def test_gifs_of_grey_and_of_colours_do_not_go_together(self, tmp_path: Path) -> None:
        (tmp_path / "a.gif").write_bytes(gif(noise(4, 4, top=2), [(0, 0, 0), (255, 0, 0)]))
        (tmp_path / "b.gif").write_bytes(gif(noise(4, 4, top=2), [(0, 0, 0), (255, 255, 255)]))
        save(tmp_path / "c.gif", noise(4, 4))  # Pillow reads it as grey
        for name in "abc":
            save(tmp_path / f"{name}.png", noise(4, 4))
        found = survey_masks(tmp_path, {f"{name}.png": f"{name}.gif" for name in "abc"})
        assert list(found.problems) == ["b.png"]
        assert "b.gif: a GIF whose palette is grey, which is read by its grey values, but" in found.problems["b.png"]

    def test_a_colourful_gif_is_no_map_of_numbers(self, tmp_path: Path) -> None:
        (tmp_path / "a.gif").write_bytes(gif(noise(4, 4, top=3), [(0, 0, 0), (1, 2, 3), (9, 9, 9)]))
        with pytest.raises(SemipixError, match="pixels of mode P"):
            read_values(tmp_path / "a.gif")

    def test_the_first_frame_is_read(self, tmp_path: Path) -> None:
        first, second = Image.fromarray(noise(4, 4)), Image.fromarray(noise(4, 4, seed=1))
        for name in ("a.tif", "a.gif"):
            first.save(tmp_path / name, save_all=True, append_images=[second])
            assert read_indices(tmp_path / name).tolist() == noise(4, 4).tolist()


def test_floats_are_no_colours(tmp_path: Path) -> None:
    """The message named data.colours, which reads no floats."""
    path = save(tmp_path / "a.tif", np.ones((2, 3), np.float32))
    with pytest.raises(SemipixError, match=r"found a mask of floats, .* save it as 8-bit grey") as caught:
        read_indices(path)
    assert "data.colours" not in str(caught.value)


@pytest.mark.parametrize("depth", [8, 16])
def test_numbers_below_0_are_no_class_in_any_type(tmp_path: Path, depth: int) -> None:
    """-2 of 8 bits was class 254, and -1 was void."""
    values = np.array([[0, 1], [-2, 1]], f"i{depth // 8}")
    (tmp_path / "a.tif").write_bytes(tiff(values.view(f"u{depth // 8}"), depth, {339: 2}))
    with pytest.raises(SemipixError, match="found mask values from -2 to 1, expected class indices"):
        read_indices(tmp_path / "a.tif")


def test_a_mask_that_is_too_large(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", noise(6, 8))
    assert read_indices(path, max_pixels=48).shape == (6, 8)
    for read in (read_indices, read_mask_file):
        with pytest.raises(UnreadableFileError, match=r"a\.png: 8x6 pixels, more than data\.max_pixels=47; raise data"):
            read(path, max_pixels=47)
    with pytest.raises(UnreadableFileError, match="more than"):
        Reader(max_pixels=47).mask(path)
