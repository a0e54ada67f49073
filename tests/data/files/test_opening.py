"""Orientation, damaged metadata, limits, truncation, and what headers say, in every format.

Also tests data/files/missing_rows.py.
"""

import io
import os
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile

from semipix.data.files import decode
from semipix.data.files.decode import (
    bits,
    check_label_size,
    image_size,
    read_grey,
    read_header,
    read_image,
    read_pixels,
    read_values,
)
from semipix.data.files.decode_masks import read_indices
from semipix.data.files.file_headers import page_count
from semipix.data.files.opening import MAX_PIXELS, Encoded
from semipix.errors import SemipixError, UnreadableFileError
from tests.helpers.image_files import PASSES, chunk, gif, grey_png, packed, png, tiff
from tests.helpers.tiny_files import noise, save

UPRIGHT: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: np.rot90,
}
"""What each orientation asks for: 6 is to be turned clockwise, 8 counterclockwise, 5 mirrored along the diagonal."""

DEEP = noise(4, 6, 3, top=65536)


def exif(orientation: int) -> bytes:
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags.tobytes()


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The formats of the images that are decoded."""
    files: list[str] = []
    load = ImageFile.ImageFile.load

    def spy(image: Any) -> Any:
        if image.tile:
            files.append(image.format)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", spy)
    return files


@pytest.mark.parametrize("turn", range(1, 9))
class TestOrientation:
    """Each of the eight orientations is applied once by all functions that read pixels."""

    @pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
    @pytest.mark.parametrize("kind", ["grey", "colour", "deep grey", "float"])
    def test_tiff(self, tmp_path: Path, turn: int, compression: str | None, kind: str) -> None:
        stored = {
            "grey": noise(4, 6),
            "colour": noise(4, 6, 3),
            "deep grey": noise(4, 6, top=65536),
            "float": noise(4, 6).astype(np.float32) / 256,
        }[kind]
        path = save(tmp_path / "a.tif", stored, compression=compression, exif=exif(turn))
        expected = UPRIGHT[turn](stored)
        assert image_size(path) == expected.shape[:2]
        assert read_header(path).orientation == turn
        values = read_values(path).permute(1, 2, 0).squeeze(-1)
        assert np.array_equal(values.numpy(), expected.astype(np.float32))
        top = {"deep grey": 65535, "float": 1}.get(kind, 255)
        image = read_image(path)[:1] if kind != "colour" else read_image(path)
        assert np.allclose(image.permute(1, 2, 0).squeeze(-1).numpy() * top, expected, atol=1e-3)
        if kind == "grey":
            assert np.array_equal(read_grey(path).numpy() * 255, expected)
        if kind in ("grey", "deep grey"):
            assert np.array_equal(read_indices(path).numpy(), expected)

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("compressed", [False, True])
    def test_tiff_of_deep_colours(self, tmp_path: Path, turn: int, order: str, compressed: bool) -> None:
        (tmp_path / "a.tif").write_bytes(tiff(DEEP, 16, {274: turn}, order, compressed=compressed))
        expected = UPRIGHT[turn](DEEP).astype(np.float32)
        image, values = read_image(tmp_path / "a.tif"), read_values(tmp_path / "a.tif")
        assert image_size(tmp_path / "a.tif") == expected.shape[:2]
        assert np.array_equal((image * 65535).round().permute(1, 2, 0).numpy(), expected)
        assert np.array_equal(values.permute(1, 2, 0).numpy(), expected)

    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
    def test_exif(self, tmp_path: Path, turn: int, name: str) -> None:
        stored = np.kron(noise(2, 3, 3), np.ones((16, 16, 1), np.uint8))
        options = {"a.webp": {"lossless": True}, "a.jpg": {"quality": 100}, "a.tif": {"compression": "jpeg"}}
        Image.fromarray(stored).save(tmp_path / name, exif=exif(turn), **options.get(name, {}))
        expected = UPRIGHT[turn](stored)
        pixels = read_pixels(tmp_path / name).permute(1, 2, 0).numpy()
        assert image_size(tmp_path / name) == pixels.shape[:2] == expected.shape[:2]
        centers = np.s_[8::16, 8::16]
        assert np.abs(pixels[centers].astype(int) - expected[centers]).max() < (40 if name[2:] in ("jpg", "tif") else 1)
        small = read_pixels(tmp_path / name, 24).permute(1, 2, 0).numpy()
        assert small.shape[:2] == tuple(side // 2 for side in expected.shape[:2])
        assert np.abs(small[4::8, 4::8].astype(int) - expected[centers]).max() < (
            45 if name[2:] in ("jpg", "tif") else 4
        )

    def test_xmp(self, tmp_path: Path, turn: int) -> None:
        xmp = f'<x:xmpmeta><rdf:Description tiff:Orientation="{turn}"/></x:xmpmeta>'.encode()
        stored = noise(4, 6, 3)
        text = chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp)
        rows = b"".join(b"\0" + row.tobytes() for row in stored)
        for place in ("before", "after"):
            (tmp_path / "a.png").write_bytes(png((6, 4, 8, 2, 0), rows, **{place: text}))
            assert np.array_equal(read_pixels(tmp_path / "a.png").permute(1, 2, 0).numpy(), UPRIGHT[turn](stored))
        Image.fromarray(stored).save(tmp_path / "a.webp", xmp=xmp, lossless=True)
        (tmp_path / "a.tif").write_bytes(tiff(stored))
        Image.fromarray(stored).save(tmp_path / "b.tif", tiffinfo={700: xmp})
        for name in ("a.webp", "b.tif"):
            assert np.array_equal(read_pixels(tmp_path / name).permute(1, 2, 0).numpy(), UPRIGHT[turn](stored))
            assert image_size(tmp_path / name) == UPRIGHT[turn](stored).shape[:2]


GARBAGE = {
    "empty": b"",
    "letters": b"abc",
    "no header": b"Exif\0\0abcdefgh",
    "cut": exif(6)[:20],
    "far pointer": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "0": exif(0),
    "9": exif(9),
    "a text": b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHI", 274, 2, 4) + b"6\0\0\0" + bytes(4),
    "resolution is an empty text": b"Exif\0\0II*\0\x08\0\0\0\2\0"
    + struct.pack("<HHII", 282, 2, 1, 0)
    + struct.pack("<HHII", 296, 3, 1, 2)
    + bytes(4),
}


class TestDamagedMetadata:
    """An image with damaged metadata is read as it is stored."""

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("what", GARBAGE)
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
    def test_exif(self, tmp_path: Path, name: str, what: str) -> None:
        if name == "a.png":
            row_bytes = b"".join(b"\0" + row.tobytes() for row in noise(16, 32, 3))
            data = GARBAGE[what].removeprefix(b"Exif\0\0")
            (tmp_path / name).write_bytes(png((32, 16, 8, 2, 0), row_bytes, chunk(b"eXIf", data)))
        else:
            Image.fromarray(noise(16, 32, 3)).save(tmp_path / name, exif=GARBAGE[what])
        assert image_size(tmp_path / name) == (16, 32)
        assert read_image(tmp_path / name).shape == (3, 16, 32)
        assert read_header(tmp_path / name).orientation == 1

    @pytest.mark.parametrize(
        "damaged",
        [
            chunk(b"eXIf", exif(6)[6:])[:-1] + b"?",
            chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(bytes(1 << 22))),
            chunk(b"zTXt", b"Raw profile type exif\0\0not packed"),
            chunk(b"zTXt", b"Raw profile type exif\0\7" + zlib.compress(b"")),
            chunk(b"tEXt", b"Raw profile type exif\0\nexif\n4\nxyz"),
            chunk(b"iTXt", b"exif\0\0\0\0\0text"),
            chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0tiff:Orientation="62"'),
        ],
    )
    @pytest.mark.parametrize("place", ["before", "after"])
    def test_of_png(self, tmp_path: Path, damaged: bytes, place: str) -> None:
        stored = noise(4, 6)
        rows = b"".join(b"\0" + row.tobytes() for row in stored)
        (tmp_path / "a.png").write_bytes(png((6, 4, 8, 0, 0), rows, **{place: damaged}))
        assert image_size(tmp_path / "a.png") == (4, 6)
        assert read_indices(tmp_path / "a.png").tolist() == stored.tolist()

    def test_damage_elsewhere_leaves_the_orientation(self, tmp_path: Path) -> None:
        rows = b"".join(b"\0" + row.tobytes() for row in noise(4, 6))
        comment = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 22)))
        (tmp_path / "a.png").write_bytes(png((6, 4, 8, 0, 0), rows, comment + chunk(b"eXIf", exif(6)[6:])))
        assert read_indices(tmp_path / "a.png").shape == (6, 4)

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("turn", [0, 9, 65535])
    def test_of_tiff(self, tmp_path: Path, turn: int) -> None:
        (tmp_path / "a.tif").write_bytes(tiff(noise(4, 6), tags={274: turn, 34665: 1 << 30}))
        assert image_size(tmp_path / "a.tif") == (4, 6)
        assert read_indices(tmp_path / "a.tif").tolist() == noise(4, 6).tolist()


class TestHeaders:
    """Headers are read without decoding."""

    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif"])
    def test_nothing_is_decoded(self, tmp_path: Path, decoded: list[str], name: str) -> None:
        path = save(tmp_path / name, noise(6, 8))
        assert image_size(path) == (6, 8)
        assert bits(path) == "8-bit"
        assert read_header(path) == ((6, 8), 1, 1, 0)
        check_label_size(path, path, torch.zeros(6, 8))
        assert decoded == []
        read_image(path)
        assert decoded or name == "a.webp"

    @pytest.mark.parametrize("late", [False, True])
    def test_exif_behind_the_pixels_of_a_png(self, tmp_path: Path, decoded: list[str], late: bool) -> None:
        stored = noise(4, 6)
        rows = b"".join(b"\0" + row.tobytes() for row in stored)
        text = b"\nexif\n%8d\n" % len(exif(6)) + exif(6).hex().encode() + b"\n"
        for tag in (chunk(b"eXIf", exif(6)[6:]), chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text))):
            (tmp_path / "a.png").write_bytes(png((6, 4, 8, 0, 0), rows, **{"after" if late else "before": tag}))
            assert image_size(tmp_path / "a.png") == (6, 4)
            assert decoded == []
            assert np.array_equal(read_indices(tmp_path / "a.png").numpy(), np.rot90(stored, -1))
            assert np.array_equal(read_pixels(tmp_path / "a.png")[0].numpy(), np.rot90(stored, -1))
            decoded.clear()

    def test_pages(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(noise(6, 8, 3, seed=seed)) for seed in range(3)]
        for name in ("a.tif", "a.gif", "a.png", "a.webp"):
            frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:], lossless=True)
            assert read_header(tmp_path / name).pages == 3
        assert torch.equal(read_pixels(tmp_path / "a.tif")[0], torch.from_numpy(noise(6, 8, 3))[..., 0])
        frames[0].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
        assert Image.open(tmp_path / "a.jpg").format == "MPO"
        assert read_header(tmp_path / "a.jpg").pages == 1

    @pytest.mark.parametrize("order", ["<", ">"])
    @pytest.mark.parametrize("big", [False, True])
    def test_pages_of_tiff(self, tmp_path: Path, order: str, big: bool) -> None:
        (tmp_path / "a.tif").write_bytes(tiff(noise(4, 6), order=order, big=big, pages=3))
        if big and order == ">":
            with pytest.raises(UnreadableFileError, match=r"a\.tif: a BigTIFF of big-endian byte order"):
                read_header(tmp_path / "a.tif")
            return
        assert read_header(tmp_path / "a.tif") == ((4, 6), 1, 3, 0)
        assert read_indices(tmp_path / "a.tif").tolist() == noise(4, 6).tolist()
        (tmp_path / "b.tif").write_bytes(tiff(noise(4, 6), tags={254: 1}, order=order, big=big, pages=3))
        assert read_header(tmp_path / "b.tif").pages == 1

    def test_a_preview_before_its_image_is_told(self) -> None:
        """The first page is read, whatever it is; as the only page it would be no reason for a line."""
        assert page_count([{254: (1,)}, {254: (0,)}, {254: (1,)}]) == 2
        assert page_count([{254: (0,)}, {254: (1,)}]) == page_count([{254: (1,)}]) == page_count([]) == 1

    @pytest.mark.parametrize(("kind", "dropped"), [(0, 1), (1, 0), (2, 0)])
    def test_dropped_bands(self, tmp_path: Path, kind: int, dropped: int) -> None:
        stored = noise(4, 6, 4)
        (tmp_path / "a.tif").write_bytes(tiff(stored, tags={338: kind}))
        assert read_header(tmp_path / "a.tif").dropped_bands == dropped
        if kind != 1:
            assert np.array_equal(read_pixels(tmp_path / "a.tif").permute(1, 2, 0).numpy(), stored[..., :3])

    @pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
    @pytest.mark.parametrize(
        ("shape", "depth", "tags", "message"),
        [
            (
                (4, 6, 5),
                8,
                {338: (0, 0)},
                "holds 5 bands.*; expected 1 or 3, set data.bands=all or .*, or save the bands to use as RGB",
            ),
            (
                (4, 6, 8),
                16,
                {338: (0,) * 5},
                "holds 8 bands .*; expected 1 or 3, set data.bands=all or .*, or save the bands to use as RGB",
            ),
            (
                (4, 6, 2),
                16,
                {338: 2},
                r"holds 2 bands \(2x16-bit unsigned samples\); expected 1 or 3, set data.bands=all",
            ),
            (
                (4, 6, 3),
                32,
                {339: (3, 3, 3)},
                "holds 3x32-bit float samples, which cannot be read; expected 8 or 16 .*no label, set data.range=",
            ),
            ((4, 6), 64, {339: 3}, "holds 1x64-bit float samples, which cannot be read; expected 8 or 16"),
            ((4, 6), 8, {259: 34887}, "compressed by method 34887, which cannot be read"),
            ((4, 6, 3), 16, {262: 1, 338: [0, 0]}, r"holds 3 bands that are not tagged as red.*set data.bands=all"),
            ((4, 6, 3), 16, {284: 2}, r"holds 16-bit bands one after another \(PlanarConfiguration 2\)"),
        ],
    )
    def test_tiffs_that_cannot_be_read(
        self,
        tmp_path: Path,
        order: str,
        big: bool,
        shape: tuple[int, ...],
        depth: int,
        tags: dict[int, Any],
        message: str,
    ) -> None:
        (tmp_path / "a.tif").write_bytes(tiff(noise(*shape), depth, tags, order, big))
        for read in (read_image, read_header, read_indices):
            with pytest.raises(UnreadableFileError, match=rf"a\.tif: .*{message}") as caught:
                read(tmp_path / "a.tif")
            assert "\n" not in str(caught.value)
            assert "corrupt" not in str(caught.value)

    def test_no_tiff(self, tmp_path: Path) -> None:
        (tmp_path / "a.tif").write_bytes(b"II*\0\x08\0\0\0" + bytes(50))
        with pytest.raises(UnreadableFileError, match=r"a\.tif: not a readable image; expected png, jpeg"):
            read_image(tmp_path / "a.tif")


class TestLimits:
    """Images that are too large are refused by their headers."""

    def test_our_own_limit_is_the_only_one(self, tmp_path: Path, decoded: list[str]) -> None:
        assert Image.MAX_IMAGE_PIXELS is None
        assert MAX_PIXELS == 160_000_000
        path = tmp_path / "a.png"
        path.write_bytes(png((30000, 30000, 1, 0, 0), b""))
        message = r"a\.png: 30000x30000 pixels, more than data\.max_pixels=160000000; raise data\.max_pixels to read it"
        for read in (read_image, read_pixels, read_values, read_grey, read_indices, read_header, image_size, bits):
            with pytest.raises(UnreadableFileError, match=message):
                read(path)  # type: ignore[operator]
        assert image_size(path, max_pixels=30000**2) == (30000, 30000)
        assert decoded == []

    @pytest.mark.parametrize(
        ("kind", "depth", "most"), [(2, 8, 15), (0, 8, 15), (0, 16, 16), (2, 16, 16), (4, 16, 16), (3, 8, 15)]
    )
    def test_memory_of_a_pixel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: int, depth: int, most: int
    ) -> None:
        """At most three bytes and three floats, or three floats and a Pillow image, whose memory is not traced."""
        monkeypatch.setattr(decode, "_BAND", 2**12)
        row = b"\0" + bytes([1]) * (400 * {0: 1, 2: 3, 3: 1, 4: 2}[kind] * depth // 8)
        palette = chunk(b"PLTE", bytes(768)) if kind == 3 else b""
        path = tmp_path / "a.png"
        path.write_bytes(png((400, 400, depth, kind, 0), row * 400, palette))
        read_image(path)  # what is imported and kept at the first time is no part of it
        tracemalloc.start()
        try:
            read_image(path)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        traced = most - 12 if depth == 8 else 12  # torch's floats are not traced either
        assert traced * 400**2 <= peak < (traced + 1.5) * 400**2

    def test_an_array_of_many_channels(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros((4, 6, 8)))
        assert read_values(tmp_path / "a.npy", max_pixels=64).shape == (4, 6, 8)
        with pytest.raises(UnreadableFileError, match=r"a\.npy: 192 numbers, more than three for each pixel of"):
            read_values(tmp_path / "a.npy", max_pixels=63)

    def test_a_webp_before_libwebp_takes_memory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        content = bytearray(save(tmp_path / "a.webp", noise(6, 8), exif=exif(1)).read_bytes())
        content[24:30] = b"\xff\xff\0" * 2
        monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("opened"))
        with pytest.raises(UnreadableFileError, match="65536x65536 pixels"):
            read_header(Encoded("a.webp", bytes(content)))

    @pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.bmp", "a.tif", "a.gif", "a.npy"])
    def test_of_each_format(self, tmp_path: Path, name: str) -> None:
        path = save(tmp_path / name, noise(6, 8))
        assert name == "a.webp" or read_values(path, max_pixels=48).shape[-2:] == (6, 8)
        assert image_size(path, max_pixels=48) == (6, 8)
        with pytest.raises(UnreadableFileError, match=r"8x6 pixels, more than data\.max_pixels=47"):
            image_size(path, max_pixels=47)
        with pytest.raises(UnreadableFileError, match=r"8x6 pixels, more than data\.max_pixels=47"):
            check_label_size(path, path, torch.zeros(6, 8), max_pixels=47)


def short_png(height: int, width: int, depth: int, kind: int, interlaced: bool, share: float) -> tuple[bytes, bytes]:
    """A PNG without a dark pixel, and the same PNG with only some of its rows."""
    bands = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    values = np.full((height, width, bands), (1 << depth) - 1)
    parts = [values[top::down, left::right] for left, top, right, down in PASSES] if interlaced else [values]
    rows = [b"\0" + row for part in parts if part.size for row in packed(part, depth)]
    palette = chunk(b"PLTE", bytes(range(3, 6)) * (1 << depth)) if kind == 3 else b""
    header = (width, height, depth, kind, int(interlaced))
    some = rows[: round(len(rows) * share)]
    return png(header, b"".join(rows), palette), png(header, b"".join(some), palette)


class TestTruncation:
    """Files that end correctly, but too early."""

    KINDS = (
        *((depth, 0) for depth in (1, 2, 4, 8, 16)),
        *((depth, 3) for depth in (1, 2, 4, 8)),
        *((depth, kind) for depth in (8, 16) for kind in (2, 4, 6)),
    )

    @pytest.mark.parametrize("interlaced", [False, True])
    @pytest.mark.parametrize(("depth", "kind"), KINDS)
    @pytest.mark.parametrize(("height", "width"), [(30, 17), (1, 40), (33, 1)])
    def test_png(self, tmp_path: Path, depth: int, kind: int, interlaced: bool, height: int, width: int) -> None:
        for share in (0, 1 / 3, 0.9):
            full, short = short_png(height, width, depth, kind, interlaced, share)
            (tmp_path / "full.png").write_bytes(full)
            assert read_image(tmp_path / "full.png").shape == (3, height, width)
            (tmp_path / "a.png").write_bytes(short)
            if full != short:
                with pytest.raises(UnreadableFileError, match=r"a\.png: corrupt or truncated .*"):
                    read_image(tmp_path / "a.png")

    def test_png_reports_how_many_rows_it_contains(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").write_bytes(short_png(30, 17, 8, 0, False, 1 / 3)[1])
        for read in (read_image, read_values, read_indices):
            with pytest.raises(
                UnreadableFileError, match=r"a\.png: corrupt or truncated image \(holds 10 of 30 rows\)"
            ):
                read(tmp_path / "a.png")

    def test_black_is_no_truncation(self, tmp_path: Path) -> None:
        for name in ("a.png", "a.gif", "a.jpg", "a.tif", "a.bmp"):
            assert read_image(save(tmp_path / name, np.zeros((40, 50), np.uint8))).max() == 0
            assert read_image(save(tmp_path / name, np.full((40, 50), 128, np.uint8))).max() == 128 / 255

    @pytest.mark.parametrize("rows", [0, 10, 29])
    def test_gif(self, tmp_path: Path, rows: int) -> None:
        values, colours = np.ones((30, 17), np.uint8), [(0, 0, 0), (3, 4, 5)]
        (tmp_path / "a.gif").write_bytes(gif(values, colours))
        assert read_indices(tmp_path / "a.gif").min() == 1
        (tmp_path / "a.gif").write_bytes(gif(values, colours, rows))
        with pytest.raises(UnreadableFileError, match=r"a\.gif: corrupt or truncated"):
            read_indices(tmp_path / "a.gif")

    @pytest.mark.parametrize("options", [{}, {"restart_marker_rows": 2}, {"subsampling": 0}, {"mode": "L"}])
    @pytest.mark.parametrize("resize", [None, 50])
    def test_jpeg(self, tmp_path: Path, options: dict[str, Any], resize: int | None) -> None:
        stored = Image.fromarray(noise(304, 400, 3))
        stream = io.BytesIO()
        stored.convert(options.pop("mode", "RGB")).save(stream, "JPEG", **options)
        content = stream.getvalue()
        (tmp_path / "a.jpg").write_bytes(content)
        read_pixels(tmp_path / "a.jpg", resize)
        (tmp_path / "a.jpg").write_bytes(content[: len(content) // 3] + b"\xff\xd9")
        with pytest.raises(UnreadableFileError, match=r"a\.jpg: corrupt or truncated image \(holds \d+ of 304 rows\)"):
            read_pixels(tmp_path / "a.jpg", resize)

    @pytest.mark.parametrize("lossless", [False, True])
    def test_webp(self, tmp_path: Path, lossless: bool) -> None:
        content = save(tmp_path / "a.webp", noise(60, 80, 3), lossless=lossless).read_bytes()
        body = content[20 : 20 + len(content) // 6 * 2]
        part = b"WEBP" + content[12:16] + struct.pack("<I", len(body)) + body
        (tmp_path / "a.webp").write_bytes(b"RIFF" + struct.pack("<I", len(part)) + part)
        with pytest.raises(UnreadableFileError, match=r"a\.webp: "):
            read_image(tmp_path / "a.webp")

    def test_mpo(self, tmp_path: Path) -> None:
        stored = noise(64, 80, 3)
        stored[32:] = 128  # as libjpeg fills what is missing
        Image.fromarray(stored).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.fromarray(stored)])
        assert read_pixels(tmp_path / "a.jpg").shape == (3, 64, 80)

    def test_bmp(self, tmp_path: Path) -> None:
        content = save(tmp_path / "a.bmp", noise(60, 80, 3)).read_bytes()
        (tmp_path / "a.bmp").write_bytes(content[: len(content) // 3])
        with pytest.raises(UnreadableFileError, match=r"a\.bmp: corrupt or truncated"):
            read_image(tmp_path / "a.bmp")

    @pytest.mark.parametrize("compressed", [False, True])
    def test_tiff_without_some_strips(self, tmp_path: Path, compressed: bool) -> None:
        full = tiff(noise(30, 8), rows_per_strip=3, compressed=compressed)
        (tmp_path / "a.tif").write_bytes(full)
        assert read_indices(tmp_path / "a.tif").tolist() == noise(30, 8).tolist()
        lengths = [24] * 10
        for tags in ({273: (8, 32, 56), 279: lengths[:3]}, {273: [8, 32, 56] + [0] * 7, 279: lengths[:3] + [0] * 7}):
            (tmp_path / "a.tif").write_bytes(tiff(noise(30, 8), rows_per_strip=3, tags=tags))
            with pytest.raises(UnreadableFileError, match=r"a\.tif: corrupt or truncated .*holds 3 of 10 strips"):
                read_indices(tmp_path / "a.tif")

    @pytest.mark.parametrize("tiles", [4, 3])
    def test_tiff_without_a_tile(self, tmp_path: Path, tiles: int) -> None:
        values = noise(64, 16, top=255) + 1
        places: dict[int, Any] = {273: None, 278: None, 279: None, 322: 16, 323: 16}
        places |= {324: [8 + 256 * index for index in range(tiles)], 325: [256] * tiles}
        (tmp_path / "a.tif").write_bytes(tiff(values, tags={256: 32, 257: 32, **places}))
        if tiles == 4:
            assert np.array_equal(read_indices(tmp_path / "a.tif")[16:, 16:], values[48:])
            return
        with pytest.raises(UnreadableFileError, match=r"a\.tif: corrupt or truncated .*holds 3 of 4 tiles"):
            read_indices(tmp_path / "a.tif")


class TestReducedScale:
    """A JPEG that is decoded at a reduced scale keeps its geometry."""

    @pytest.mark.parametrize("turn", [1, 6])
    @pytest.mark.parametrize("width", [1601, 1607])
    def test_nothing_shifts(self, tmp_path: Path, width: int, turn: int) -> None:
        ramp = np.tile(np.linspace(0, 255, width), (800, 1)).round().astype(np.uint8)
        Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95, exif=exif(turn))
        resize = (50, 100) if turn == 1 else (100, 50)
        pixels = read_pixels(tmp_path / "a.jpg", resize)[0].float()
        middle = pixels[25] if turn == 1 else pixels[:, 25]
        expected = (torch.arange(100) + 0.5) * 2.55
        assert (middle - expected)[2:-2].abs().max() < 1.1  # rounding
        assert (middle - expected)[-22:-2].mean() < 0.7  # a column too much shifts the right end by 1.1

    def test_a_side_of_few_pixels(self, tmp_path: Path) -> None:
        save(tmp_path / "a.jpg", noise(5, 4000))
        assert read_pixels(tmp_path / "a.jpg", 400).shape == (3, 1, 400)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("turn", [1, 6])
def test_deep_grey_with_alpha(tmp_path: Path, interlaced: bool, turn: int) -> None:
    stored = noise(9, 13, 2, top=65536)
    parts = [stored[top::down, left::right] for left, top, right, down in PASSES] if interlaced else [stored]
    rows = b"".join(b"\0" + row for part in parts if part.size for row in packed(part, 16))
    content = png((13, 9, 16, 4, int(interlaced)), rows, chunk(b"eXIf", exif(turn)[6:]))
    (tmp_path / "a.png").write_bytes(content)
    image = read_image(tmp_path / "a.png")
    assert bits(tmp_path / "a.png") == "16-bit"
    expected = torch.from_numpy(UPRIGHT[turn](stored[..., 0]).astype(np.float32))
    assert torch.equal((image * 65535).round(), expected.expand(3, *expected.shape))
    assert torch.equal((read_grey(tmp_path / "a.png") * 65535).round(), expected)


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xe9.png")
    path = save(tmp_path / name, noise(4, 6))
    assert read_indices(path).tolist() == noise(4, 6).tolist()
    assert read_header(path).size == image_size(path) == (4, 6)
    path.write_bytes(grey_png(noise(4, 6), 8)[:60])
    with pytest.raises(SemipixError):
        read_image(path)


@pytest.mark.parametrize("extension", ["gif", "jfif", "jpe"])
def test_further_extensions(tmp_path: Path, extension: str) -> None:
    assert read_image(save(tmp_path / f"a.{extension}", np.full((6, 8), 51, np.uint8))).mean().item() == pytest.approx(
        0.2
    )


@pytest.mark.parametrize("content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n", b"P5 2 2 255\n\0\1\2\3"])
def test_other_formats_are_not_opened_by_any_extension(tmp_path: Path, content: bytes) -> None:
    """Pillow would start Ghostscript for the first file."""
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(SemipixError, match=r"a\.png: not a readable image; expected png, jpeg"):
        read_image(path)
