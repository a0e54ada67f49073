"""Lists of classes with colours."""

from pathlib import Path

import pytest

from semipix.data.sources.class_names import read_classes
from semipix.data.sources.colour_classes import read_colour_file, read_colour_table, voc_colour, voc_colours
from semipix.errors import SemipixError

COLOURS = {(128, 64, 128): 0, (0, 0, 142): 1, (0, 0, 0): 255}


@pytest.mark.parametrize(
    "text",
    [
        "road side 128 64 128\n\n# a comment\ncar 0 0 142\nvoid 0 0 0\n",
        "road side,128,64,128\ncar, 0, 0, 142\nVoid,0,0,0\n",
        "128 64 128\troad side\n0 0 142\tcar\n0 0 0\tunlabeled\n",
        "# label:color_rgb:parts:actions\nroad side:128,64,128::\ncar:0,0,142:wheel:\n__ignore__:0,0,0::\n",
    ],
)
def test_forms(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    names, table = read_colour_file(tmp_path / "classes.txt")
    assert (names, table.indices) == (["road side", "car"], COLOURS)


def test_cvats_list_comes_first(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    (tmp_path / "labelmap.txt").write_text("c:1,1,1::\nd:2,2,2::\n")
    assert read_colour_table(tmp_path).names == ["c", "d"]
    (tmp_path / "labelmap.txt").unlink()
    with pytest.raises(SemipixError, match="found 'a', expected NAME RED GREEN BLUE"):
        read_colour_table(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(SemipixError, match=r"found no classes\.txt and no labelmap\.txt"):
        read_colour_table(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1 1 1\nb 1 1 1\n", "the colour 1 1 1 is there twice"),
        ("a 1 1 1\na 2 2 2\n", "class 'a' is there twice"),
        ("a 1 1 256\nb 1 1 1\n", "colour value 256"),
        ("a 1 1 1\nvoid 0 0 0\n", "found 1 classes"),
        ("a:1,1,1::\nb:::\n", "found 'b:::'"),
    ],
)
def test_errors(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(SemipixError, match=message) as caught:
        read_colour_table(tmp_path)
    assert str(tmp_path / "labelmap.txt") in str(caught.value)


def test_vocs_colours_are_those_of_its_palette() -> None:
    """As in VOC's files: aeroplane is 128 0 0, person 192 128 128, tvmonitor 0 64 128, the outline 224 224 192."""
    names, table = voc_colours(Path("masks"))
    assert [table.indices[colour] for colour in ((128, 0, 0), (192, 128, 128), (0, 64, 128))] == [1, 15, 20]
    assert (names[15], table.indices[224, 224, 192], voc_colour(255)) == ("person", 255, (224, 224, 192))
    assert len({voc_colour(index) for index in range(256)}) == 256


def test_lists_with_colours_name_the_classes_of_index_masks_too(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road 1 2 3\ncar 4 5 6\nvoid 0 0 0\n")
    assert read_classes(tmp_path) == ["road", "car"]
