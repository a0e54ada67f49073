"""Masks of colours as class indices."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semipix.data.files.decode_colours import ColourTable, UnknownColourError, read_colour_mask, read_colours
from semipix.errors import SemipixError

TABLE = ColourTable(Path("classes.txt"), {(0, 0, 0): 0, (128, 64, 128): 1, (0, 0, 200): 2, (7, 7, 7): 255})

INDICES = np.array([[0, 1, 1], [2, 2, 255]], np.uint8)

COLOURS = np.zeros((256, 3), np.uint8)
COLOURS[[1, 2, 255]] = [(128, 64, 128), (0, 0, 200), (7, 7, 7)]


def write(path: Path, mode: str) -> Path:
    image = Image.fromarray(COLOURS[INDICES])
    if mode == "P":  # the palette's order says nothing: only its colours do
        image = image.quantize(4)
    elif mode == "RGBA":
        image.putalpha(Image.fromarray(np.full((2, 3), 9, np.uint8)))
    image.save(path)
    return path


@pytest.mark.parametrize(("mode", "extension"), [("RGB", "png"), ("RGBA", "png"), ("P", "png"), ("RGB", "bmp")])
def test_colours_become_indices(tmp_path: Path, mode: str, extension: str) -> None:
    mask = read_colour_mask(write(tmp_path / f"a.{extension}", mode), TABLE)
    assert mask.values.tolist() == INDICES.tolist()
    assert mask.palette is None


def test_a_mask_is_turned_by_its_own_tag(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(COLOURS[np.rot90(INDICES)]).save(tmp_path / "a.png", exif=exif)
    mask = read_colour_mask(tmp_path / "a.png", TABLE)
    assert (mask.values.tolist(), mask.orientation) == (INDICES.tolist(), 6)
    assert read_colours(tmp_path / "a.png").values[0, 1] == 128 << 16 | 64 << 8 | 128


def test_unknown_colours_are_named_with_their_count(tmp_path: Path) -> None:
    pixels = COLOURS[INDICES].copy()
    pixels[0, :2] = (1, 2, 3)
    pixels[1] = [(9, 9, 9), (8, 8, 8), (5, 5, 5)]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(UnknownColourError, match=r"a\.png: .*\(1 2 3\) at 2 .* and 1 more colours; .*classes\.txt"):
        read_colour_mask(tmp_path / "a.png", TABLE)


def test_what_cannot_hold_classes_is_refused(tmp_path: Path) -> None:
    Image.fromarray(COLOURS[INDICES]).save(tmp_path / "a.jpg")
    with pytest.raises(SemipixError, match=r"a\.jpg: a mask stored as JPEG"):
        read_colour_mask(tmp_path / "a.jpg", TABLE)
    Image.fromarray(INDICES.astype(np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(SemipixError, match="more than 8 bits a channel"):
        read_colour_mask(tmp_path / "deep.png", TABLE)


def test_tables_that_differ_have_different_identities() -> None:
    other = ColourTable(TABLE.origin, {**TABLE.indices, (0, 0, 0): 2})
    assert TABLE.identity != other.identity
    assert TABLE.identity == ColourTable(Path("elsewhere"), dict(TABLE.indices)).identity
