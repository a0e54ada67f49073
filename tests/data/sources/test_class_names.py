"""Lists of class names in the formats of several tools, and warnings about the values of masks."""

from pathlib import Path

import pytest

from semipix.data.sources.class_names import class_values_warnings, read_classes, suggested_mask_values
from semipix.errors import SemipixError

ROAD_CAR = ["background", "road", "car"]


@pytest.mark.parametrize(
    "text",
    [
        "background\nroad\ncar\n",
        "\ufeffbackground\r\n\r\nroad\r\ncar\r\n",
        "# classes of our data\nbackground\nroad\n# vehicles\ncar",
        "__ignore__\nbackground\nroad\ncar\n",  # labelme
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nroad:128,0,0::\ncar:0,128,0:wheel,door:\n",  # CVAT
        "0: background\n1: road\n2: car\n",
        "2 car\n0 background\n1 road\n",
        "0\tbackground\n1\troad\n2\tcar\n",
        "0,background\n1,road\n2,car\n",
    ],
)
def test_forms_of_the_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_text(text, "utf-8")
    assert read_classes(tmp_path) == ROAD_CAR


def test_names_may_begin_with_a_number(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("road\n2 wheeler\n4 wheeler\n")
    assert read_classes(tmp_path) == ["road", "2 wheeler", "4 wheeler"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("background\n__ignore__\nroad\n", "found __ignore__ after the first line"),
        ("background:0,0,0::\nroad\n", "found 'road' among lines of the form name:red,green,blue:parts:actions"),
        ("64 128 64 Animal\n192 0 128 Archway\n", "each line begins with a number, but they are not 0 to 1"),
        ("1 road\n2 car\n", r"they are not 0 to 1, each once (found 1, 2)"),
        ("0 road\n0 car\n", "they are not 0 to 1"),
    ],
)
def test_lists_that_could_be_misread_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(SemipixError) as caught:
        read_classes(tmp_path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/classes.txt: ")


def test_values_without_gaps_give_no_warning() -> None:
    assert class_values_warnings(Path("masks"), {0, 1, 2}, list("abc"), named=True) == []
    assert class_values_warnings(Path("masks"), {0, 1}, ["0", "1"], named=False) == []
    assert class_values_warnings(Path("masks"), set(), ["0", "1"], named=False) == []


def test_one_value_gives_a_warning() -> None:
    (warning,) = class_values_warnings(Path("masks"), {0}, ["0", "1"], named=False)
    assert warning == "masks: all pixels have the value 0, but at least 2 classes are needed; check the masks"


def test_suggested_values_number_the_classes() -> None:
    assert suggested_mask_values({0, 100, 200}) == "{0:0,100:1,200:2}"
    assert suggested_mask_values(set(range(1, 20))) == "{1:0,2:1,3:2,4:3,5:4,6:5,7:6,...}"
