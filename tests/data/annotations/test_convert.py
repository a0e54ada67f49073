"""`semipix data convert`: what all formats share.

Also tests data/annotations/entries.py, data/annotations/images.py and data/annotations/json_files.py.
"""

import errno
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semipix.data.annotations import convert as converting
from semipix.data.annotations.convert import _check_names, convert
from semipix.data.annotations.entries import Entry, Notes, with_background
from semipix.data.annotations.images import ImageIndex, Named, Wanted, as_entries, part_of, part_of_list
from semipix.data.annotations.json_files import points_of, read_json
from semipix.data.check import check_folder
from semipix.errors import SemipixError
from tests.conftest import Result
from tests.helpers.annotated import filled, save_photo


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Masks of two colours for two of three photos."""
    values = filled()
    values[:4] = 255
    for name in ("train/a", "train/b", "val/v"):
        save_photo(tmp_path / f"data/images/{name}.jpg")
        (tmp_path / f"data/masks/{name}.png").parent.mkdir(parents=True, exist_ok=True)
    for name in ("train/a", "val/v"):
        Image.fromarray(np.stack([values] * 3, -1)).save(tmp_path / f"data/masks/{name}.png")
    (tmp_path / "data/classes.txt").write_text("ground 0 0 0\nleaf 255 255 255\n")
    return tmp_path / "data"


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("data", "photos"))


def test_the_command_writes_a_folder_that_training_reads(data: Path, command: Callable[..., Result]) -> None:
    result = command("data", "convert", data, "root", "--from", "colours", "--link")
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[:5] == [
        f"{data}: colours, 2 images with annotations, 1 without, 2 classes",
        "root",
        "  train           1 with mask       0 without",
        "  val             1 with mask       0 without",
        "  unlabeled       0 with mask       1 without",
    ]
    assert (Path("root") / "images/train/a.jpg").is_symlink()
    report = check_folder("root")
    assert (report.problems, report.classes, report.masked["train"]) == ([], ["ground", "leaf"], 1)


def test_what_is_there_is_not_touched(data: Path, tmp_path: Path, command: Callable[..., Result]) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root/precious").write_text("")
    result = command("data", "convert", data, tmp_path / "root", "--from", "colours")
    assert "found a folder that is not empty" in result.error
    assert left_behind(tmp_path / "root") == ["precious"]


@pytest.mark.parametrize("form", ["coco", "labelme", "yolo", "cvat"])
def test_it_has_to_be_said_what_nobody_annotated(data: Path, form: Any) -> None:
    with pytest.raises(SemipixError, match=r"Say --unannotated background .* or --unannotated ignore"):
        convert(data, data.parent / "root", form)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"unannotated": "ignore"}, "--unannotated: with --from colours"),
        ({"empty": "labeled"}, "--empty: found it with --from colours"),
        ({"images": Path("nowhere")}, "nowhere: no such folder"),
        ({"max_pixels": 9}, "more than data.max_pixels=9"),
    ],
)
def test_options_that_do_not_fit(data: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SemipixError, match=message):
        convert(data, tmp_path / "root", "colours", **options)
    assert left_behind(tmp_path) == []


def test_an_archive(data: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "archive"), "zip", data)
    assert convert(tmp_path / "archive.zip", tmp_path / "root", "colours").masks["train"] == 1
    assert left_behind(tmp_path) == ["archive.zip", "root"]
    with pytest.raises(SemipixError, match="--link cannot link to images in an archive"):
        convert(tmp_path / "archive.zip", tmp_path / "second", "colours", link=True)
    content = (tmp_path / "archive.zip").read_bytes()
    (tmp_path / "archive.zip").write_bytes(content[:100] + b"?" * 40 + content[140:])
    assert zipfile.is_zipfile(tmp_path / "archive.zip")
    with pytest.raises(SemipixError, match="a damaged zip archive"):
        convert(tmp_path / "archive.zip", tmp_path / "second", "colours")
    assert left_behind(tmp_path) == ["archive.zip", "root"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interruption_leaves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    put = converting._put

    def fail(image: Path, path: Path, link: bool) -> None:
        put(image, path, link)
        if path.name == "v.jpg":
            raise error

    monkeypatch.setattr(converting, "_put", fail)
    with pytest.raises(type(error)):
        convert(data, tmp_path / "root", "colours")
    assert left_behind(tmp_path) == []


def test_a_mask_that_would_be_void_is_not_written(data: Path, tmp_path: Path) -> None:
    (data / "classes.txt").write_text("ground 0 0 0\nleaf 255 255 255\nvoid 9 9 9\n")
    save_photo(data / "images/val/w.jpg")
    Image.fromarray(np.full((8, 10, 3), 9, np.uint8)).save(data / "masks/val/w.png")
    found = convert(data, tmp_path / "root", "colours")
    assert (tmp_path / "root/unlabeled/val/w.jpg").exists()
    assert found.masks == {"train": 1, "val": 1}
    assert found.left_out == ["1 images count as unlabeled: w.jpg: all of its pixels would be void"]


def test_two_images_of_one_mask_are_refused(data: Path, tmp_path: Path) -> None:
    save_photo(data / "images/train/a.png")
    with pytest.raises(SemipixError, match=r"a\.png: the same path as .*a\.jpg up to the extension"):
        _check_names(
            [Entry(f"a{extension}", "train", data / f"images/train/a{extension}", 1) for extension in (".jpg", ".png")]
        )


def test_without_the_extra_one_line_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(SemipixError, match=r"pycocotools: .*pip install 'semipix\[formats\]'"):
        convert(tmp_path, tmp_path / "root", "coco", unannotated="ignore")


def test_one_part_becomes_the_training_part(data: Path, tmp_path: Path) -> None:
    (data / "masks/train/a.png").unlink()
    found = convert(data, tmp_path / "root", "colours")
    assert found.masks == {"train": 1}
    assert "1 images are all of val, and become train" in found.left_out[0]


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("annotations/instances_train2017.json", "train"),
        ("valid/labels/a.txt", "val"),
        ("test/val_set.json", "test"),
        ("valid/images/train_station_1.png", "val"),
        ("train/cam1/a.png", "train"),
        ("photos/test_1.png", "test"),
        ("trainval.txt", None),
        ("contest/latest.json", None),
    ],
)
def test_the_part_in_a_path(path: str, part: str | None) -> None:
    assert part_of(path) == part


def test_the_part_of_a_list_is_in_its_own_name_first() -> None:
    assert part_of_list("test/val_set.json") == "val"
    assert part_of_list("train/_annotations.coco.json") == "train"


def test_images_are_found_by_what_tools_write(tmp_path: Path) -> None:
    for name in ("train/a.jpg", "val/a.jpg", "deep/er/b.png", "e\u0301.png"):
        save_photo(tmp_path / name)
    index = ImageIndex(tmp_path)

    def find(*wanted: str, **options: Any) -> list[str | None]:
        return index.find_all([Wanted(name, **options) for name in wanted])

    assert find("val/a.jpg") == ["val/a.jpg"]
    assert find("a.jpg") == [None]  # two have this name
    assert find("a.jpg", part="val") == ["val/a.jpg"]
    assert find("a.jpg", near="train") == ["train/a.jpg"]
    assert find("D:\\set\\b.png") == ["deep/er/b.png"]
    assert find("../../../b.png") == ["deep/er/b.png"]
    assert find("..") == [None]
    assert find("\u00e9.png") == ["e\u0301.png"]
    assert index.find_stems([["er/b"]]) == ["deep/er/b.png"]
    assert index.rest(["train/a.jpg"], everywhere=False) == []
    assert len(index.rest(["train/a.jpg"], everywhere=True)) == 3


def test_a_file_name_alone_is_not_enough_where_folders_contradict(tmp_path: Path) -> None:
    for name in ("cam2/1.png", "cam2/2.png", "3.png"):
        save_photo(tmp_path / name)
    index = ImageIndex(tmp_path)
    assert index.find_all([Wanted("cam1/1.png")]) == ["cam2/1.png"]  # as for the paths of another computer
    assert index.find_all([Wanted("cam1/1.png"), Wanted("cam3/1.png")]) == [None, None]
    assert index.find_all([Wanted("cam1/1.png"), Wanted("cam2/1.png")]) == [None, "cam2/1.png"]
    assert index.find_all([Wanted("cam1/1.png"), Wanted("cam2/2.png")]) == [None, "cam2/2.png"]
    assert index.find_all([Wanted("1.png", near="cam1", must_fit=True)]) == [None]
    stems = [["cam1/1"], ["cam2/2"], ["cam1/3"], ["masks/3"]]
    assert index.find_stems(stems) == [None, "cam2/2.png", None, None]
    assert index.find_stems([["masks/2"]]) == ["cam2/2.png"]


def test_shared_folders_are_left_out_of_names(tmp_path: Path) -> None:
    for name in ("set/x/a.jpg", "set/y/a.jpg"):
        save_photo(tmp_path / name)
    index = ImageIndex(tmp_path)
    entries = as_entries(index, [Named(path, "train", 1) for path in index.paths], [])
    assert entries == [Entry(f"{part}/a.jpg", "train", tmp_path / f"set/{part}/a.jpg", 1) for part in "xy"]


def test_background_is_a_class_of_its_own_only_where_there_is_none() -> None:
    assert with_background(["a", "b"], "background") == (["background", "a", "b"], 0)
    assert with_background(["a", "_background_"], "background") == (["a", "_background_"], 1)
    assert with_background(["a", "b"], "ignore") == (["a", "b"], None)


def test_notes_have_a_count_and_an_example() -> None:
    notes, others = Notes(), Notes()
    notes.add("are left out", "a")
    others.add("are left out", "b")
    notes.update(others)
    assert notes.lines() == ["2 are left out (a, ...)"]


def test_json_and_points(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(SemipixError, match=r"a\.json: no complete JSON"):
        read_json(tmp_path / "a.json")
    assert points_of([1, 2, 3, 4], "a").tolist() == points_of([[1, 2], [3, 4]], "a").tolist()
    for wrong in ([1, 2, 3], [[1, 2, 3]], "12", None, [["x", 1]], [10**400, 1]):
        with pytest.raises(SemipixError, match="a: expected coordinates"):
            points_of(wrong, "a")
