"""YOLO's label files."""

from pathlib import Path
from typing import Any

import pytest

from semipix.data.annotations.convert import Conversion, convert
from semipix.errors import SemipixError
from tests.helpers.annotated import filled, mask_of, save_photo

pytest.importorskip("pycocotools")

CORNER = "1 0 0 0.2 0 0.2 0.125 0 0.125\n"
"""Class 1 in the two upper left pixels."""


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def converted(source: Path, **options: Any) -> Conversion:
    return convert(source, source.parent / "root", "yolo", **{"unannotated": "background", **options})


@pytest.mark.parametrize("orientation", [1, 6, 3])
def test_outlines_of_all_parts(tmp_path: Path, orientation: int) -> None:
    """Outlines are shares of the photo as it is shown, which Ultralytics turns by its tag."""
    data = tmp_path / "data"
    write(data / "data.yaml", "path: .\ntrain: images/a\nval: images/b\nnames: {0: leaf, 1: bug}\n")
    for name in ("a/a", "b/a", "a/empty", "a/without"):
        save_photo(data / f"images/{name}.jpg", orientation)
    write(data / "labels/a/a.txt", CORNER)
    write(data / "labels/b/a.txt", CORNER + "0 0.5 0.5 0.1 0.25\n")
    write(data / "labels/a/empty.txt", "")
    write(data / "labels/a/lone.txt", CORNER)
    found = converted(data)
    assert found.classes == ["background", "leaf", "bug"]
    assert (found.masks["train"], found.masks["val"], found.bare["unlabeled"]) == (2, 1, 1)
    expected = filled()
    expected[0, :2] = 2
    assert mask_of(tmp_path / "root") == expected.tolist()
    expected[3:5, 4:6] = 255
    assert mask_of(tmp_path / "root", "val/a") == expected.tolist()
    assert found.left_out[0] == "1 label files have no image and are left out (labels/a/lone.txt)"
    assert "1 objects have a box but no outline" in found.left_out[1]


def test_an_image_of_another_folder_is_another_one(tmp_path: Path) -> None:
    """The name of a file says its part only if no folder does."""
    data = tmp_path / "data"
    write(data / "classes.txt", "leaf\nbug\n")
    save_photo(data / "images/cam2/1.png")
    save_photo(data / "images/valid/train_station.png")
    save_photo(data / "images/train/a.png")
    for name in ("cam1/1", "valid/train_station", "train/a"):
        write(data / f"labels/{name}.txt", CORNER)
    found = converted(data)
    assert found.masks == {"train": 1, "val": 1}
    assert found.left_out == ["1 label files have no image and are left out (labels/cam1/1.txt)"]


def test_parts_of_lists_are_those_of_paths(tmp_path: Path) -> None:
    """Both cameras have images of the same names; the list of another computer has longer paths."""
    data = tmp_path / "data"
    for name in ("cam1/1", "cam1/2", "cam2/1", "cam2/2"):
        save_photo(data / f"images/{name}.png")
        write(data / f"labels/{name}.txt", CORNER)
    write(data / "data.yaml", "path: .\ntrain: lists/train.txt\nval: val.txt\ntest: test.txt\nnames: [leaf, bug]\n")
    write(data / "lists/train.txt", "../images/cam1/1.png\nimages/cam2/2.png\n")
    write(data / "val.txt", "./images/cam2/1.png\n\n2.png\n")
    write(data / "test.txt", "/content/set/images/cam1/2.png\n")
    found = converted(data)
    assert found.masks == {"train": 2, "val": 1, "test": 1}
    assert (tmp_path / "root/masks/val/1.png").exists()
    assert sorted(path.as_posix()[-10:] for path in (tmp_path / "root/masks/train").rglob("*.png")) == [
        "cam1/1.png",
        "cam2/2.png",
    ]
    assert found.left_out == ["1 lines of lists mean no image or several and are left out (2.png)"]


def test_files_beside_their_images(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write(data / "classes.txt", "leaf\nbug\n")
    save_photo(data / "a.png")
    write(data / "a.txt", CORNER)
    assert converted(data, unannotated="ignore").classes == ["leaf", "bug"]
    assert mask_of(tmp_path / "root")[0][:3] == [1, 1, 255]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 0 0 1 1 0.5", r"a\.txt, line 1: found .* expected a class number and the coordinates"),
        ("leaf 0 0 1 1 0 1", "expected a class number"),
        ("2 0 0 1 1 0 1", r"a\.txt, line 1: found class 2, but there are 2 names"),
        ("1 0 0 1 nan 0 1", "a coordinate is no finite number"),
    ],
)
def test_lines_that_are_no_outline(tmp_path: Path, line: str, message: str) -> None:
    data = tmp_path / "data"
    write(data / "classes.txt", "leaf\nbug\n")
    save_photo(data / "a.png")
    write(data / "a.txt", line)
    with pytest.raises(SemipixError, match=message):
        converted(data)
    assert not (tmp_path / "root").exists()


def test_names_are_needed(tmp_path: Path) -> None:
    save_photo(tmp_path / "data/a.png")
    write(tmp_path / "data/a.txt", CORNER)
    with pytest.raises(SemipixError, match="found no class names"):
        converted(tmp_path / "data")
    write(tmp_path / "data/data.yaml", "names: {0: leaf, 2: bug}\n")
    with pytest.raises(SemipixError, match="not 0 to 1"):
        converted(tmp_path / "data")
